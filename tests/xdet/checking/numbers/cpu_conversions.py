"""A network converted for the CPU, and what the static comparison says of it with a fault planted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from tests.converters.sources.tflite.networks import ANCHORS
from tests.xdet.checking import faults
from xdet.checking.numbers import check_static
from xdet.checking.pair import open_pair

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import onnx

    from xdet.checking.result import PartVerdict


def convert_for_cpu(network: bytes, folder: Path) -> Path:
    """Write a TFLite detector of persons to ``built.tflite`` and beside it its conversion, whose path is returned."""
    model = folder / "built.onnx"
    model.with_suffix(".tflite").write_bytes(network)
    described = SourceOptions(anchors=ANCHORS, anchor_unit="cell", class_names=("person",))
    options = ConvertOptions(source=described, target="cpu")
    model.write_bytes(convert_to_bytes(model.with_suffix(".tflite"), options).model)
    return model


def verdict_on(fault: Callable[[onnx.ModelProto], None], converted: Path, folder: Path) -> PartVerdict:
    """What the static comparison says of a conversion with a fault."""
    model = folder / "wrong.onnx"
    model.write_bytes(faults.planted(converted.read_bytes(), fault))
    return check_static(open_pair(model, converted.with_suffix(".tflite")))[0]


def require_sound(converted: Path, *passes: str) -> None:
    """A conversion by these passes has every number of its source, and none that belongs to no tensor of it."""
    pair = open_pair(converted, converted.with_suffix(".tflite"))
    assert pair.document.passes == passes
    verdict, _ = check_static(pair)
    assert (verdict.status, verdict.findings) == ("passed", ())
    assert "belong to no source tensor" not in verdict.summary
