"""Products that passes rewrote for the CPU: honest conversions pass, and what is wrong in them is found and named."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import xdet
from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from tests.converters.sources.tflite.builder import TfliteBuilder
from tests.converters.sources.tflite.networks import ANCHORS, HEAD_CHANNELS, NetworkBuilder
from tests.xdet.checking import faults, keras_faults
from xdet.checking.numbers import check_static
from xdet.checking.pair import open_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray

    from xdet.checking.result import PartVerdict

    Edit = Callable[[onnx.ModelProto], None]

PERSONS = SourceOptions(anchors=ANCHORS, anchor_unit="cell", class_names=("person",))
SHIFTED = "depthwise_conv_2d_2/float/rows"
SPLIT_STEM, SPLIT_ROWS = "conv_2d_0/float/groups", "depthwise_conv_2d_1/float/rows"
SIGNED = "conv_2d_1/float/signed"
POOL = "average_pool_2d_16/float/sum/float"
STEM = "conv_2d_1/float/groups/weights/codes"
FIRST = "depthwise_conv_2d_2/float/full/bias/codes"
POINTWISE = "conv_2d_3/float/full/weights/codes_2"
OUTPUTS = "conv_2d_2/float/outputs"


def convert_for_cpu(network: bytes, folder: Path) -> Path:
    """Write a TFLite detector of persons to ``built.tflite`` and beside it its conversion, whose path is returned."""
    model = folder / "built.onnx"
    model.with_suffix(".tflite").write_bytes(network)
    options = ConvertOptions(source=PERSONS, target="cpu")
    model.write_bytes(convert_to_bytes(model.with_suffix(".tflite"), options).model)
    return model


def shifted_network() -> bytes:
    """Depthwise convolutions of 28 (filled) and 24 channels, SAME and behind a PAD, at 32 x 32."""
    net = NetworkBuilder(64).conv(28, stride=2, activation="RELU").depthwise(activation="RELU")
    net.conv(12, 1).conv(24, 1).pad(1, 1).depthwise(padding="VALID").conv(16, 3, 2)
    return net.conv(HEAD_CHANNELS, 1).build()


def averaged_network() -> bytes:
    """A stem, an average pool of 24 channels behind a PAD, residuals of 24, 28 and 40 channels."""
    net = NetworkBuilder(64).conv(24, stride=2, activation="RELU").pad(0, 1).average_pool()
    net.residual(24).residual(28).residual(40, activation="NONE").pad(1, 1).average_pool()
    return net.conv(16, 1).conv(HEAD_CHANNELS, 1).build()


def filled_network() -> bytes:
    """A stem of 8 channels, and depthwise convolutions of 8 and 24."""
    net = NetworkBuilder(64).conv(8, stride=2, activation="RELU6").depthwise(2, activation="RELU").conv(24, 1)
    net.depthwise(activation="RELU6").conv(32, 1).depthwise(2, activation="RELU").conv(24, 1, activation="RELU")
    return net.depthwise(2).conv(HEAD_CHANNELS, 1).build()


def filled_outputs() -> bytes:
    return NetworkBuilder(128).conv(32, stride=2, activation="RELU").conv(HEAD_CHANNELS, 1).build()


@dataclass(frozen=True)
class Layer:
    """A convolution with uint8 weights: kernel size, channels, stride, zero-point, least and greatest code."""

    size: int
    channels: int
    stride: int
    zero_point: int
    lowest: int
    highest: int
    extreme: tuple[int, int]  # of the first channel, at the kernel's centre or its corner
    is_depthwise: bool = False


def unsigned_network(layers: Sequence[Layer], *, centre: bool) -> bytes:
    """uint8 convolutions; ``extreme`` codes stand in the centre of a kernel, or in its corner."""
    rng, b = np.random.default_rng(0), TfliteBuilder()
    value, shape, scale = b.input("image", (1, 64, 64, 3), "uint8", 1 / 255, 0), (1, 64, 64, 3), 1 / 255
    for layer in layers:
        outputs = 1 if layer.is_depthwise else layer.channels
        kernel = (outputs, layer.size, layer.size, shape[3])
        weights = rng.integers(layer.lowest, layer.highest, kernel).astype(np.uint8)
        place = layer.size // 2 if centre else 0
        weights[0, place, place, :2] = layer.extreme
        bias = b.constant(rng.integers(-500, 500, layer.channels).astype(np.int32), float(scale * np.float32(0.01)))
        shape, scale = (1, shape[1] // layer.stride, shape[2] // layer.stride, layer.channels), 0.05
        options: dict[str, Any] = {"padding": "SAME", "stride_h": layer.stride, "stride_w": layer.stride}
        options |= {"depth_multiplier": 1} if layer.is_depthwise else {}
        op = "DEPTHWISE_CONV_2D" if layer.is_depthwise else "CONV_2D"
        operands = [value, b.constant(weights, 0.01, layer.zero_point), bias]
        value = b.op(op, operands, shape, "uint8", scale, 0, fused_activation="RELU", **options)
    return b.build([b.op("DEQUANTIZE", [value], shape, "float32", name="head_real")])


def split_network() -> bytes:
    """A stem, a depthwise convolution of its 16 channels, and the head; weights of all reach beyond int8."""
    numbers = 100, 60, 200, (0, 255)
    layers = (
        Layer(3, 16, 2, *numbers),
        Layer(3, 16, 1, *numbers, is_depthwise=True),
        Layer(1, HEAD_CHANNELS, 1, *numbers),
    )
    return unsigned_network(layers, centre=True)


def signed_network() -> bytes:
    """Four convolutions; weights of the second reach beyond int8."""
    channels = ((16, 2, 100, 30, 200), (16, 2, 100, 0, 255), (32, 2, 128, 0, 255), (HEAD_CHANNELS, 1, 7, 0, 130))
    layers = [Layer(3, n, stride, zero, low, high + 1, (low, high)) for n, stride, zero, low, high in channels]
    return unsigned_network(layers, centre=False)


def edit(name: str, change: Callable[[Any], Any]) -> Edit:
    return lambda proto: keras_faults.edit(proto, name, change)


def code_at(name: str, *index: int) -> Edit:
    """One code of a constant, changed by one."""

    def change(codes: NDArray[Any]) -> NDArray[Any]:
        changed = codes.copy()
        changed[index] += 1 if changed[index] < 127 else -1
        return changed

    return edit(name, change)


def attribute(node: str, name: str, change: Callable[[list[int]], Sequence[int]]) -> Edit:
    """Other numbers in an attribute of a convolution."""

    def apply(proto: onnx.ModelProto) -> None:
        (conv,) = (found for found in proto.graph.node if found.name == node)
        (numbers,) = (attribute.ints for attribute in conv.attribute if attribute.name == name)
        numbers[:] = change(list(numbers))

    return apply


def exchanged(node: str) -> Edit:
    """The first two operands in the other order."""

    def apply(proto: onnx.ModelProto) -> None:
        (found,) = (one for one in proto.graph.node if one.name == node)
        found.input[0], found.input[1] = found.input[1], found.input[0]

    return apply


def other_shift(proto: onnx.ModelProto) -> None:
    """The tensor map tells that one more was taken off than the weights say."""
    (entry,) = (p for p in proto.metadata_props if p.key == "xdet")
    document = json.loads(entry.value)
    (twin,) = (twin for twin in document["tensors"].values() if twin["onnx"] == f"{SIGNED}/codes")
    twin["zero_point_shift"] -= 1
    entry.value = json.dumps(document)


def stem_padding(proto: onnx.ModelProto) -> None:
    """The group of padding in front of a row instead of behind it."""
    conv = next(node for node in proto.graph.node if node.op_type == "Conv")
    (pads,) = (attribute for attribute in conv.attribute if attribute.name == "pads")
    assert list(pads.ints) == [0, 0, 1, 1]
    pads.ints[:] = [0, 1, 1, 0]


def other_channels(proto: onnx.ModelProto) -> None:
    """All channels but the first one, and a channel of zeros."""
    for name, bound in (("first", 1), ("channels", HEAD_CHANNELS + 1)):
        keras_faults.edit(proto, f"{OUTPUTS}/{name}", partial(np.full_like, fill_value=bound))


@dataclass(frozen=True)
class Rewritten:
    """A network, the passes that convert it, and faults: what is edited, and the causes that are found in one layer."""

    network: Callable[[], bytes]
    passes: tuple[str, ...]
    faults: Mapping[str, tuple[Edit, str, str]]


FLIP = np.int8(1)
# The scale of the last channel of zeros is that of the source's last one.
LAST_SCALE = edit(
    "depthwise_conv_2d_2/float/full/weights/scale", lambda s: s * np.where(np.arange(s.size) < 15, 1, 1.01)
)
REWRITTEN = {
    "shifted": Rewritten(
        shifted_network,
        ("fold pad", "full channels", "strided stem", "shifted rows", "cancel transposes"),
        {
            "weight": (edit(f"{SHIFTED}/weights/codes", lambda w: w ^ FLIP), "weight", "depthwise_conv_2d_2"),
            "bias": (edit(f"{SHIFTED}/bias/codes", lambda b: b + np.int32(1)), "bias", "depthwise_conv_2d_2"),
            "padding": (edit(f"{SHIFTED}/1", lambda codes: codes + np.uint8(1)), "padding", "depthwise_conv_2d_2"),
            "order": (exchanged(f"{SHIFTED}/copies"), "padding", "depthwise_conv_2d_2"),
            # copies one group further apart
            "distance": (
                attribute(f"{SHIFTED}/float", "dilations", lambda d: [d[0], d[1] - 1]),
                "attributes",
                "depthwise_conv_2d_2",
            ),
        },
    ),
    "split": Rewritten(
        split_network,
        ("signed weights", "strided stem", "shifted rows", "cancel transposes"),
        {
            "weight of the stem": (edit(f"{SPLIT_STEM}/weights/codes", lambda w: w ^ FLIP), "weight", "conv_2d_0"),
            "rows": (edit(f"{SPLIT_STEM}/rows", lambda rows: rows[::-1].copy()), "padding", "conv_2d_0"),
            # results that lie one row closer to each other
            "strides": (
                attribute(f"{SPLIT_STEM}/float", "strides", lambda s: [s[0] - 1, s[1]]),
                "attributes",
                "conv_2d_0",
            ),
            "weight on groups": (
                edit(f"{SPLIT_ROWS}/weights/codes", lambda w: w ^ FLIP),
                "weight",
                "depthwise_conv_2d_1",
            ),
        },
    ),
    "signed": Rewritten(
        signed_network,
        ("signed weights", "strided stem", "cancel transposes"),
        {
            "weight": (edit(f"{SIGNED}/codes", lambda codes: codes ^ FLIP), "weight", "conv_2d_1"),
            "zero-point": (edit(f"{SIGNED}/zero_point", lambda zero: zero + FLIP), "zero-point", "conv_2d_1"),
            "shift": (other_shift, "weight, zero-point", "conv_2d_1"),
        },
    ),
    "averaged": Rewritten(
        averaged_network,
        ("average as convolution", "fold pad", "full channels", "strided stem", "cancel transposes", "pad codes"),
        {
            "weights": (edit(f"{POOL}/full/weights/codes", lambda w: w * 2), "weight", "average_pool_2d_16"),
            "scale": (
                edit(f"{POOL}/full/weights/scale", lambda scale: scale * np.float32(2)),
                "scale",
                "average_pool_2d_16",
            ),
            "padding": (attribute(POOL, "pads", lambda _: [0, 0, 2, 2]), "padding", "average_pool_2d_16"),
            "strides": (attribute(POOL, "strides", lambda _: [1, 2]), "attributes", "average_pool_2d_16"),
        },
    ),
    "filled": Rewritten(
        filled_network,
        ("full channels", "strided stem", "cancel transposes", "clamp codes"),
        {
            "stem": (code_at(STEM, 16, 6, 0, 0), "weight", "conv_2d_1"),
            "between its copies": (code_at(STEM, 0, 11, 0, 1), "weight", "conv_2d_1"),
            "beside its channels": (code_at(STEM, 8, 0, 0, 0), "weight", "conv_2d_1"),
            "padding": (stem_padding, "padding", "conv_2d_1"),
            "bias": (code_at(FIRST, 7), "bias", "depthwise_conv_2d_2"),
            "beside the bias": (code_at(FIRST, 8), "bias", "depthwise_conv_2d_2"),
            "weights": (code_at(POINTWISE, 23, 7, 0, 0), "weight", "conv_2d_3"),
            "beside the outputs": (code_at(POINTWISE, 24, 0, 0, 0), "weight", "conv_2d_3"),
            "scale beside the channels": (LAST_SCALE, "scale", "depthwise_conv_2d_2"),
            "beside the inputs": (code_at(POINTWISE, 0, 8, 0, 0), "weight", "conv_2d_3"),
        },
    ),
    "outputs": Rewritten(
        filled_outputs,
        ("full outputs", "strided stem", "cancel transposes"),
        {
            "weights": (code_at(f"{OUTPUTS}/weights/codes", 3, 7, 0, 0), "weight", "conv_2d_2"),
            "beside the outputs": (code_at(f"{OUTPUTS}/weights/codes", HEAD_CHANNELS, 0, 0, 0), "weight", "conv_2d_2"),
            "choice": (other_channels, "attributes", "conv_2d_2"),
        },
    ),
}
FAULTS = [(name, fault) for name, rewritten in REWRITTEN.items() for fault in rewritten.faults]


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Each network, converted once."""
    models: dict[str, Path] = {}

    def convert(name: str) -> Path:
        if name not in models:
            models[name] = convert_for_cpu(REWRITTEN[name].network(), tmp_path_factory.mktemp(name))
        return models[name]

    return convert


def verdict_on(fault: Edit, model: Path, folder: Path) -> PartVerdict:
    """What the static comparison says of a conversion with a fault."""
    wrong = folder / "wrong.onnx"
    wrong.write_bytes(faults.planted(model.read_bytes(), fault))
    return check_static(open_pair(wrong, model.with_suffix(".tflite")))[0]


@pytest.mark.parametrize("name", REWRITTEN)
def test_an_honest_conversion_passes(name: str, converted: Callable[[str], Path]) -> None:
    """Every number is the source's, and none belongs to no tensor of it."""
    pair = open_pair(converted(name), converted(name).with_suffix(".tflite"))
    assert pair.document.passes == REWRITTEN[name].passes
    verdict, proven = check_static(pair)
    assert (verdict.status, verdict.findings) == ("passed", ())
    assert "belong to no source tensor" not in verdict.summary
    assert sum("their scale is 1 / 9" in change.proof for change in proven) == (2 if name == "averaged" else 0)


@pytest.mark.parametrize(("name", "planted"), FAULTS, ids=[f"{name}-{fault}" for name, fault in FAULTS])
def test_a_fault_is_found_and_named(name: str, planted: str, converted: Callable[[str], Path], tmp_path: Path) -> None:
    fault, causes, layer = REWRITTEN[name].faults[planted]
    findings = verdict_on(fault, converted(name), tmp_path).findings
    assert {finding.layer for finding in findings} == {layer}
    assert ", ".join(sorted({finding.cause for finding in findings})) == causes


def test_weights_that_are_computed_are_named(converted: Callable[[str], Path], tmp_path: Path) -> None:
    finding, *_ = verdict_on(exchanged(f"{SHIFTED}/float"), converted("shifted"), tmp_path).findings
    assert (finding.cause, finding.layer) == ("missing-tensor", "depthwise_conv_2d_2")
    assert "are no constant of the graph" in finding.message


def test_a_pad_of_codes_in_front_of_a_pool_is_accounted_for(tmp_path: Path) -> None:
    net = NetworkBuilder(64).conv(16, stride=2, activation="RELU").pad(1, 1).max_pool().conv(16, stride=2)
    model = convert_for_cpu(net.conv(HEAD_CHANNELS, 1).build(), tmp_path)
    pair = open_pair(model, model.with_suffix(".tflite"))
    assert pair.document.passes == ("strided stem", "cancel transposes", "pad codes")
    verdict, _ = check_static(pair)
    assert (verdict.status, verdict.findings) == ("passed", ())
    assert "belong to no source tensor" not in verdict.summary


def test_layers_of_filled_outputs_are_compared(converted: Callable[[str], Path]) -> None:
    """Behind the last convolution the graph has a Slice without steps."""
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    picture, model = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8), converted("outputs")
    found = xdet.check(
        model,
        model.with_suffix(".tflite"),
        [picture],
        runtimes="onnxruntime,litert",
        source_options=PERSONS,
        layers=True,
    )
    assert found.layers is not None
    assert found.layers_problem is None
    assert [part.status for part in found.parts].count("failed") == 0
