"""Crafted heads: what each asks, that they reach a runtime as they are, and find a decoder with another rule."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.heads.nms import detect_from_head
from converters.heads.yolo_v2 import YoloV2
from converters.options import ConvertOptions
from converters.spec import (
    METADATA_KEY,
    Anchors,
    DetectorSpec,
    ImageInput,
    ModelDocument,
    Rescaling,
    Suppression,
    Thresholds,
)
from tests.converters.heads.test_heads import EXAMPLES
from tests.converters.sources.tflite.networks import st_yolo_lc
from tests.converters.sources.tflite.ssd_networks import ssd_with_postprocess
from tests.heads import yolo_v2
from xdet.checking.check import check
from xdet.checking.heads.probes import PROBES, craft_probes, encode_probes, find_pair, prepare_probes, run_probes
from xdet.checking.pair import open_pair
from xdet.checking.runtimes import OpenRuntimes
from xdet.errors import ModelError
from xdet.model.graph import load_onnx, model_from_proto
from xdet.model.surgery import HeadEntry, find_entry, pictures_of
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.table import open_model

if TYPE_CHECKING:
    from pathlib import Path

    from converters.heads.base import Head
    from converters.options import ConvertOptions as Options
    from xdet.checking.heads.probes import ProbeSet
    from xdet.checking.pair import OpenedPair


WH = ((0.9883, 3.3606), (2.1194, 5.3759), (3.052, 9.1336), (5.5517, 9.3066), (9.726, 11.1422))
CODES = HeadEntry("codes", (0, 2, 3, 1), np.float32(0.07), 150, np.dtype(np.uint8))
FLOATS = HeadEntry("head", None, None, 0, np.dtype(np.float32))
EQUAL, BELOW, ABOVE, ONE = range(4)  # the IoU threshold: equal to the pair's overlap, above it, below it, 1


def detector(grid: int, classes: int = 1, rows: int = 100) -> DetectorSpec:
    return DetectorSpec(
        image=ImageInput(grid * 32, grid * 32, Rescaling(1 / 255, 0.0)),
        head=YoloV2(grid, grid, Anchors(WH, "cell"), classes),
        class_names=tuple(f"class {i}" for i in range(classes)),
        thresholds=Thresholds(max_detections=rows),
    )


def kept(probes: ProbeSet, spec: DetectorSpec, name: str) -> list[list[int]]:
    """Anchor indices that the oracle keeps of one probe, for each pair of thresholds."""
    head = probes.heads[[probes.names.index(name)]]
    found = [detect_from_head(head, spec, thresholds) for thresholds in probes.thresholds]
    return [one.anchors[0, : int(one.num_detections[0])].tolist() for one in found]


@pytest.fixture(scope="module", params=["codes", "floats"])
def entry(request: pytest.FixtureRequest) -> HeadEntry:
    return {"codes": CODES, "floats": FLOATS}[request.param]


@pytest.mark.parametrize("grid", [6, 7, 13])
@pytest.mark.parametrize("classes", [1, 2, 5, 80])
def test_every_probe_can_be_made(grid: int, classes: int, entry: HeadEntry) -> None:
    probes = craft_probes(detector(grid, classes), entry)
    assert probes is not None
    assert [name for name in PROBES if name not in probes.names] == (["classes in one place"] if classes == 1 else [])
    assert np.isin(probes.heads, entry.levels()).all()


def test_an_overlap_falls_above_the_threshold_and_stays_at_it_and_below_it(entry: HeadEntry) -> None:
    spec = detector(13)
    probes = craft_probes(spec, entry)
    assert probes is not None
    found = kept(probes, spec, "overlapping pair")
    assert [len(boxes) for boxes in found] == [2, 2, 1, 2]
    assert found[ABOVE] == found[EQUAL][:1]
    iou = probes.thresholds[EQUAL].iou
    assert float(np.float32(iou)) == iou
    assert [round(t.iou - iou, 6) for t in probes.thresholds[:3]] == [0, 1e-5, -1e-5]


def test_the_chosen_overlap_depends_on_no_rounding_of_exp() -> None:
    pair = find_pair(yolo_v2(detector(13)), Thresholds(), CODES.levels(), apart_from=0.5)
    assert pair is not None
    assert pair.size == 0
    assert 0.55 < pair.iou < 0.5504


def test_boxes_that_do_not_overlap_at_their_anchors_sizes_are_enlarged() -> None:
    head = YoloV2(6, 6, Anchors(((0.5, 0.5),), "cell"), 1)
    pair = find_pair(head, Thresholds(), CODES.levels(), apart_from=0.5)
    assert pair is not None
    assert pair.size > 0.69  # exp of it is above 2
    size = np.full((1, head.num_boxes, 2), pair.size, np.float32)
    boxes = head.decode_boxes(np.zeros_like(size), size)[0]
    assert 0.2 < pair.iou < 0.8
    assert boxes[pair.boxes[0]].tolist() != boxes[pair.boxes[1]].tolist()


def test_equal_boxes_all_stay_at_an_iou_threshold_of_1_and_one_stays_below_it() -> None:
    spec = detector(7)
    probes = craft_probes(spec, FLOATS)
    assert probes is not None
    found = kept(probes, spec, "highest values")
    assert found == [[0], [0], [0], list(range(100))]


def test_more_boxes_stay_than_there_are_rows() -> None:
    spec = detector(6, rows=30)
    probes = craft_probes(spec, CODES)
    assert probes is not None
    more = replace(spec, thresholds=Thresholds(max_detections=180))
    head = probes.heads[[probes.names.index("more boxes than rows")]]
    limits = [detect_from_head(head, more, replace(probes.thresholds[0], max_detections=k)) for k in (30, 180)]
    assert [int(found.num_detections[0]) for found in limits] == [30, 180]


def test_only_scores_above_the_threshold_count() -> None:
    spec = detector(7)
    probes = craft_probes(spec, CODES)
    assert probes is not None
    assert probes.thresholds[0].score == 0.5
    found = kept(probes, spec, "scores at the threshold")
    assert {index % 3 for index in found[EQUAL]} == {2}
    assert len(found[EQUAL]) == 81
    assert kept(probes, spec, "nothing at all") == [[], [], [], []]
    assert kept(probes, spec, "lowest values") == [[], [], [], []]


def test_two_classes_of_one_box_and_two_boxes_of_two_classes_stay() -> None:
    spec = detector(7, classes=3)
    probes = craft_probes(spec, CODES)
    assert probes is not None
    head = probes.heads[[probes.names.index("classes in one place")]]
    found = detect_from_head(head, spec, probes.thresholds[ABOVE])
    assert int(found.num_detections[0]) == 4
    assert found.anchors[0, 2:4].tolist() == [0, 0]
    assert found.classes[0, :4].tolist() in ([0, 2, 2, 0], [2, 0, 2, 0])


def test_a_head_without_numbers_below_0_holds_no_probe() -> None:
    unsigned = replace(CODES, zero_point=0)
    assert craft_probes(detector(7), unsigned) is None


@pytest.mark.parametrize("entry", [CODES, FLOATS], ids=["codes", "floats"])
def test_a_table_holds_every_level_as_it_is(entry: HeadEntry) -> None:
    levels = entry.levels()
    heads = np.resize(levels, (2, 3, 4, 25))
    table = entry.table(heads)
    assert table.dtype == entry.dtype
    back = table if entry.scale is None else (table.astype(np.float32) - entry.zero_point) * entry.scale
    assert np.array_equal(back if entry.perm is None else back.transpose(entry.perm), heads)


def converted(source: Path, folder: Path, options: Options) -> OpenedPair:
    model = folder / "model.onnx"
    model.write_bytes(convert_to_bytes(source, options).model)
    return open_pair(model, source)


@pytest.mark.parametrize("activations", ["uint8", "int8"])
def test_a_picture_of_one_pixel_picks_a_crafted_head(activations: str, embedded_tflite: Path, tmp_path: Path) -> None:
    options = ConvertOptions(activations=activations)  # type: ignore[arg-type]  # parametrised
    pair = converted(embedded_tflite, tmp_path, options)
    assert find_entry(pair.graph.model.graph, pair.model.file).dtype == np.dtype(activations)
    probing = prepare_probes(pair)
    assert probing is not None
    assert len(probing.model.data) < 60_000
    with open_model(probing.model, RuntimeChoices("onnxruntime", "cpu", 1)) as runtime:
        heads = runtime.head(pictures_of(len(probing.probes.names)))
        assert runtime.spec.thresholds == probing.probes.thresholds[0]
    assert np.array_equal(heads, probing.probes.heads)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_runtime_is_asked_at_all_thresholds_frozen_or_not(
    *, frozen: bool, embedded_tflite: Path, tmp_path: Path
) -> None:
    pair = converted(embedded_tflite, tmp_path, ConvertOptions(freeze_thresholds=frozen))
    probing = prepare_probes(pair)
    assert probing is not None
    with OpenRuntimes(pair) as runtimes:
        run = run_probes(probing, RuntimeChoices("onnxruntime", "cpu", 1), runtimes)
    assert [thresholds for thresholds, _ in run.boxes] == list(probing.probes.thresholds)
    pair_rows = [int(found.num_detections[0]) for _, found in run.boxes]
    assert (run.label(0), pair_rows) == ("probe 'overlapping pair'", [2, 2, 1, 2])


def test_a_model_that_ends_at_the_head_is_not_probed(embedded_tflite: Path, tmp_path: Path) -> None:
    options = ConvertOptions(source=SourceOptions(head="none"))
    assert prepare_probes(converted(embedded_tflite, tmp_path, options)) is None


def test_a_model_without_a_head_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "lc.tflite"
    source.write_bytes(st_yolo_lc(96))
    described = SourceOptions(anchors=WH, anchor_unit="cell", class_names=("person",))
    data = convert_to_bytes(source, ConvertOptions(source=described)).model
    with pytest.raises(ModelError, match=r"'m\.onnx' has no value named 'head'; convert its source again"):
        find_entry(model_from_proto(load_onnx(data.replace(b"head", b"haed"), "m.onnx"), "m.onnx").graph, "m.onnx")


def test_thresholds_that_a_simplifier_merged_are_probed_at_their_own_value(
    embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    model = tmp_path / "simplified.onnx"
    proto = onnx.load_from_string(convert_to_bytes(embedded_tflite, ConvertOptions(freeze_thresholds=True)).model)
    for node in proto.graph.node:  # equal constants become one, as onnxsim 0.8 and onnxslim 0.1 make them
        for i, name in enumerate(node.input):
            node.input[i] = "score_threshold" if name == "iou_threshold" else name
    kept = [tensor for tensor in proto.graph.initializer if tensor.name != "iou_threshold"]
    proto.graph.ClearField("initializer")
    proto.graph.initializer.extend(kept)
    model.write_bytes(proto.SerializeToString())
    result = check(model, embedded_tflite, sample_pictures[:1], runtimes="onnxruntime:cpu")
    assert result.findings == ()
    assert [(run.probes, run.probes_followed) for run in result.runs] == [(9, 9)]
    assert result.parts[3].summary.endswith(
        "9 probes put to 1 of them, at the model's own thresholds alone: a tool has merged or renamed them in the graph"
    )


FIXED = {"fomo"}  # its boxes are the cells, and do not overlap
MADE = {name: head for name, head in EXAMPLES.items() if head.kind not in FIXED and head.num_boxes > 1}


def detector_of(head: Head, rule: Suppression | None = None) -> DetectorSpec:
    return DetectorSpec(
        image=ImageInput(96, 64, Rescaling(1.0, 0.0)),
        head=head,
        class_names=tuple(f"class {i}" for i in range(head.num_classes)),
        thresholds=Thresholds(max_detections=10),
        suppression=rule or Suppression(),
    )


@pytest.mark.parametrize("head", MADE.values(), ids=MADE)
def test_every_head_whose_boxes_can_overlap_has_probes(head: Head) -> None:
    spec = detector_of(head)
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
