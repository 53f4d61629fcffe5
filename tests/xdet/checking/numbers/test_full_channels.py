"""Strided stems, filled channels, pads of codes: honest conversions pass; what is wrong in or beside them is found."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import xdet
from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from tests.converters.sources.tflite.networks import ANCHORS, HEAD_CHANNELS, NetworkBuilder
from tests.xdet.checking import keras_faults
from tests.xdet.checking.numbers.cpu_conversions import convert_for_cpu, require_sound, verdict_on
from xdet.checking.numbers import check_static
from xdet.checking.pair import open_pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx
    from numpy.typing import NDArray


def network() -> bytes:
    """A stem of 8 channels, and depthwise convolutions of 8 and 24."""
    net = NetworkBuilder(64).conv(8, stride=2, activation="RELU6").depthwise(2, activation="RELU").conv(24, 1)
    net.depthwise(activation="RELU6").conv(32, 1).depthwise(2, activation="RELU").conv(24, 1, activation="RELU")
    return net.depthwise(2).conv(HEAD_CHANNELS, 1).build()


def code_at(name: str, *index: int) -> Callable[[onnx.ModelProto], None]:
    """One code of a constant, changed by one."""

    def change(codes: NDArray[Any]) -> NDArray[Any]:
        changed = codes.copy()
        changed[index] += 1 if changed[index] < 127 else -1
        return changed

    return lambda proto: keras_faults.edit(proto, name, change)


def last_scale(proto: onnx.ModelProto) -> None:
    """The scale of the last channel of zeros, which is that of the source's last one."""
    name = "depthwise_conv_2d_2/float/full/weights/scale"
    keras_faults.edit(proto, name, lambda scales: scales * np.where(np.arange(scales.size) < 15, 1, 1.01))


def stem_padding(proto: onnx.ModelProto) -> None:
    """The group of padding in front of a row instead of behind it."""
    conv = next(node for node in proto.graph.node if node.op_type == "Conv")
    (pads,) = (attribute for attribute in conv.attribute if attribute.name == "pads")
    assert list(pads.ints) == [0, 0, 1, 1]
    pads.ints[:] = [0, 1, 1, 0]


STEM, FIRST, POINTWISE = (
    "conv_2d_1/float/groups/weights/codes",
    "depthwise_conv_2d_2/float/full/bias/codes",
    "conv_2d_3/float/full/weights/codes_2",
)
FAULTS: dict[str, tuple[Callable[[onnx.ModelProto], None], tuple[str, str]]] = {
    "stem": (code_at(STEM, 16, 6, 0, 0), ("weight", "conv_2d_1")),
    "between its copies": (code_at(STEM, 0, 11, 0, 1), ("weight", "conv_2d_1")),
    "beside its channels": (code_at(STEM, 8, 0, 0, 0), ("weight", "conv_2d_1")),
    "padding": (stem_padding, ("padding", "conv_2d_1")),
    "bias": (code_at(FIRST, 7), ("bias", "depthwise_conv_2d_2")),
    "beside the bias": (code_at(FIRST, 8), ("bias", "depthwise_conv_2d_2")),
    "weights": (code_at(POINTWISE, 23, 7, 0, 0), ("weight", "conv_2d_3")),
    "beside the outputs": (code_at(POINTWISE, 24, 0, 0, 0), ("weight", "conv_2d_3")),
    "scale beside the channels": (last_scale, ("scale", "depthwise_conv_2d_2")),
    "beside the inputs": (code_at(POINTWISE, 0, 8, 0, 0), ("weight", "conv_2d_3")),
}


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_for_cpu(network(), tmp_path_factory.mktemp("filled"))


def test_an_honest_conversion_passes(converted: Path) -> None:
    require_sound(converted, "full channels", "strided stem", "cancel transposes", "clamp codes")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_found_and_named(name: str, converted: Path, tmp_path: Path) -> None:
    fault, expected = FAULTS[name]
    verdict = verdict_on(fault, converted, tmp_path)
    assert [(finding.cause, finding.layer) for finding in verdict.findings] == [expected]


def test_a_pad_of_codes_in_front_of_a_pool_is_accounted_for(tmp_path: Path) -> None:
    source, model = tmp_path / "built.tflite", tmp_path / "built.onnx"
    net = NetworkBuilder(64).conv(16, stride=2, activation="RELU").pad(1, 1).max_pool().conv(16, stride=2)
    source.write_bytes(net.conv(HEAD_CHANNELS, 1).build())
    described = SourceOptions(anchors=ANCHORS, anchor_unit="cell", class_names=("person",))
    model.write_bytes(convert_to_bytes(source, ConvertOptions(source=described, target="cpu")).model)
    pair = open_pair(model, source)
    assert pair.document.passes == ("strided stem", "cancel transposes", "pad codes")
    verdict, _ = check_static(pair)
    assert (verdict.status, verdict.findings) == ("passed", ())
    assert "belong to no source tensor" not in verdict.summary


def other_channels(proto: onnx.ModelProto) -> None:
    """All channels but the first one, and a channel of zeros."""
    for name, bound in (("first", 1), ("channels", HEAD_CHANNELS + 1)):
        keras_faults.edit(proto, f"{OUTPUTS}/{name}", partial(np.full_like, fill_value=bound))


OUTPUTS = "conv_2d_2/float/outputs"
OUTPUT_FAULTS: dict[str, tuple[Callable[[onnx.ModelProto], None], tuple[str, str]]] = {
    "weights": (code_at(f"{OUTPUTS}/weights/codes", 3, 7, 0, 0), ("weight", "conv_2d_2")),
    "beside the outputs": (code_at(f"{OUTPUTS}/weights/codes", HEAD_CHANNELS, 0, 0, 0), ("weight", "conv_2d_2")),
    "choice": (other_channels, ("attributes", "conv_2d_2")),
}


@pytest.fixture(scope="module")
def full_outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    net = NetworkBuilder(128).conv(32, stride=2, activation="RELU").conv(HEAD_CHANNELS, 1)
    return convert_for_cpu(net.build(), tmp_path_factory.mktemp("outputs"))


def test_filled_outputs_pass(full_outputs: Path) -> None:
    require_sound(full_outputs, "full outputs", "strided stem", "cancel transposes")


def test_layers_of_filled_outputs_are_compared(full_outputs: Path) -> None:
    """Behind the last convolution the graph has a Slice without steps."""
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    picture = np.random.default_rng(0).integers(0, 256, (128, 128, 3)).astype(np.uint8)
    source = full_outputs.with_suffix(".tflite")
    described = SourceOptions(anchors=ANCHORS, anchor_unit="cell", class_names=("person",))
    found = xdet.check(
        full_outputs, source, [picture], runtimes="onnxruntime,litert", source_options=described, layers=True
    )
    assert found.layers is not None
    assert found.layers_problem is None
    assert [part.status for part in found.parts].count("failed") == 0


@pytest.mark.parametrize("name", OUTPUT_FAULTS)
def test_a_fault_in_filled_outputs_is_found(name: str, full_outputs: Path, tmp_path: Path) -> None:
    fault, expected = OUTPUT_FAULTS[name]
    verdict = verdict_on(fault, full_outputs, tmp_path)
    assert [(finding.cause, finding.layer) for finding in verdict.findings] == [expected]
