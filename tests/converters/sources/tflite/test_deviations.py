"""Every operator whose numbers are not the source's tells so: which number, of which tensor, for which operator."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converters.graph import GraphWriter, image_pixels
from converters.quant import QuantParams
from converters.sources.tflite.context import ImportContext
from converters.sources.tflite.importer import translate
from converters.sources.tflite.ops.averages import NUDGE
from converters.sources.tflite.reader import read_tflite
from converters.spec import Deviation, ImageInput, Rescaling
from tests.converters.sources.tflite.builder import TfliteBuilder

if TYPE_CHECKING:
    from converters.options import Rounding

SHAPE = (1, 4, 4, 3)


def deviations(
    op: str, shape: tuple[int, ...], quants: tuple[QuantParams, QuantParams], *constants: Any,
    rounding: Rounding = "litert", **options: Any,
) -> list[Deviation]:  # fmt: skip
    """What is told of one operator ``y = op(x)`` on int8 codes, written as uint8."""
    (s, z), (t, u) = ((q.scalar_scale, q.scalar_zero_point) for q in quants)
    b = TfliteBuilder()
    x = b.input("x", SHAPE, "int8", float(s), z)
    operands = [x, *(b.constant(np.array(c, np.int32)) for c in constants)]
    y = b.op(op, operands, shape, "int8", float(t), u, name="y", **options)
    context = ImportContext(read_tflite(b.build([y]), "one.tflite"), GraphWriter("one"), "uint8", rounding)
    context.define(x, image_pixels(context.writer, ImageInput(4, 4, Rescaling(1.0, 0.0)), 1))
    translate(context)
    return context.deviations


SAME = (QuantParams.per_tensor(0.25, -3), QuantParams.per_tensor(0.25, -3))
OTHER = (QuantParams.per_tensor(0.25, -3), QuantParams.per_tensor(0.3, 5))
POOL: dict[str, Any] = {"padding": "SAME", "filter_h": 2, "filter_w": 2, "stride_h": 2, "stride_w": 2}


def test_an_average_pool_tells_its_pivot() -> None:
    nudged = float(np.float32(0.25) * NUDGE)
    assert deviations("AVERAGE_POOL_2D", (1, 2, 2, 3), SAME, **POOL) == [
        Deviation("x", "y", "scale", 0.25, nudged),
        Deviation("x", "y", "zero_point", 125, 128),
        Deviation("y", "y", "zero_point", 125, 128),
    ]


def test_a_clamped_average_pool_tells_its_pivot_once() -> None:
    told = deviations("AVERAGE_POOL_2D", (1, 2, 2, 3), SAME, fused_activation="RELU", **POOL)
    assert [(d.tensor, d.kind) for d in told] == [("x", "scale"), ("x", "zero_point"), ("y", "zero_point")]


def test_a_bilinear_resize_tells_its_pivot() -> None:
    told = deviations("RESIZE_BILINEAR", (1, 8, 8, 3), SAME, [8, 8], half_pixel_centers=True)
    assert [(d.tensor, d.kind, d.source, d.written) for d in told][1:] == [
        ("x", "zero_point", 125, 0),
        ("y", "zero_point", 125, 0),
    ]


def test_a_mean_tells_that_its_scale_is_one() -> None:
    told = deviations("MEAN", (1, 3), SAME, [1, 2])
    assert [d for d in told if d.kind == "scale"] == [
        Deviation("x", "y", "scale", 0.25, 1.0),
        Deviation("y", "y", "scale", 0.25, 1.0),
    ]


def test_a_requantisation_tells_the_slope_that_stands_for_it() -> None:
    told = deviations("QUANTIZE", SHAPE, OTHER)
    assert {(d.tensor, d.kind) for d in told} <= {("y", "slope"), ("x", "scale")}
    assert [d.written for d in told if d.tensor == "x"] == pytest.approx([0.3 * 213 / 256], rel=1e-4)  # nudged


def test_a_table_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converters.sources.tflite.ops.activations.matched_leaky", lambda _: None)
    assert deviations("LEAKY_RELU", SHAPE, OTHER, alpha=0.2) == [Deviation("y", "y", "table", None, None)]


@pytest.mark.parametrize("op", ["AVERAGE_POOL_2D", "RESIZE_BILINEAR", "MEAN", "QUANTIZE", "LEAKY_RELU"])
def test_the_real_functions_tell_nothing(op: str) -> None:
    shapes = {"AVERAGE_POOL_2D": (1, 2, 2, 3), "RESIZE_BILINEAR": (1, 8, 8, 3), "MEAN": (1, 3)}
    constants = {"RESIZE_BILINEAR": [[8, 8]], "MEAN": [[1, 2]]}
    options: dict[str, Any] = {"AVERAGE_POOL_2D": POOL, "LEAKY_RELU": {"alpha": 0.2}}.get(op, {})
    told = deviations(op, shapes.get(op, SHAPE), OTHER, *constants.get(op, []), rounding="real", **options)
    assert told == []
