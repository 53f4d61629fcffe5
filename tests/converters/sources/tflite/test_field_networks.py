"""Networks of the field, small: LiteRT runs them, they convert as their sidecars say, and the target moves no bit."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from tests.converters.sources.tflite.field_networks import FIELD, yolo_v5n, yolo_v8n
from tests.converters.sources.tflite.single_operator import run_litert, run_onnx

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from converters.spec import Arithmetic

litert: Any = pytest.importorskip("ai_edge_litert.interpreter", reason='needs pip install "xdet[litert]"')
SIZE = 96
ARITHMETICS: tuple[Arithmetic, ...] = ("litert", "fused")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if "yolo_v" in name else name for name in FIELD]
)
def test_targets_give_the_same_boxes(name: str, tmp_path: Path) -> None:
    network, source = FIELD[name], tmp_path / "net.tflite"
    source.write_bytes(network.build(SIZE))
    sidecar = {**network.sidecar, "resize": "bilinear"}
    source.with_suffix(".xdet.json").write_text(json.dumps(sidecar), encoding="utf-8")
    image = np.random.default_rng(0).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
    interpreter = litert.Interpreter(model_path=str(source))
    interpreter.allocate_tensors()
    interpreter.invoke()
    found = []
    for target in ("portable", "cpu"):
        done = convert_to_bytes(source, ConvertOptions(target=target, arithmetic="fused"))
        assert done.document.spec.head is not None
        assert done.document.spec.head.kind == network.sidecar["head"]
        session = onnxruntime.InferenceSession(done.model, providers=["CPUExecutionProvider"])
        feeds = {"image": image, "score_threshold": np.array(0.01, np.float32)}
        found.append(session.run(None, feeds))
    assert found[0][0][0] > 0
    for ours, theirs in zip(*found, strict=True):
        assert np.array_equal(ours, theirs)


def test_exactness_costs_a_network_with_silu_nothing(tmp_path: Path) -> None:
    source = tmp_path / "net.tflite"
    source.write_bytes(FIELD["yolo_v5n_320"].build(SIZE))
    exact, fused = (
        convert_to_bytes(source, ConvertOptions(arithmetic=arithmetic, source=SourceOptions(head="none")))
        for arithmetic in ARITHMETICS
    )
    graphs = [onnx.load_model_from_string(done.model).graph for done in (exact, fused)]
    assert graphs[0].SerializeToString() == graphs[1].SerializeToString()


@pytest.mark.parametrize(
    "data",
    [
        lambda: yolo_v5n(64, classes=2, width=4),
        lambda: yolo_v8n(64, classes=3, width=4, bins=16),
        lambda: yolo_v8n(64, classes=3, width=4, bins=16, attention=True),
    ],
    ids=["v5", "v8", "v11"],
)
def test_every_raw_value_of_a_yolo_is_litert_s(data: Callable[[], bytes]) -> None:
    source = data()
    pixels = np.random.default_rng(1).integers(0, 256, (1, 64, 64, 3)).astype(np.uint8)
    wanted, _ = run_litert(source, [pixels])
    found = run_onnx(source, [pixels], "uint8")
    assert sum(int((a != b).sum()) for a, b in zip(wanted, found, strict=True)) == 0
    assert min(np.unique(output).size for output in wanted) > 5
