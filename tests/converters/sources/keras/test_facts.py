"""What a loaded Keras network tells about its detector, which options it takes, and what it is refused for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import onnx
import onnx.parser
import onnx_ir as ir
import pytest

from converters.description.statements import SourceOptions
from converters.errors import OptionError, SourceFileError
from converters.facts import SourceOutput
from converters.graph import GraphWriter
from converters.options import ConvertOptions
from converters.sources.keras.importer import facts_from_keras, import_keras, layer_twins
from converters.spec import DetectorSpec, ImageInput, RawOutput, Rescaling
from tests.converters.quantize.float_networks import calibration

if TYPE_CHECKING:
    from converters.sources.keras.importer import LoadedKeras

Shapes = tuple[tuple[int | None, ...], ...]
IMAGE, GRID = (None, 8, 8, 3), (None, 4, 4, 6)
SPEC = DetectorSpec(ImageInput(8, 8, Rescaling(1 / 255, 0.0)), None, raw_outputs=(RawOutput("", (4, 4, 6)),))


def network(inputs: Shapes = (IMAGE,), outputs: Shapes = (GRID,)) -> LoadedKeras:
    """Something with the attributes of a loaded network and no TensorFlow behind it."""
    layers = tuple(SimpleNamespace(name=name) for name in ("conv", "conv_1", "image"))
    return cast(
        "LoadedKeras",
        SimpleNamespace(
            source=SimpleNamespace(file="m.h5", layers=layers),
            model=SimpleNamespace(name="net"),
            input_shapes=inputs,
            output_shapes=outputs,
            output_names=tuple(f"out_{i}" for i in range(len(outputs))),
            output_activations=((),) * len(outputs),
            output_layers=("conv",) * len(outputs),
            to_onnx=exported,
        ),
    )


def exported(batch: int | None) -> Any:
    n = "N" if batch is None else batch
    return onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 18]>
        g (float[{n},8,8,3] image) => (float[{n},4,4,6] out) <float[6,3,2,2] w = {{{",".join(["0.5"] * 72)}}}> {{
            t = Transpose<perm = [0, 3, 1, 2]>(image)
            c = Conv<kernel_shape = [2, 2], strides = [2, 2]>(t, w)
            out = Transpose<perm = [0, 2, 3, 1]>(c) }}""")


def test_sizes_come_from_the_network_and_the_rescaling_from_nobody() -> None:
    facts = facts_from_keras(network())
    assert (facts.height, facts.width, facts.outputs) == (8, 8, (SourceOutput("out_0", (4, 4, 6)),))
    assert (facts.file, facts.input_dtype, facts.input_quant) == ("m.h5", "float32", None)


@pytest.mark.parametrize(
    ("inputs", "outputs", "message"),
    [
        pytest.param(
            (IMAGE, IMAGE), (GRID,), r"input expected one image .*, found \['N', 8, 8, 3\], \['N', 8", id="two inputs"
        ),
        pytest.param(((None, None, None, 3),), (GRID,), "a size is open: build the network for one", id="open size"),
        pytest.param(
            ((None, 8, 8, 2),), (GRID,), r"input expected one image .*, found \['N', 8, 8, 2\]", id="two colours"
        ),
        pytest.param((IMAGE,), ((None, None, 6),), r"output expected .*, found \['N', 'N', 6\]", id="open output"),
        pytest.param((IMAGE,), (), "output expected numbers of known sizes, .*, found none", id="no output"),
    ],
)
def test_another_network_is_refused_with_its_shapes(inputs: Shapes, outputs: Shapes, message: str) -> None:
    with pytest.raises(SourceFileError, match=message):
        facts_from_keras(network(inputs, outputs))


def test_outputs_of_any_number_and_rank_are_told() -> None:
    facts = facts_from_keras(network(outputs=((None, 96), GRID)))
    assert facts.outputs == (SourceOutput("out_0", (96,)), SourceOutput("out_1", (4, 4, 6)))


def test_int8_codes_are_refused_for_a_float_graph() -> None:
    options = ConvertOptions(source=SourceOptions(head="none"), activations="int8")
    with pytest.raises(OptionError, match=r"m\.h5: --activations int8 is about integer codes.*add --quantize"):
        import_keras(network(), GraphWriter("m"), SPEC, options)


@pytest.mark.parametrize("batch", [1, 3, "dynamic"])
def test_the_network_reads_rescaled_pixels_in_nchw_and_ends_at_the_head(batch: Any) -> None:
    writer = GraphWriter("m")
    found = import_keras(network(), writer, SPEC, ConvertOptions(batch=batch))
    assert [n.op_type for n in writer.graph] == [
        *("Transpose", "Cast", "Mul", "Add", "Transpose", "Transpose", "Conv", "Transpose")
    ]
    assert found.outputs[0].name == "head"
    assert found.outputs[0].shape is not None
    assert str(found.outputs[0].shape[0]) == ("N" if batch == "dynamic" else str(batch))
    assert (found.activations, found.quantization, found.leaky_relu) == ("float32", "float32", "float")


def test_twins_follow_the_suffix_that_keras_3_puts_behind_every_scope() -> None:
    def value(name: str) -> ir.Value:
        return ir.Value(name=name, shape=ir.Shape([1, 4, 4, 4]))

    names = ("net/conv/Conv2D", "net/conv/BiasAdd", "net/conv_1/Relu", "other/conv/x")
    plain = layer_twins(network(), {name: value(name) for name in names})
    assert {layer: twin.onnx for layer, twin in plain.items()} == {
        "conv": "net/conv/BiasAdd",
        "conv_1": "net/conv_1/Relu",
    }
    suffixed = layer_twins(network(), {n: value(n) for n in ("net_1/conv_1/Conv2D", "net_1/conv_1_1/Relu")})
    assert {layer: twin.onnx for layer, twin in suffixed.items()} == {
        "conv": "net_1/conv_1/Conv2D",
        "conv_1": "net_1/conv_1_1/Relu",
    }


@pytest.mark.parametrize(
    ("last", "twin"), [("Softmax", ("head", "same")), ("Transpose", ("net/conv/MatMul", "NHWC->NCHW"))]
)
def test_a_layer_s_activation_that_is_the_network_s_output_is_its_twin(last: str, twin: tuple[str, str]) -> None:
    product = ir.Value(name="net/conv/MatMul", shape=ir.Shape([1, 4, 4, 4]))
    output = ir.node(last, [product], outputs=[ir.Value(name="head", shape=product.shape)]).outputs[0]
    twins = layer_twins(network(), {"net/conv/MatMul": product, "Identity": output}, [output])
    assert (twins["conv"].onnx, twins["conv"].layout) == twin


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ({"quantize": "per-channel"}, "`quantize` per-channel needs photographs: add `calibration` DIR"),
        ({"calibration": calibration()}, "`calibration` is for quantising: add `quantize` per-channel"),
        ({"quantize": "int4", "calibration": calibration()}, "quantize must be one of none, per-channel, per-tensor"),
        ({"importer": "tflite2onnx"}, "importer must be one of native, tf2onnx"),
    ],
    ids=["no photographs", "photographs for nothing", "int4", "another importer"],
)
def test_options_that_do_not_go_together_are_refused(choices: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        ConvertOptions(**choices)
