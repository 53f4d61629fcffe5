"""Write networks with random weights that are as large as other makers' detectors, to compare speed on.

    python examples/field_networks.py FOLDER
    xdet bench FOLDER/*.tflite --targets portable,cpu --threads 1,2

In a clone of the repository: the networks are those of its tests. Needs: pip install "xdet[litert]"
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.converters.sources.tflite.field_networks import FIELD


def main() -> None:
    """Write each network with its sidecar."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, network in FIELD.items():
        path = folder / f"{name}.tflite"
        path.write_bytes(network.build(network.size))
        sidecar = {**network.sidecar, "resize": "bilinear"}
        path.with_suffix(".xdet.json").write_text(json.dumps(sidecar), encoding="utf-8")
        print(path, f"{path.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
