"""``--importer tf2onnx`` for TFLite: the native importer's detections and codes, both with the real LeakyReLU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from xdet.checking.check import check

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = """
import json, sys
import numpy as np, onnx
import xdet
from pathlib import Path
from xdet.pictures.preparation import Preparation, prepare
from xdet.runtimes.table import open_runtime
source, folder, output = map(Path, sys.argv[1:])
runtimes = []
for importer in ("native", "tf2onnx"):
    done = xdet.convert(source, output / f"{importer}.onnx", head="none", importer=importer, leaky_relu="float")
    runtimes.append(open_runtime(output / f"{importer}.onnx"))
whole = xdet.convert(source, output / "whole.onnx", importer="tf2onnx")
photographs = sorted(folder.rglob("*.jpg"))[:12]
images = np.stack([prepare(p, Preparation(runtimes[0].spec.image)).pixels for p in photographs])
heads = [runtime.head(images) for runtime in runtimes]
scale = min(float(d) for d in np.diff(np.unique(heads[0])))
found = [runtime.detect(images, type(runtime.spec.thresholds)(0.25, 0.5, 100)) for runtime in runtimes]
rows = [[sorted(a[:n].tolist()) for a, n in zip(f.anchors, f.num_detections)] for f in found]
codes = np.rint(np.abs(heads[0] - heads[1]) / scale).astype(int)
document = done.document
print(json.dumps({"lsb": int(codes.max()), "share": float((codes > 0).mean()), "rows": rows,
                  "notes": document.notes, "activations": document.activations, "leaky": document.leaky_relu,
                  "twins": len(document.tensors), "passes": document.passes,
                  "outputs": [o.name for o in onnx.load_model_from_string(whole.model).graph.output]}))
"""

pytestmark = pytest.mark.skipif(find_spec("tensorflow") is None, reason='needs pip install "xdet[keras]"')


def compared(source: Path, photographs: Path, folder: Path) -> dict[str, Any]:
    """What the program above saw; in a process of its own, because tf2onnx needs TensorFlow."""
    command = [sys.executable, "-c", PROGRAM, str(source), str(photographs), str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "INFO:" not in result.stderr  # of the delegate that LiteRT opens for tf2onnx
    seen: dict[str, Any] = json.loads(result.stdout)
    return seen


def test_the_embedded_detector_finds_the_same_boxes_either_way(embedded_tflite: Path, tmp_path: Path) -> None:
    seen = compared(embedded_tflite, embedded_tflite.parent, tmp_path)
    assert seen["rows"][0] == seen["rows"][1]
    assert sum(map(len, seen["rows"][0])) > 3
    assert seen["lsb"] <= 1  # convolutions that run in float round sums at ties; measured 0
    assert (seen["activations"], seen["leaky"], seen["passes"]) == ("int8", "float", ["pool before activation"])
    assert seen["notes"] == ["translated by tf2onnx: int8 activations, and some operators may run in float32"]
    assert seen["twins"] >= 20
    assert seen["outputs"][0] == "num_detections"
    photographs = sorted(embedded_tflite.parent.rglob("*.jpg"))[:1]
    result = check(tmp_path / "whole.onnx", embedded_tflite, photographs, runtimes="onnxruntime:cpu")
    assert result.findings == ()
    assert [part.status for part in result.parts] == ["skipped", "skipped", "passed", "passed"]
    assert result.parts[0].summary.startswith("only the description was compared: tf2onnx wrote the graph")


@pytest.mark.shared
def test_the_shared_per_tensor_detector_stays_within_a_few_codes(shared_dir: Path, tmp_path: Path) -> None:
    source = shared_dir / "models" / "tiny_yolo_v2_person_224_per_tensor_int8.tflite"
    seen = compared(source, shared_dir / "data" / "coco_person", tmp_path)
    assert seen["lsb"] <= 1
    assert seen["share"] < 0.01  # measured 0.0035
    differing = sum(a != b for a, b in zip(*seen["rows"], strict=True))
    assert differing <= 1  # of 12: a box at the threshold may change sides
