"""First convolutions on groups of pixels give the same codes, whatever their kernel and padding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from converters.passes.stems import StridedStem, WideStem, grouped_weights
from tests.converters.passes.networks import Convolution, assert_bits_stay, assert_declined, rewritten
from xdet.checking.numbers.rewrites import strided_kernel

if TYPE_CHECKING:
    import onnx_ir as ir

KERNELS_AND_PADS = st.sampled_from(
    [
        ((3, 3), (0, 0, 1, 1)),  # SAME of an even picture
        ((3, 3), (1, 1, 1, 1)),  # PyTorch's
        ((3, 3), (1, 1, 0, 0)),  # a PAD in front, as old converters of Keras write it
        ((3, 3), (0, 1, 0, 1)),
        ((5, 5), (1, 1, 2, 2)),
        ((5, 3), (4, 1, 4, 0)),
        ((6, 6), (2, 2, 2, 2)),  # YOLOv5's
        ((2, 2), (0, 0, 0, 0)),
        ((7, 7), (2, 2, 3, 3)),
        ((7, 7), (3, 5, 3, 0)),
        ((1, 1), (0, 0, 0, 0)),
    ]
)


STRIDED = Convolution(inputs=3, outputs=5, size=(8, 12), pads=(0, 0, 1, 1), strides=(2, 2), zero_point=3, nhwc=True)


@settings(max_examples=60)
@given(
    height=st.integers(7, 13),
    width=st.integers(2, 5).map(lambda n: 4 * n),
    frame=KERNELS_AND_PADS,
    kind=st.sampled_from(["signed", "unsigned"]),
    changes=st.fixed_dictionaries({
        "inputs": st.integers(1, 3),
        "outputs": st.integers(1, 9),
        "strides": st.sampled_from([(2, 2), (1, 2)]),
        "zero_point": st.sampled_from([0, 1, 127, 128, 255]),
        "per_channel": st.booleans(),
        "bias": st.sampled_from(["int32", None]),
        "batch": st.sampled_from([1, 3, "N"]),
        "seed": st.integers(0, 1000),
    }),
)  # fmt: skip
def test_a_strided_stem_keeps_its_bits(
    height: int,
    width: int,
    frame: tuple[tuple[int, int], tuple[int, int, int, int]],
    kind: str,
    changes: dict[str, Any],
) -> None:
    stem = replace(STRIDED, size=(height, width), kernel=frame[0], pads=frame[1], **changes)
    if kind == "unsigned":  # as files of TensorFlow 1 have them: one scale, and a zero-point
        stem = replace(stem, weight_dtype=np.uint8, weight_zero_point=stem.seed % 256, per_channel=False)
    assert assert_bits_stay(StridedStem(), stem.build).graph.outputs[0].name == "conv"


def test_a_strided_stem_is_one_convolution_of_two_columns_between_free_views() -> None:
    model = STRIDED.build()
    copied = ("replicated", "strided stem")
    fates = {"conv/w/codes": copied, "conv/b/codes": copied}
    assert rewritten(model, *fates) == (("strided stem", "cancel transposes"), fates)
    (conv,) = (node for node in model.graph if node.op_type == "Conv")
    stated = {name: list(conv.attributes.get_ints(name, [])) for name in ("kernel_shape", "strides", "pads")}
    assert stated == {"kernel_shape": [3, 2], "strides": [2, 1], "pads": [0, 0, 1, 1]}
    views = [node.op_type for node in model.graph if node.op_type in ("Transpose", "Reshape")]
    assert views == ["Reshape", "Transpose", "Transpose", "Reshape", "Transpose"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"dtype": np.int8}, "its input is int8", id="int8 codes"),
        pytest.param({"dilations": (2, 2), "pads": (2, 2, 2, 2)}, "its dilations are (2, 2)", id="dilated"),
        pytest.param({"size": (8, 10)}, "its 10 columns", id="a width that is no multiple of 4"),
        pytest.param({"pads": (0, 0, 0, 0)}, "are not 2 results per 4 pixels", id="a column less"),
        pytest.param({"size": ("H", 12)}, "its picture has no fixed size", id="any size"),
    ],
)
def test_a_strided_stem_is_declined_with_a_reason(change: dict[str, Any], reason: str) -> None:
    assert_declined(StridedStem(), replace(STRIDED, **change).build(), reason)


def test_a_strided_stem_whose_reals_are_read_stays() -> None:
    net, codes = STRIDED.write()
    node = codes.producer()
    assert node is not None
    read = net.writer.op("Neg", [node.inputs[0]], "read")
    model = net.model(codes, net.link("QuantizeLinear", read, "read/codes"))
    assert_declined(StridedStem(), model, "others read its result")


@pytest.mark.parametrize("change", [{"strides": (1, 1)}, {"inputs": 4}], ids=["no stride", "four channels"])
def test_other_convolutions_are_no_stems(change: dict[str, Any]) -> None:
    assert_declined(StridedStem(), replace(STRIDED, **change).build())


@given(st.integers(1, 3), st.integers(1, 9), st.integers(0, 9), st.integers(0, 1000))
def test_the_check_derives_the_same_weights(depth: int, width: int, left: int, seed: int) -> None:
    if left > width + 1:
        left %= width + 1
    kernel = np.random.default_rng(seed).integers(-127, 128, (2, depth, 3, width)).astype(np.int8)
    np.testing.assert_array_equal(grouped_weights(kernel, left), strided_kernel(kernel, left))


@dataclass(frozen=True)
class PooledStem(Convolution):
    """A convolution, and a MaxPool ``pooled`` behind it."""

    inputs: int = 3
    outputs: int = 5
    size: tuple[int | str, int] = (8, 12)
    pool_strides: tuple[int, int] = (2, 2)
    pool_padding: str = "VALID"
    pooled_scale: float = 0.05

    def build(self) -> ir.Model:
        net, codes = self.write()
        real = net.link("DequantizeLinear", codes, "pool/x")
        attributes: dict[str, Any] = {"strides": self.pool_strides, "auto_pad": self.pool_padding}
        real = net.writer.op("MaxPool", [real], "pool", kernel_shape=[2, 2], **attributes)
        return net.model(net.link("QuantizeLinear", real, "pooled", self.pooled_scale))


@settings(max_examples=40)
@given(
    height=st.integers(1, 6).map(lambda n: 2 * n),
    width=st.integers(1, 5).map(lambda n: 4 * n),
    outputs=st.integers(1, 9),
    zero_point=st.sampled_from([0, 1, 127, 128, 255]),
    per_channel=st.booleans(),
    pool_padding=st.sampled_from(["VALID", "SAME_UPPER"]),
    batch=st.sampled_from([1, 3, "N"]),
    seed=st.integers(0, 1000),
)
def test_a_wide_stem_keeps_its_bits(height: int, width: int, **changes: Any) -> None:
    model = assert_bits_stay(WideStem(), PooledStem(size=(height, width), **changes).build)
    assert [node.attributes.get_ints("kernel_shape") for node in model.graph if node.op_type == "Conv"] == [(4, 2)]
    assert model.graph.outputs[0].name == "pooled"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param({"dtype": np.int8}, "its input is int8", id="int8 codes"),
        pytest.param({"strides": (2, 2)}, "strides are (2, 2)", id="a strided convolution"),
        pytest.param({"pads": (0, 0, 1, 1)}, "pads are (0, 0, 1, 1)", id="other padding"),
        pytest.param({"size": (7, 12)}, "7 x 12", id="an odd height"),
        pytest.param({"size": (8, 10)}, "8 x 10", id="a width that is no multiple of 4"),
        pytest.param({"pool_strides": (1, 1)}, "no 2x2 MaxPool", id="a pool of stride 1"),
        pytest.param({"pooled_scale": 0.8}, "changes scale", id="a pool that requantises"),
        pytest.param({"weight_zero_point": 1}, "not symmetric", id="asymmetric weights"),
    ],
)
def test_a_wide_stem_is_declined_with_a_reason(change: dict[str, Any], reason: str) -> None:
    assert_declined(WideStem(), PooledStem(**change).build(), reason)


def test_the_size_behind_a_wide_stem_stays_known() -> None:
    """``shifted rows`` takes the depthwise convolution behind it, which needs the size of its picture."""
    net, codes = PooledStem(outputs=16, size=(64, 64)).write()
    pooled = net.between("MaxPool", [codes], "pooled", kernel_shape=[2, 2], strides=[2, 2])
    model = net.model(net.conv(pooled, (16, 1, 3, 3), "depthwise"))
    assert rewritten(model)[0] == ("wide stem", "shifted rows", "cancel transposes")
