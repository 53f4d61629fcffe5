"""The lowest opset that takes a graph, opsets that are asked for, and the releases that load the result."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converters.errors import OptionError
from converters.graph import infer_shapes
from converters.heads.yolo_v2 import YoloV2
from converters.opset import NO_INT8_CODES, oldest_runtimes, refused_nodes, stamp_opset
from converters.options import ConvertOptions
from converters.spec.contract import ANY_SIZE_RUNTIMES, IR_VERSIONS, ONNXRUNTIME, ONNXRUNTIMES, OTHER_RUNTIMES
from tests.converters.sessions import session_of
from tests.xdet.finished_models import document

if TYPE_CHECKING:
    from converters.spec import ResizeRule

LEAKY = "y = LeakyRelu(x)"
HARD_SWISH = "y = HardSwish(x)"
MEAN_BY_OPERAND = "axes = Constant <value_ints = [2]> () y = ReduceMean(x, axes)"
MEAN_BY_COMPUTED_OPERAND = (
    "two = Constant <value_ints = [2]> () none = Constant <value_ints = [0]> () "
    "axes = Add(two, none) y = ReduceMean(x, axes)"
)
MEAN_BY_ATTRIBUTE = "y = ReduceMean <axes = [2]> (x)"
COUNTED_SPLIT = "y, z = Split <axis = 1, num_outputs = 2> (x)"
SUM_OF_CODES = "c = Cast <to = 2> (x) s = Add(c, c) y = Cast <to = 1> (s)"
MAX_OF_CODES = "c = Cast <to = 2> (x) s = Max(c, c) y = Cast <to = 1> (s)"
MAX_OF_REALS = "y = Max(x, x)"


def model_of(body: str, opset: int = 19) -> ir.Model:
    text = f'<ir_version: 9, opset_import: ["" : {opset}]> net (float[1, 4, 8] x) => (float[1, m, k] y) {{ {body} }}'
    model = ir.from_proto(onnx.parser.parse_model(text))
    infer_shapes(model)
    return model


@pytest.mark.parametrize(
    ("body", "lowest"),
    [
        pytest.param(LEAKY, 13, id="operator older than all"),
        pytest.param(HARD_SWISH, 14, id="operator of opset 14"),
        pytest.param(SUM_OF_CODES, 14, id="dtype of opset 14"),
        pytest.param(MEAN_BY_OPERAND, 13, id="constant operand that an attribute can hold"),
        pytest.param(MEAN_BY_COMPUTED_OPERAND, 18, id="operand of opset 18"),
        pytest.param(COUNTED_SPLIT, 18, id="attribute of opset 18"),
        pytest.param(f"a = Mish(x) {HARD_SWISH}", 18, id="the highest of all nodes"),
    ],
)
def test_a_graph_gets_the_lowest_opset_that_takes_all_its_nodes(body: str, lowest: int) -> None:
    model = model_of(body)
    stamp_opset(model, None)
    assert model.graph.opset_imports == {"": lowest}
    assert model.ir_version == IR_VERSIONS[lowest]
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


@pytest.mark.parametrize("opset", [13, 17, 18])
def test_a_mean_keeps_its_axes_in_every_opset(opset: int) -> None:
    model = model_of(MEAN_BY_OPERAND)
    stamp_opset(model, opset)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    values = np.random.default_rng(0).normal(size=(1, 4, 8)).astype(np.float32)
    found, expected = (
        session_of(one.SerializeToString()).run(None, {"x": values})[0]
        for one in (proto, ir.to_proto(model_of(MEAN_BY_OPERAND)))
    )
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("opset", IR_VERSIONS)
def test_an_opset_that_takes_the_graph_can_be_asked_for(opset: int) -> None:
    model = model_of(LEAKY)
    stamp_opset(model, opset)
    assert model.graph.opset_imports == {"": opset}
    assert (
        model.ir_version
        == IR_VERSIONS[opset]
        == onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    )
    oldest = oldest_runtimes(model, document())
    assert [oldest[name] for name in ONNXRUNTIMES] == [ONNXRUNTIME[opset]] * 3
    onnx.checker.check_model(ir.to_proto(model), full_check=True)


@pytest.mark.parametrize(
    ("body", "opset", "said"),
    [
        pytest.param(
            f"a = Mish(x) b = Mish(a) {MEAN_BY_COMPUTED_OPERAND}",
            17,
            r"`opset` 17 does not have Mish \(first 'a'\), ReduceMean \(first 'y'\) as this graph needs it; "
            "choose among 18, 19, 20, 21, 22, or leave `opset` out",
            id="too low",
        ),
        pytest.param(SUM_OF_CODES, 13, r"does not have Add .*; choose among 14, 15, .*, 22, or leave", id="dtype"),
    ],
)
def test_an_opset_below_the_graphs_is_refused_with_every_operator_that_needs_more(
    body: str, opset: int, said: str
) -> None:
    with pytest.raises(OptionError, match=said):
        stamp_opset(model_of(body), opset)


@pytest.mark.parametrize("opset", [21, 22])
def test_int8_codes_are_refused_in_opsets_where_onnx_runtime_cannot_load_them(opset: int) -> None:
    body = (
        "s = Constant <value = float {0.5}> () z = Constant <value = int8 {3}> () q = QuantizeLinear(x, s, z) "
        "y = DequantizeLinear(q, s, z)"
    )
    stamp_opset(model_of(body), NO_INT8_CODES - 1)
    with pytest.raises(
        OptionError, match=f"`opset` {opset} with int8 .* 1.27 to 1.32 cannot load .* below 21, or leave"
    ):
        stamp_opset(model_of(body), opset)


def test_an_opset_above_the_graphs_is_refused_where_the_operator_has_changed() -> None:
    model = model_of(MEAN_BY_ATTRIBUTE, opset=17)
    with pytest.raises(OptionError, match=r"`opset` 18 does not have ReduceMean .* 13, 14, 15, 16, 17, or"):
        stamp_opset(model, 18)


def test_an_operator_that_no_opset_of_ours_has_is_refused_by_all() -> None:
    model = model_of(LEAKY)
    next(iter(model.graph)).op_type = "Unheard"
    assert all(refused_nodes(model.graph, opset) for opset in IR_VERSIONS)


@pytest.mark.parametrize(("body", "oldest"), [(LEAKY, "1.15"), (MAX_OF_REALS, "1.15"), (MAX_OF_CODES, "1.24")])
def test_a_maximum_of_codes_needs_a_newer_onnxruntime(body: str, oldest: str) -> None:
    model = model_of(body)
    stamp_opset(model, None)
    assert oldest_runtimes(model, document())["onnxruntime"] == oldest


def test_runtimes_that_do_not_take_a_file_are_left_out() -> None:
    model, plain = model_of(LEAKY), document()
    stamp_opset(model, None)
    spec = plain.spec
    assert oldest_runtimes(model, plain) == {**dict.fromkeys(ONNXRUNTIMES, "1.15"), **OTHER_RUNTIMES}
    assert isinstance(spec.head, YoloV2)
    two = replace(spec, head=replace(spec.head, num_classes=2), class_names=("a", "b"))
    refused = {
        "iree": replace(plain, spec=two),
        "tract": replace(plain, activations="int8"),
        "tvm": replace(plain, spec=replace(spec, image=replace(spec.image, any_size=True))),
    }
    for name, given in refused.items():
        assert name not in oldest_runtimes(model, given)
    assert "tract" in oldest_runtimes(model, replace(plain, activations="int8", symmetric=True))
    assert "iree" not in oldest_runtimes(model, replace(plain, float16=True))


@pytest.mark.parametrize(
    ("resize", "others"), [("nearest", {"opencv", "tract"}), ("bilinear-antialias", set()), ("letterbox", {"opencv"})]
)
def test_a_file_for_any_size_names_the_runtimes_that_take_its_resize_rule(resize: ResizeRule, others: set[str]) -> None:
    model, plain = model_of(LEAKY), document()
    stamp_opset(model, None)
    image = replace(plain.spec.image, any_size=True, resize=resize)
    assert oldest_runtimes(model, replace(plain, spec=replace(plain.spec, image=image))) == {
        **dict.fromkeys(ONNXRUNTIMES, "1.15"),
        **{name: OTHER_RUNTIMES[name] for name in others},
        **ANY_SIZE_RUNTIMES,
    }


@pytest.mark.parametrize("opset", [12, 23, 13.0, True, "13"])
def test_an_opset_outside_the_range_is_a_wrong_option(opset: object) -> None:
    with pytest.raises(OptionError, match="opset must be a whole number from 13 to 22, got"):
        ConvertOptions(opset=opset)  # type: ignore[arg-type]  # on purpose
