"""Print one block about a finished model on an execution provider here: for an issue, or for docs/runtimes.md.

``python report_accelerator.py person.onnx --source person.tflite --images photos --provider cuda``

The block holds the versions, the machine, the provider with its devices and options, which nodes it takes and which
fall back to the CPU, the time per photograph beside the CPU's, and what ``xdet check`` finds on both: steps between the
heads, and boxes. Exit code 0 where the check passed, 1 where it did not, 2 for a request that cannot be met, 3 where
the provider gave no result.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

import xdet
from xdet.bench.machine import describe_machine
from xdet.checking.report import check_text, placement_text
from xdet.checking.runtimes import find_placement
from xdet.cli.options import read_provider_options
from xdet.errors import XdetError
from xdet.model.file import read_document, read_model_file
from xdet.pictures.images import find_images
from xdet.pictures.preparation import Preparation, prepare_many
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.onnxruntime_packages import installed_distributions
from xdet.runtimes.ort_session import available_providers, provider_problems, resolve_provider, short_name
from xdet.runtimes.table import open_model

if TYPE_CHECKING:
    from collections.abc import Sequence

REPEATS = 10


def least_ms(model: Path, photograph: Path, provider: str, options: dict[str, str]) -> float:
    """The least milliseconds of a photograph, reading it included, after one call to warm up."""
    with xdet.Detector(model, provider=provider, provider_options=options) as detector:
        times = []
        for _ in range(REPEATS + 1):
            started = time.perf_counter()
            detector(photograph)
            times.append(time.perf_counter() - started)
    return min(times[1:]) * 1000


def head_line(path: Path, photographs: Sequence[Path], choices: RuntimeChoices) -> str:
    """How far the provider's raw head is from the CPU's, which needs nothing but ONNX Runtime."""
    model = read_model_file(path)
    document = read_document(model.data, file=model.file)
    with open_model(model) as known, open_model(model, choices, subprocess=True) as runtime:
        pictures = [picture.pixels[None] for picture in prepare_many(photographs, Preparation(document.spec.image))]
        heads = [(known.head(pixels), runtime.head(pixels)) for pixels in pictures]
    differing = sum(int((here != there).sum()) for here, there in heads)
    most = max(float(np.abs(here - there).max()) for here, there in heads)
    told = f"{most:.2g}" if document.golden is None else f"{most / document.golden.scale:.0f} LSB"
    values = sum(here.size for here, _ in heads)
    return f"head on {choices.provider} beside cpu: {differing:,} of {values:,} values differ, by at most {told}"


def print_block(args: argparse.Namespace) -> int:
    """Print the block; the exit code."""
    options = read_provider_options(args.provider_option)
    provider = short_name(resolve_provider(args.provider))
    photographs, machine = find_images(args.images), describe_machine()
    here = next(found for found in available_providers() if found.short == provider)
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    print("```")
    print(f"xdet {xdet.__version__}; {', '.join(installed_distributions())}; {versions}")
    print(f"{machine.cpu}, {machine.usable_cpus} processors, {machine.system}")
    print(f"provider {here.name}; devices: {', '.join(here.devices) or 'not told'}; options: {options or 'none'}")
    for problem in provider_problems():
        print(f"problem: {problem}")
    print(placement_text(find_placement(args.model.read_bytes(), provider)), flush=True)
    for name, given in dict.fromkeys([("cpu", ()), (provider, tuple(options.items()))]):
        print(
            f"time on {name}: {least_ms(args.model, photographs[0], name, dict(given)):.1f} ms per photograph",
            flush=True,
        )
    names = ",".join(dict.fromkeys(["onnxruntime:cpu", f"onnxruntime:{provider}"]))
    if provider != "cpu":
        print(head_line(args.model, photographs, RuntimeChoices("onnxruntime", provider, provider_options=options)))
    result = xdet.check(args.model, args.source, photographs, runtimes=names, provider_options=options)
    print(check_text(result))
    print("```")
    if not result.passed:
        return 1
    ran = any(run.name.partition(" ")[0] == f"onnxruntime:{provider}" for run in result.runs)
    return 0 if ran else 3


def main() -> int:
    """Read the request and print the block."""
    parser = argparse.ArgumentParser(description="One block to paste: a model on an execution provider.")
    parser.add_argument("model", type=Path, help="an ONNX file of xdet convert")
    parser.add_argument("--source", type=Path, required=True, help="the file it was made of")
    parser.add_argument("--images", nargs="+", type=Path, required=True, help="photographs, or folders of them")
    parser.add_argument(
        "--provider", required=True, help="as xdet providers lists it: cuda, tensorrt, coreml, qnn, ..."
    )
    parser.add_argument("--provider-option", action="append", metavar="KEY=VALUE")
    try:
        return print_block(parser.parse_args())
    except XdetError as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
