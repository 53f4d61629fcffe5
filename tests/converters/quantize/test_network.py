"""A calibrated network stays close to its float self, runs its convolutions in integers, and has the canonical form.

A network that 8 bits ruin is told with what was measured; one that they suit is not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from converters.errors import OptionError
from converters.graph import IR_VERSION, GraphWriter
from converters.passes.base import link
from converters.quantize.network import FEWEST_BOXES, QuantizationLoss, quantize_network
from converters.quantize.parameters import pixel_quantization
from converters.spec import HEAD, Rescaling
from tests.converters.quantize.float_networks import SIZE, FloatNetwork, imported, options, photographs, spec_of
from tests.converters.sessions import session_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

UNIT = Rescaling(1 / 255, 0.0)


def detector(net: FloatNetwork, x: ir.Value) -> ir.Value:
    """What this family has: LeakyReLU, pools, ReLU6, depthwise and strided convolutions, a sum, a concatenation."""
    op = net.writer.op
    x = op("LeakyRelu", [net.conv(x, (8, 3, 3, 3), "c1")], "leaky", alpha=0.2)
    x = op("MaxPool", [x], "pool", kernel_shape=[2, 2], strides=[2, 2], auto_pad="VALID")
    limits = [net.writer.constant(np.float32(v), f"limit{v}") for v in (0, 6)]
    y = op("Clip", [net.conv(x, (8, 1, 3, 3), "dw", group=8), *limits], "relu6")
    y = op("Relu", [net.conv(y, (8, 8, 1, 1), "pw")], "relu")
    x = op("Add", [x, y], "sum")
    x = op("Concat", [x, y], "both", axis=1)
    return net.conv(x, (12, 16, 3, 3), "c2", strides=[2, 2])


def serialised(writer: GraphWriter, head: ir.Value) -> bytes:
    head.type = ir.TensorType(ir.DataType.FLOAT)
    if head not in writer.graph.outputs:
        writer.graph.outputs.append(head)
    return bytes(ir.to_proto(ir.Model(writer.graph, ir_version=IR_VERSION)).SerializeToString())


def both(
    body: Callable[[FloatNetwork, ir.Value], ir.Value], rescaling: Rescaling = UNIT, **choices: str
) -> tuple[GraphWriter, bytes, bytes]:
    """(writer of the quantised network, float model, quantised model)."""
    net, network = imported(body, rescaling)
    again, float_network = imported(body, rescaling)
    plain = serialised(again.writer, float_network.outputs[0])
    writer, quantised = quantize_network(net.writer, network, spec_of(net, 4, 12), options(**choices))
    assert quantised.outputs[0].name == HEAD
    return writer, plain, serialised(writer, quantised.outputs[0])


def scale_of(value: ir.Value | None) -> NDArray[np.float32]:
    """The scale of the DequantizeLinear behind a value."""
    assert value is not None
    producer = value.producer()
    assert producer is not None
    stored = producer.inputs[1]
    assert stored is not None
    tensor = ir.convenience.get_const_tensor(stored)
    assert tensor is not None
    return tensor.numpy()


def heads(model: bytes) -> NDArray[np.float32]:
    run = session_of(model)
    return np.concatenate([run.run([HEAD], {"image": picture[None]})[0] for picture in photographs()])


@pytest.mark.parametrize("activations", ["uint8", "int8"])
@pytest.mark.parametrize("granularity", ["per-channel", "per-tensor"])
def test_a_calibrated_network_stays_close_to_the_float_one(granularity: str, activations: str) -> None:
    _, plain, quantised = both(detector, quantize=granularity, activations=activations)
    expected, found = heads(plain), heads(quantised)
    span = expected.max() - expected.min()
    assert np.abs(found - expected).max() < 0.04 * span  # 8 bits through six layers: about 0.02 here
    assert np.abs(found - expected).mean() < 0.008 * span


def chain(net: FloatNetwork, x: ir.Value) -> ir.Value:
    """The main line of Tiny YOLO v2: no value has two readers."""
    for number, (inner, outer) in enumerate(((3, 8), (8, 16))):
        x = net.conv(x, (outer, inner, 3, 3), f"c{number}")
        x = net.writer.op("LeakyRelu", [x], f"leaky{number}", alpha=0.2)
        x = net.writer.op("MaxPool", [x], f"pool{number}", kernel_shape=[2, 2], strides=[2, 2], auto_pad="VALID")
    return net.conv(x, (12, 16, 1, 1), "last")


@pytest.mark.parametrize(
    ("body", "activations", "convolutions"),
    [
        pytest.param(detector, "uint8", 4, id="branches, uint8"),
        pytest.param(chain, "uint8", 3, id="a chain, uint8"),
        pytest.param(chain, "int8", 3, id="a chain, int8: ONNX Runtime loses int8 codes that have two readers"),
    ],
)
def test_every_convolution_runs_in_integers(
    body: Callable[[FloatNetwork, ir.Value], ir.Value], activations: str, convolutions: int, tmp_path: Path
) -> None:
    _, _, quantised = both(body, activations=activations)
    session_of(quantised, optimised=tmp_path / "optimised.onnx")
    kinds = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert kinds.count("QLinearConv") == convolutions
    assert "Conv" not in kinds


def test_both_dialects_give_the_same_bits() -> None:
    assert np.array_equal(heads(both(detector)[2]), heads(both(detector, activations="int8")[2]))


def test_the_same_photographs_give_the_same_bytes() -> None:
    assert both(detector)[2] == both(detector)[2]


def test_pools_and_concatenations_share_one_scale_and_clamps_vanish_into_their_range() -> None:
    writer, *_ = both(detector)
    quantisers = {str(n.outputs[0].name): link(n, "QuantizeLinear") for n in writer.graph}
    kinds = [n.op_type for n in writer.graph]
    assert kinds.count("Clip") == 0
    assert kinds.count("Relu") == 1  # its codes are those of the concatenation, which reach below 0
    for first, second in (("leaky", "pool"), ("sum", "both"), ("relu", "both")):
        a, b = quantisers[first], quantisers[second]
        assert a is not None
        assert b is not None
        assert a.matches(b), (first, second)
    relu = quantisers["relu6"]
    assert relu is not None
    assert relu.zero_point == 0
    assert relu.scale < 6 / 255


def test_a_bias_has_exactly_the_product_of_scales() -> None:
    writer, *_ = both(detector)
    for conv in [node for node in writer.graph if node.op_type == "Conv"]:
        x, w, b = (scale_of(value) for value in conv.inputs)
        np.testing.assert_array_equal(b, x * w)


def test_a_clamp_that_the_range_does_not_imply_stays_with_a_pair_of_its_own() -> None:
    def body(net: FloatNetwork, x: ir.Value) -> ir.Value:
        limits = [net.writer.constant(np.float32(v), f"limit{v}") for v in (-0.9, 0.3)]
        x = net.conv(x, (12, 3, 3, 3), "c1", strides=[4, 4])
        y = net.writer.op("Clip", [x, *limits], "clip")
        return net.writer.op("Concat", [y, x], "mixed", axis=1)  # the shared range goes beyond the clip's

    writer, plain, quantised = both(body)
    assert [n.op_type for n in writer.graph].count("Clip") == 1
    assert np.abs(heads(plain) - heads(quantised)).max() < 0.03


def test_a_head_that_no_operator_moves_is_quantised_before_it_leaves() -> None:
    net, network = imported(lambda n, x: n.conv(x, (12, 3, 3, 3), "c"), UNIT)
    network.outputs[0].name = "moved"
    last = net.writer.op("Neg", [network.outputs[0]], "negative")
    last.name = HEAD
    network = type(network)((last,), {}, "float32", "float32")
    writer, quantised = quantize_network(net.writer, network, spec_of(net, SIZE, 12), options())
    head = quantised.outputs[0].producer()
    assert head is not None
    assert (head.op_type, str(head.outputs[0].name)) == ("DequantizeLinear", HEAD)
    (found,) = session_of(serialised(writer, quantised.outputs[0])).run(None, {"image": photographs()[0][None]})
    assert found.shape == (1, SIZE, SIZE, 12)


@pytest.mark.parametrize(
    ("rescaling", "zero_point", "are_codes", "shift"),
    [
        pytest.param(UNIT, 0, True, 0.0, id="0..1"),
        pytest.param(Rescaling(1 / 127.5, -1.0), 128, True, 0.5 / 127.5, id="-1..1: half a step"),
        pytest.param(Rescaling(1.0, -103.0), 103, True, 0.0, id="mean subtracted"),
        pytest.param(Rescaling(1 / 255, 1.0), 0, False, 0.0, id="no pixel means 0"),
    ],
)
def test_pixels_are_their_own_codes_where_one_of_them_means_zero(
    rescaling: Rescaling,
    zero_point: int,
    are_codes: bool,  # noqa: FBT001 - a parameter
    shift: float,
) -> None:
    found = pixel_quantization(rescaling)
    assert (found.params.scalar_zero_point, found.are_codes) == (zero_point, are_codes)
    assert found.shift == pytest.approx(shift, abs=1e-12)  # differences of float64 products


@pytest.mark.parametrize(
    "rescaling", [Rescaling(1 / 127.5, -1.0), Rescaling(1 / 255, 1.0)], ids=["half a step", "no zero"]
)
def test_other_rescalings_cost_no_accuracy(rescaling: Rescaling) -> None:
    _, plain, quantised = both(detector, rescaling)
    expected, found = heads(plain), heads(quantised)
    assert np.abs(found - expected).mean() < 0.008 * (expected.max() - expected.min())


def test_the_half_step_is_taken_into_the_bias() -> None:
    def body(net: FloatNetwork, x: ir.Value) -> ir.Value:
        return net.conv(x, (12, 3, 1, 1), "c1", strides=[4, 4])

    _, plain, quantised = both(body, Rescaling(1 / 127.5, -1.0))
    expected, found = heads(plain), heads(quantised)
    step = (expected.max() - min(expected.min(), 0)) / 255
    assert abs(float((found - expected).mean())) < 0.1 * step  # without it: 0.2 steps and more
    assert np.abs(found - expected).max() < 2 * step


def test_a_network_that_is_quantised_already_is_refused() -> None:
    net, network = imported(detector, UNIT)
    done = type(network)(network.outputs, {}, "int8 per-channel", "uint8")
    with pytest.raises(
        OptionError, match=r"`quantize` per-channel: the source is quantised already \(int8 per-channel\)"
    ):
        quantize_network(net.writer, done, spec_of(net, 4, 12), options())


def depthwise(net: FloatNetwork, x: ir.Value) -> ir.Value:
    """Channels of a depthwise convolution with weights a thousandfold apart, made equal behind it, as training may."""
    op = net.writer.op
    x = op("Relu", [net.conv(x, (8, 3, 3, 3), "c1", strides=[2, 2])], "relu")
    spread = np.logspace(-3, 0, 8, dtype=np.float32)
    weights = net.rng.normal(size=(8, 1, 3, 3)).astype(np.float32) * spread.reshape(-1, 1, 1, 1)
    x = op(
        "Conv", [x, net.writer.constant(weights, "dw/w")], "dw",
        kernel_shape=[3, 3], pads=[1, 1, 1, 1], group=8,
    )  # fmt: skip
    mixing = net.rng.normal(size=(12, 8, 1, 1)).astype(np.float32) / spread.reshape(1, -1, 1, 1)
    return op("Conv", [x, net.writer.constant(mixing, "pw/w")], "pw", kernel_shape=[1, 1], strides=[2, 2])


def plain(net: FloatNetwork, x: ir.Value) -> ir.Value:
    x = net.writer.op("Relu", [net.conv(x, (8, 3, 3, 3), "c1", strides=[2, 2])], "relu")
    return net.conv(x, (12, 8, 3, 3), "c2", strides=[2, 2])


def test_one_scale_for_all_channels_of_a_depthwise_convolution_is_told_with_the_number() -> None:
    net, network = imported(depthwise, UNIT)
    _, quantised = quantize_network(net.writer, network, spec_of(net, 4, 12), options("per-tensor"))
    assert quantised.notes[0].startswith(
        "--quantize per-tensor costs this network much: in 8 calibration photographs, its outputs are "
    )
    assert "--quantize per-channel keeps more" in quantised.notes[0]


@pytest.mark.parametrize("quantize", ["per-channel", "per-tensor"])
def test_a_network_that_keeps_its_outputs_is_not(quantize: str) -> None:
    net, network = imported(plain, UNIT)
    writer, quantised = quantize_network(net.writer, network, spec_of(net, 4, 12), options(quantize))
    assert quantised.notes == ()
    assert not writer.graph.outputs


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (QuantizationLoss(8, FEWEST_BOXES, 7, 3.0), None),
        (
            QuantizationLoss(8, 20, 13, 30.0),
            "of the 20 boxes that the float network finds, the int8 one finds 13 again (65%)",
        ),
        (QuantizationLoss(8, 3, 0, 12.0), None),
        (QuantizationLoss(8, 3, 3, 4.25), "its outputs are 4.2 dB above their noise"),
    ],
)
def test_boxes_count_where_there_are_enough_and_noise_elsewhere(loss: QuantizationLoss, said: str | None) -> None:
    warning = loss.warning("per-tensor")
    assert (warning is None) if said is None else (warning is not None and said in warning)
