"""Ranges come from every photograph, exactly once, in order; too few photographs and broken networks are refused."""

from __future__ import annotations

import numpy as np
import onnx
import onnx.parser
import pytest

from converters.calibration import Calibration, observe_ranges
from converters.errors import OptionError, SourceFileError
from converters.spec import ImageInput, Rescaling
from tests.converters.quantize.float_networks import SIZE, calibration, photographs

IMAGE = ImageInput(SIZE, SIZE, Rescaling(1 / 255, 0.0))


def model(scale: float = 1.0) -> bytes:
    text = f"""<ir_version: 9, opset_import: ["": 19]>
        net (uint8[1, {SIZE}, {SIZE}, 3] image) => (float[1, {SIZE}, {SIZE}, 3] head)
        <float scale = {{{scale}}}> {{ real = Cast<to = 1>(image) scaled = Mul(real, scale) head = Neg(scaled) }}"""
    return bytes(onnx.parser.parse_model(text).SerializeToString())


@pytest.mark.parametrize("count", [8, 19], ids=["one chunk", "chunks of 8, 8 and 3"])
def test_minimum_and_maximum_are_those_of_all_photographs(count: int) -> None:
    pictures = np.stack(photographs(count)).astype(np.float32)
    ranges = observe_ranges(model(), IMAGE, calibration(count=count))
    assert ranges["head"] == (-pictures.max(), -pictures.min())
    assert ranges["scaled"] == (pictures.min(), pictures.max())


def test_a_percentile_cuts_both_ends_alike() -> None:
    pictures = np.stack(photographs(16)).astype(np.float32)
    low, high = observe_ranges(model(), IMAGE, calibration(80.0, count=16))["scaled"]
    bin_width = 2 * 255 / 2048
    assert low == pytest.approx(np.percentile(pictures, 10), abs=2 * bin_width)  # the histogram's resolution
    assert high == pytest.approx(np.percentile(pictures, 90), abs=2 * bin_width)


def test_a_percentile_of_100_keeps_everything() -> None:
    whole, cut = (observe_ranges(model(), IMAGE, calibration(p))["scaled"] for p in (None, 100.0))
    assert cut == pytest.approx(whole, abs=2 * 255 / 2048)


def test_progress_is_told_after_every_photograph_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[int] = []
    observe_ranges(model(), IMAGE, calibration(99.9, count=9, progress=told.append))
    assert told == [1] * 9
    assert capsys.readouterr().out == ""


def test_a_fixed_batch_sees_the_same_photographs() -> None:
    text = f"""<ir_version: 9, opset_import: ["": 19]>
        net (uint8[3, {SIZE}, {SIZE}, 3] image) => (float[3, {SIZE}, {SIZE}, 3] head)
        {{ head = Cast<to = 1>(image) }}"""
    batched = onnx.parser.parse_model(text).SerializeToString()
    alone = observe_ranges(model(), IMAGE, calibration())["scaled"]
    assert observe_ranges(batched, IMAGE, calibration(), batch=3)["head"] == alone


@pytest.mark.parametrize("count", [0, 1, 7])
def test_too_few_photographs_are_refused(count: int) -> None:
    with pytest.raises(OptionError, match=rf"`calibration`: {count} photographs, expected at least 8"):
        Calibration(lambda image: iter(()), count)  # noqa: ARG005 - the callable's signature


@pytest.mark.parametrize("percentile", [49.9, 100.1, float("nan")])
def test_a_percentile_out_of_range_is_refused(percentile: float) -> None:
    with pytest.raises(OptionError, match=r"`percentile` must lie in 50\.\.100"):
        calibration(percentile)


def test_a_network_that_computes_infinities_is_refused_by_its_tensors() -> None:
    with pytest.raises(SourceFileError, match=r"'scaled'.* are not finite: the network's weights are broken"):
        observe_ranges(model(3e38), IMAGE, calibration())
