"""Crafted heads of every kind: what they ask, and that they alone find a decoder with another rule of suppression."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.heads.nms import detect_from_head
from converters.options import ConvertOptions
from converters.spec import METADATA_KEY, DetectorSpec, ImageInput, ModelDocument, Rescaling, Suppression, Thresholds
from tests.converters.heads.test_heads import EXAMPLES
from tests.converters.sources.tflite.ssd_networks import ssd_with_postprocess
from xdet.checking.check import check
from xdet.checking.heads.probes import encode_probes
from xdet.model.graph import load_onnx

if TYPE_CHECKING:
    from pathlib import Path

    from converters.heads.base import Head

FIXED = {"fomo"}  # its boxes are the cells, and do not overlap
MADE = {name: head for name, head in EXAMPLES.items() if head.kind not in FIXED and head.num_boxes > 1}


def detector(head: Head, rule: Suppression | None = None) -> DetectorSpec:
    return DetectorSpec(
        image=ImageInput(96, 64, Rescaling(1.0, 0.0)),
        head=head,
        class_names=tuple(f"class {i}" for i in range(head.num_classes)),
        thresholds=Thresholds(max_detections=10),
        suppression=rule or Suppression(),
    )


@pytest.mark.parametrize("head", MADE.values(), ids=MADE)
def test_every_head_whose_boxes_can_overlap_has_probes(head: Head) -> None:
    spec = detector(head)
    probes = encode_probes(spec)
    assert probes is not None
    assert len(probes.names) == (6 if head.num_classes == 1 else 7)
    assert all(np.isfinite(array).all() for array in probes.tables.values())

    def kept(name: str, iou: float, spec: DetectorSpec = spec) -> int:
        one = probes.heads[[probes.names.index(name)]]
        return int(detect_from_head(one, spec, replace(probes.thresholds[0], iou=iou)).num_detections[0])

    assert kept("overlapping pair", probes.thresholds[0].iou) == 2
    assert kept("overlapping pair", probes.thresholds[0].iou - 1e-5) == 1
    assert kept("nothing at all", 1.0) == 0
    assert kept("more boxes than rows", 1.0) == min(10, head.num_boxes)
    if head.num_classes > 1:
        across = replace(spec, suppression=Suppression(across_classes=True))
        assert (kept("classes in one place", 0.1), kept("classes in one place", 0.1, across)) == (2, 1)


def test_a_decoder_of_another_rule_is_found_on_a_black_picture(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    source, model = tmp_path / "ssd.tflite", tmp_path / "ssd.onnx"
    source.write_bytes(ssd_with_postprocess(nms_score_threshold=0.99))
    options = ConvertOptions(source=SourceOptions(class_names=tuple("abcd")))
    conversion = convert_to_bytes(source, options)
    black = [np.zeros((32, 32, 3), np.uint8)]
    for rule, found in ((None, []), (Suppression(unclipped=True), ["rows"])):
        proto = load_onnx(conversion.model, "ssd.onnx")
        if rule is not None:  # the document says what the graph does not do
            (entry,) = [entry for entry in proto.metadata_props if entry.key == METADATA_KEY]
            document = ModelDocument.from_json(entry.value)
            entry.value = replace(document, spec=replace(document.spec, suppression=rule)).to_json()
        model.write_bytes(proto.SerializeToString())
        result = check(model, source, black, runtimes="onnxruntime:cpu,litert:xnnpack,litert:builtin")
        assert [finding.cause for finding in result.findings] == found
        (line,) = [line for line in result.runs if line.name == "onnxruntime:cpu"]
        assert (line.probes, line.probes_followed == line.probes) == (7, not found)
