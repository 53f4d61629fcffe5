"""What a file holds is told without running it, and the JSON is the one that docs/json.md describes."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import onnx_ir as ir
import pytest

import xdet
from converters.spec import ModelDocument
from tests.converters.sources.tflite.builder import build_small_model
from tests.converters.sources.tflite.networks import HEAD_CHANNELS, NetworkBuilder
from tests.converters.test_any_size import converted
from tests.xdet.finished_models import SPEC, document, finished_model, model_from_text
from xdet.errors import ModelError
from xdet.inspection import Inspection, inspect
from xdet.inspection.coverage import TwoScales, find_two_scales
from xdet.inspection.report import inspection_report, inspection_to_json
from xdet.writing.terminal import report_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "json.md"


def inspected(folder: Path, data: bytes) -> Inspection:
    (folder / "m.onnx").write_bytes(data)
    return inspect(folder / "m.onnx")


def retyped(number: int) -> bytes:
    """A finished model whose image has another element type."""
    model = onnx.load_from_string(finished_model())
    model.graph.input[0].type.tensor_type.elem_type = number
    serialized: bytes = model.SerializeToString()
    return serialized


def documented_keys() -> set[str]:
    """The keys that docs/json.md lists for ``xdet.inspection``."""
    section = DOCUMENT.read_text("utf-8").split("## `xdet.inspection`")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {name.removesuffix("[]") for row in rows for name in re.findall(r"`([^`]+)`", row)}


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (onnx.TensorProto.UINT8, "uint8"),
        (onnx.TensorProto.FLOAT, "float32"),
        (onnx.TensorProto.FLOAT16, "float16"),
        (onnx.TensorProto.DOUBLE, "float64"),
        (onnx.TensorProto.FLOAT8E4M3FN, "float8e4m3fn"),
        (onnx.TensorProto.BFLOAT16, "bfloat16"),
        (99, "unknown (99)"),
    ],
)
def test_an_element_type_has_its_name_and_a_newer_one_its_number(number: int, name: str, tmp_path: Path) -> None:
    assert inspected(tmp_path, retyped(number)).inputs[0].dtype == name


def test_a_finished_model_is_told_with_its_document(tmp_path: Path) -> None:
    found = inspected(tmp_path, finished_model(batch="N"))
    assert (found.format, found.producer, found.spec, found.problem) == ("onnx", "", SPEC, None)
    assert [tensor.name for tensor in found.inputs] == ["image", "score_threshold", "iou_threshold"]
    assert found.outputs[1].shape == ("N", 4, 4)
    assert found.operators["Where"] == 3
    assert isinstance(found.document, ModelDocument)


def test_a_strangers_model_is_told_without_a_detector(tmp_path: Path) -> None:
    found = inspected(tmp_path, finished_model(metadata=None))
    assert (found.spec, found.document) == (None, None)
    assert found.problem == "not made by xdet: it carries no xdet document"
    assert [tensor.name for tensor in found.inputs] == ["image"]


def test_damage_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"m\.onnx' is a damaged ONNX file"):
        inspected(tmp_path, finished_model()[:-3])


@pytest.mark.parametrize(("leaky_relu", "count"), [("litert", 8), ("float", 0)])
def test_the_scales_in_front_of_leaky_relus_are_told(
    leaky_relu: Literal["litert", "float"], count: int, embedded_tflite: Path, tmp_path: Path
) -> None:
    xdet.convert(embedded_tflite, tmp_path / "m.onnx", leaky_relu=leaky_relu)
    found = inspect(tmp_path / "m.onnx")
    assert len(found.two_scales) == count
    told = f"{count} tensors are read with another scale than written with"
    assert (told in report_text(inspection_report(found))) == (count > 0)
    for pair in found.two_scales:
        assert pair.written != pair.read


def quantised_graph(read: float, *, between: str | None) -> onnx.GraphProto:
    """A value written with scale 0.5 and read with ``read``, perhaps behind an operator."""
    codes, moved = ("codes", "") if between is None else ("moved", f"moved = {between}(codes)")
    return model_from_text(
        f"""g (float[1] x) => (float[1] y) <float written = {{0.5}}, float read = {{{read}}}, uint8 zero = {{0}}>
        {{
            codes = QuantizeLinear(x, written, zero)
            {moved}
            y = DequantizeLinear({codes}, read, zero)
        }}"""
    ).graph


@pytest.mark.parametrize(
    ("read", "between", "found"),
    [
        (0.5, None, ()),
        (0.25, None, (TwoScales("codes", 0.5, 0.25),)),
        (0.5, "Transpose", ()),
        (0.25, "Transpose", (TwoScales("moved", 0.5, 0.25),)),
        (0.25, "BitwiseNot", ()),
    ],
    ids=["same", "other", "moved-same", "moved-other", "computed"],
)
def test_codes_keep_their_scale_through_what_only_moves_them(
    read: float, between: str | None, found: tuple[TwoScales, ...]
) -> None:
    assert find_two_scales(ir.serde.deserialize_graph(quantised_graph(read, between=between))) == found


def test_the_json_has_the_keys_of_its_document(embedded_tflite: Path, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(finished_model())
    for path in (embedded_tflite, tmp_path / "m.onnx"):
        document = json.loads(inspection_to_json(inspect(path)))
        assert (document["schema"], document["version"]) == ("xdet.inspection", 1)
        assert set(document) == documented_keys()
        assert set(document["inputs"][0]) == {"name", "dtype", "shape", "scale", "zero_point"}


def packed_too_long(model: onnx.ModelProto) -> None:
    """16 bytes for four numbers of 6 bits."""
    tensor = model.graph.initializer[0]
    tensor.CopyFrom(onnx.TensorProto(name=tensor.name, dims=[4], raw_data=bytes(16)))
    tensor.data_type = 27  # FLOAT6E2M3, in onnx from 1.22 on


@pytest.mark.parametrize(
    ("bend", "said"),
    [
        (lambda model: model.graph.node[0].ClearField("output"), "operator 'Cast' has no results"),
        (lambda model: model.graph.initializer[0].dims.append(7), "cannot be read: cannot reshape"),
        (packed_too_long, "Packed 6-bit data"),
        (lambda model: setattr(model.graph.initializer[0], "data_location", 1), "keeps its numbers in another file"),
    ],
    ids=["no result", "numbers that do not fill the shape", "more bytes than numbers", "external data"],
)
def test_a_damaged_onnx_file_is_told_by_what_is_wrong(
    tmp_path: Path, bend: Callable[[onnx.ModelProto], object], said: str
) -> None:
    model = onnx.load_model_from_string(finished_model())
    bend(model)
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match=f"is a damaged ONNX file: .*{said}"):
        inspect(tmp_path / "m.onnx")


def test_a_name_that_is_no_text_is_damage(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(finished_model().replace(b"Cast", b"\xffast", 1))
    with pytest.raises(ModelError, match=r"is a damaged ONNX file: the text .* is not UTF-8"):
        inspect(tmp_path / "m.onnx")


def test_a_graph_that_breaks_the_standard_has_no_costs(tmp_path: Path) -> None:
    model = onnx.load_model_from_string(finished_model())
    del model.graph.node[1].input[1:]
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    assert "is no valid ONNX model" in str(inspect(tmp_path / "m.onnx").totals_problem)


def test_what_other_commands_refuse_is_shown_with_a_line_that_says_so(tmp_path: Path) -> None:
    builder, sums = build_small_model()
    custom = builder.op("CUSTOM:mine", [sums], (1, 4, 4, 2), "int8", 0.5, 3)
    (tmp_path / "m.tflite").write_bytes(builder.build([custom]))
    model = onnx.load_from_string(finished_model())
    model.graph.node[0].domain = "com.example"
    (tmp_path / "m.onnx").write_bytes(model.SerializeToString())
    for name, why in (("m.tflite", "CUSTOM:mine x1"), ("m.onnx", "of the domain 'com.example'")):
        found = inspect(tmp_path / name)
        assert why in str(found.refused)
        lines = [line for line in report_text(inspection_report(found)).splitlines() if line.startswith("Refused")]
        assert len(lines) == 1
        assert why in lines[0]
    assert inspected(tmp_path, finished_model()).refused is None


def test_graphs_that_run_graphs_are_not_given_to_an_optimiser(tmp_path: Path) -> None:
    """An endless Loop over constants would run, and for ever, while ONNX Runtime folds constants."""
    model = model_from_text(
        """g (float[1] x) => (float[1] y) <bool true = {1}, float[1] one = {1}, float[1] looped>
        {
            looped = Loop <body = body (int64 i, bool c, float[1] a) => (bool go, float[1] b)
            {
                go = Identity(c)
                b = Identity(a)
            }>("", true, one)
            y = Add(x, looped)
        }"""
    )
    found = inspected(tmp_path, model.SerializeToString())
    assert "none of which runs another graph" in str(found.coverage_problem)


def test_costs_of_a_file_for_any_size_are_those_of_its_network(tmp_path: Path) -> None:
    source = tmp_path / "small.tflite"
    source.write_bytes(NetworkBuilder(64, seed=3).conv(16, stride=2).max_pool().conv(HEAD_CHANNELS, 1).build())
    fixed, whole = (inspected(tmp_path, converted(source, any_size=flag).model) for flag in (False, True))
    assert whole.totals is not None
    assert (whole.totals, whole.layers, whole.coverage) == (fixed.totals, fixed.layers, fixed.coverage)
    assert whole.inputs[0].shape == (1, "height", "width", 3)
    assert "nearest, in the file: image is a photograph of any size" in report_text(inspection_report(whole))


def test_a_file_that_only_says_it_takes_any_size_is_told(tmp_path: Path) -> None:
    told = replace(document(), spec=replace(SPEC, image=replace(SPEC.image, any_size=True)))
    found = inspected(tmp_path, finished_model(metadata=told.to_json()))
    assert "has no value named 'network_image'" in str(found.totals_problem)
