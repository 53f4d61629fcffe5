"""Shuffles that became one choice of channels, and enlargements that became copies, are accounted for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from tests.converters.sources.tflite.networks import HEAD_CHANNELS, NetworkBuilder
from xdet.checking.check import check
from xdet.checking.numbers import check_static
from xdet.checking.pair import open_pair

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
ANCHORS = tuple((0.5 + i, 0.7 + i) for i in range(5))


class ShuffleBuilder(NetworkBuilder):
    """A network that exchanges its channels as ShuffleNets do."""

    def shuffle(self, groups: int) -> ShuffleBuilder:
        """RESHAPE, TRANSPOSE, RESHAPE."""
        value = self.value
        n, h, w, c = value.shape
        wide, swapped = (n, h, w, groups, c // groups), (n, h, w, c // groups, groups)
        index = self._move("RESHAPE", value.index, np.array(wide, np.int32), wide)
        index = self._move("TRANSPOSE", index, np.array([0, 1, 2, 4, 3], np.int32), swapped)
        index = self._move("RESHAPE", index, np.array(value.shape, np.int32), value.shape)
        self.value = type(value)(index, value.shape, value.scale, value.zero_point)
        return self

    def enlarge(self) -> ShuffleBuilder:
        """RESIZE_NEAREST_NEIGHBOR by 2."""
        n, h, w, c = self.value.shape
        operands = [self.value.index, self._b.constant(np.array([2 * h, 2 * w], np.int32))]
        options = {"align_corners": False, "half_pixel_centers": False}
        self._same_codes("RESIZE_NEAREST_NEIGHBOR", operands, (n, 2 * h, 2 * w, c), **options)
        return self

    def _move(
        self, op: str, source: int, operand: np.ndarray[tuple[int, ...], np.dtype[np.int32]], shape: tuple[int, ...]
    ) -> int:
        scale, zero_point = self.value.scale, self.value.zero_point
        return self._b.op(op, [source, self._b.constant(operand)], shape, "int8", scale, zero_point)


def test_a_shuffle_is_one_gather_and_the_check_passes(sample_pictures: list[Path], tmp_path: Path) -> None:
    source, model = tmp_path / "built.tflite", tmp_path / "built.onnx"
    net = ShuffleBuilder(64)
    net.conv(16, stride=2, activation="RELU")
    net.shuffle(2).conv(16, stride=2, activation="RELU")
    source.write_bytes(net.shuffle(4).conv(HEAD_CHANNELS, 1).build())
    described = SourceOptions(anchors=ANCHORS, anchor_unit="cell", class_names=("person",))
    converted = convert_to_bytes(source, ConvertOptions(source=described, target="cpu"))
    assert converted.document.passes == ("channel choice", "strided stem", "cancel transposes")
    assert converted.model.count(b"Gather") >= 2
    model.write_bytes(converted.model)
    result = check(model, source, sample_pictures[:1], runtimes="onnxruntime:cpu,litert:xnnpack,litert:builtin")
    assert result.findings == ()
    assert result.passed
    assert "belong to no source tensor" not in result.parts[0].summary


def test_an_enlargement_of_copies_is_accounted_for(tmp_path: Path) -> None:
    source, model = tmp_path / "built.tflite", tmp_path / "built.onnx"
    net = ShuffleBuilder(64)
    net.conv(16, stride=2, activation="RELU").conv(16, stride=2, activation="RELU")
    source.write_bytes(net.enlarge().conv(16, stride=2).conv(HEAD_CHANNELS, 1).build())
    described = SourceOptions(anchors=ANCHORS, anchor_unit="cell", class_names=("person",))
    converted = convert_to_bytes(source, ConvertOptions(source=described, target="cpu"))
    assert "repeat pixels" in converted.document.passes
    model.write_bytes(converted.model)
    verdict, _ = check_static(open_pair(model, source))
    assert (verdict.status, verdict.findings) == ("passed", ())
    assert "belong to no source tensor" not in verdict.summary
