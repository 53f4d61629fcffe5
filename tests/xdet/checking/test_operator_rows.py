"""Every case of every operator's row, from the converter to the verdict: what the row promises is what LiteRT gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from converters.sources.tflite.operators import OPERATORS, case_of
from converters.sources.tflite.reader import read_tflite
from tests.converters.sources.tflite.cases import BUILDERS, SHAPE, build_case
from tests.converters.sources.tflite.single_operator import run_litert
from xdet.checking.heads.spread import why_not_exact
from xdet.checking.layers import compare_layers
from xdet.checking.numbers import check_static
from xdet.checking.pair import open_pair
from xdet.checking.runtimes import OpenRuntimes
from xdet.runtimes.onnxruntime import open_onnxruntime

if TYPE_CHECKING:
    from pathlib import Path

    from converters.sources.tflite.operators import Case

CASES = {(op, case.when): case for op, row in OPERATORS.items() for case in row.cases}


def test_every_case_has_a_network() -> None:
    assert BUILDERS.keys() == CASES.keys()


@pytest.mark.parametrize(("key", "case"), CASES.items(), ids=[" ".join(key).strip() for key in CASES])
def test_a_row_is_what_the_converter_litert_and_check_do(key: tuple[str, str], case: Case, tmp_path: Path) -> None:
    op, data = key[0], build_case(*key)
    model = read_tflite(data, "row.tflite")
    held = [case_of(model, found) for found in model.operators]
    assert case in [c for c, found in zip(held, model.operators, strict=True) if found.op == op]
    source, finished = tmp_path / "row.tflite", tmp_path / "row.onnx"
    source.write_bytes(data)
    finished.write_bytes(convert_to_bytes(source, ConvertOptions(source=SourceOptions(head="none"))).model)

    images = np.random.default_rng(5).integers(0, 256, (2, *SHAPE[1:]), np.uint8)
    images.reshape(2, -1)[:, :256] = np.arange(256)
    step = 1.0
    if (quant := model.tensors[model.operators[-1].inputs[0]].quant) is not None and op != "CAST":
        step = float(quant.scalar_scale)
    with open_onnxruntime(finished.read_bytes(), file="row.onnx") as runtime:
        for image in images:
            (wanted,), _ = run_litert(data, [image[None]])
            worst = np.abs(runtime.head(image[None]).reshape(-1) - wanted.reshape(-1)).max() / step
            assert worst <= case.bound_lsb + 1e-3

    pair = open_pair(finished, source)
    static, _ = check_static(pair)
    assert static.findings == ()
    reason = why_not_exact(pair.document, pair.origin.graph)
    bounded = {found.op for found, c in zip(model.operators, held, strict=True) if c and c.bound_lsb}
    assert all(name in str(reason) for name in bounded) if bounded else reason is None
    with OpenRuntimes(pair) as runtimes:
        layers = compare_layers(pair, images, runtimes).layers
    assert [layer for layer in layers if layer.local.worst > (layer.local_bound or 0)] == []
