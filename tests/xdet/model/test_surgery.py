"""Copies of a finished model with one thing changed say in their metadata what they are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from tests.converters.sources.tflite.look_alikes import yolo_v8
from xdet.model.file import read_document
from xdet.model.surgery import cut_at_head

if TYPE_CHECKING:
    from pathlib import Path

    from converters.convert import Conversion


def test_a_network_without_its_head_names_the_runtimes_that_its_head_kept_away(tmp_path: Path) -> None:
    (tmp_path / "m.tflite").write_bytes(yolo_v8(3))

    def converted(head: str) -> Conversion:
        return convert_to_bytes(tmp_path / "m.tflite", ConvertOptions(source=SourceOptions(head=head)))

    whole = converted("auto")
    cut = read_document(cut_at_head(whole.model, "m.onnx"), file="m.onnx")
    assert "iree" not in whole.document.oldest_runtimes
    assert cut.oldest_runtimes == converted("none").document.oldest_runtimes
