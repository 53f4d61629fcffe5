"""Heads are recognised by their network's outputs, built from what is stated, and refused with the reason."""

from __future__ import annotations

from dataclasses import replace

import pytest

from converters.description.sidecar import Sidecar
from converters.description.statements import SourceOptions
from converters.errors import OptionError
from converters.facts import FileMetadata, SourceFacts, SourceOutput
from converters.heads import HEADS, recognise
from converters.heads.blazeface import BlazeFace
from converters.heads.grids import AnchorGrid, YoloV3
from converters.heads.lists import YoloV5, YoloV8, Yolox
from converters.heads.one_grid import Fomo
from converters.quant import QuantParams
from tests.converters.description.resolving import resolve_spec

CELLS = 12 * 8 + 6 * 4 + 3 * 2  # of a 96 x 64 picture at strides 8, 16 and 32
PIXELS = tuple((float(10 * i), float(8 * i)) for i in range(1, 7))


def facts(*shapes: tuple[int, ...], activations: tuple[str, ...] = ()) -> SourceFacts:
    outputs = tuple(SourceOutput(f"out_{i}", shape, activations) for i, shape in enumerate(shapes))
    return SourceFacts("net.tflite", 64, 96, outputs, "uint8", QuantParams.per_tensor(1 / 255, 0))


GRIDS = facts((2, 3, 18), (4, 6, 18))


def test_every_row_is_of_its_kind_but_the_one_that_makes_another() -> None:
    assert {name for name, head in HEADS.items() if head.kind != name} == {"st_yolo_x"}  # YOLO v3 with a softmax


@pytest.mark.parametrize(
    ("found", "kind"),
    [
        (facts((2, 3, 12)), "yolo_v2"),
        (facts((2, 3, 2, 6)), "yolo_v2"),
        (GRIDS, "yolo_v3"),
        (facts((6, CELLS), activations=("LOGISTIC",)), "yolo_v8"),
        (facts((3 * CELLS, 6), activations=("LOGISTIC",)), "yolo_v5"),
        (facts((CELLS, 6)), "yolox"),
    ],
    ids=["grid", "grid with an axis of anchors", "two grids", "values by boxes", "three per cell", "one per cell"],
)
def test_the_only_head_that_fits_is_found(found: SourceFacts, kind: str) -> None:
    assert recognise(found) == kind


@pytest.mark.parametrize(
    "found",
    [
        facts((2, 3, 12), activations=("LOGISTIC",)),
        facts((2, 3, 12), activations=("SOFTMAX",)),
        facts((1000,)),
        facts((CELLS + 1, 6)),
        facts((CELLS, 5), (CELLS, 3)),
        facts((2, 3, 18), (2, 3, 18)),
        facts(*[(i, i, 18) for i in range(1, 5)]),
    ],
    ids=["logistic", "softmax", "classifier", "other strides", "ssd", "equal grids", "four grids"],
)
def test_where_none_fits_every_head_says_why(found: SourceFacts) -> None:
    with pytest.raises(OptionError, match="no head fits its output") as caught:
        recognise(found)
    lines = str(caught.value).splitlines()
    assert "--head none converts it" in lines[0]
    assert [line.split(":")[0].strip() for line in lines[1:]] == list(HEADS)


def test_a_network_of_another_task_is_no_detector_unless_somebody_says_so() -> None:
    pose = replace(facts((6, CELLS)), metadata=(FileMetadata("its metadata", task="pose"),))
    with pytest.raises(OptionError, match="its metadata says that the network's task is 'pose', expected 'detect'"):
        resolve_spec(pose)
    assert resolve_spec(pose, SourceOptions(head="yolo_v8")).head == YoloV8(CELLS, 2)
    assert not resolve_spec(pose, SourceOptions(head="none")).gives_boxes


def test_yolo_v8_reads_fractions_or_the_pixels_that_its_codes_reach() -> None:
    found = facts((6, CELLS))
    spec = resolve_spec(found, SourceOptions(class_names=("a", "b")))
    assert spec.head == YoloV8(CELLS, 2)
    assert spec.class_names == ("a", "b")
    in_pixels = replace(found, outputs=(replace(found.outputs[0], largest=96.5),))
    assert resolve_spec(in_pixels).head == YoloV8(CELLS, 2, (96.0, 64.0))


def test_decoded_rows_are_yolo_v5_or_yolox_by_their_number_or_by_name() -> None:
    assert resolve_spec(facts((3 * CELLS, 7))).head == YoloV5(3 * CELLS, 2)
    assert resolve_spec(facts((99, 7)), SourceOptions(head="yolo_v5")).head == YoloV5(99, 2)
    raw = resolve_spec(facts((CELLS, 7))).head
    assert raw == Yolox((96, 64), 2, (8, 16, 32), activated=False)
    activated = facts((CELLS, 7), activations=("LOGISTIC",))
    assert resolve_spec(activated).head == replace(raw, activated=True)


@pytest.mark.parametrize(
    ("size", "boxes", "values", "levels"),
    [
        (128, 896, 16, ((16, 16, 2), (8, 8, 6))),
        (192, 2016, 18, ((24, 24, 2), (12, 12, 6))),
        (256, 896, 16, ((16, 16, 2), (8, 8, 6))),
        (224, 2254, 12, ((28, 28, 2), (14, 14, 2), (7, 7, 6))),
        (192, 2304, 16, ((48, 48, 1),)),
    ],
    ids=["close range", "palm", "back camera", "pose", "full range"],
)
def test_blazeface_is_recognised_by_its_number_of_boxes(
    size: int, boxes: int, values: int, levels: tuple[tuple[int, int, int], ...]
) -> None:
    found = replace(facts((boxes, values), (boxes, 1)), height=size, width=size)
    head = resolve_spec(found, SourceOptions(class_names=("face",))).head
    assert head == BlazeFace((float(size), float(size)), levels, (values - 4) // 2)


def test_fomo_is_read_where_somebody_says_so() -> None:
    found = facts((8, 12, 3), activations=("SOFTMAX",))
    sidecar = Sidecar("s", head="fomo", class_names=("a", "b"))
    for options, beside in ((SourceOptions(head="fomo"), None), (SourceOptions(), sidecar)):
        assert resolve_spec(found, options, beside).head == Fomo(8, 12, 2)


@pytest.mark.parametrize(
    ("smallest", "largest", "said"),
    [
        (None, None, "other numbers: no softmax or sigmoid stands in front"),
        (-4.0, 3.97, "its codes hold -4 to 3.97, expected 0 to 1"),
        (0.0, 1.5, "its codes hold 0 to 1.5"),
        (-0.5, 0.9, "its codes hold -0.5 to 0.9"),
    ],
    ids=["raw", "logits", "above 1", "below 0"],
)
def test_a_grid_of_other_numbers_than_probabilities_is_no_fomo(
    smallest: float | None, largest: float | None, said: str
) -> None:
    output = SourceOutput("grid", (8, 12, 3), () if largest is None else ("SOFTMAX",), largest, smallest)
    for options, beside in ((SourceOptions(head="fomo"), None), (SourceOptions(), Sidecar("s", head="fomo"))):
        with pytest.raises(OptionError, match=said) as caught:
            resolve_spec(replace(facts((1, 1, 3)), outputs=(output,)), options, beside)
        assert "decodes it all the same" not in str(caught.value)


def test_codes_from_0_to_1_are_probabilities_whatever_stands_in_front() -> None:
    output = SourceOutput("grid", (8, 12, 3), (), 255 / 256, 0.0)
    found = replace(facts((1, 1, 3)), outputs=(output,))
    assert resolve_spec(found, SourceOptions(head="fomo")).head == Fomo(8, 12, 2)


def test_yolo_v3_gives_the_finest_grid_the_first_anchors() -> None:
    spec = resolve_spec(GRIDS, SourceOptions(anchors=PIXELS))
    grids = (AnchorGrid(2, 3, PIXELS[3:]), AnchorGrid(4, 6, PIXELS[:3]))
    assert spec.head == YoloV3(grids, 1, (96.0, 64.0))
    assert [output.value_name for output in spec.network_outputs] == ["head_level_0", "head_level_1"]
    fractions = tuple((w / 96, h / 64) for w, h in PIXELS)
    again = resolve_spec(GRIDS, SourceOptions(anchors=fractions, anchor_unit="image")).head
    assert isinstance(again, YoloV3)
    for found, wanted in zip(again.grids[0].anchors_px, PIXELS[3:], strict=True):
        assert found == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("found", "options", "said"),
    [
        (
            GRIDS,
            SourceOptions(),
            "its YOLO v3 head .grids 2 x 3, 4 x 6, 18 channels. needs anchors of all grids.* --anchor-unit pixel.image",
        ),
        (GRIDS, SourceOptions(anchors=PIXELS[:5]), "5 anchors .--anchors. over 2 grids cannot make 18"),
        (
            GRIDS,
            SourceOptions(anchors=((0.1, 0.2),) * 6),
            "in pixels, the default: 6 of 6 anchors are thinner than a pixel",
        ),
        (GRIDS, SourceOptions(anchors=PIXELS, anchor_unit="cell"), "cells differ from grid to grid"),
        (GRIDS, SourceOptions(anchors=PIXELS, class_names=("a", "b")), "scores 1 class, 2 are named"),
        (GRIDS, SourceOptions(head="yolo_v2", anchors=PIXELS), "yolo_v2: a YOLO v2 head is one output"),
        (facts((6, CELLS)), SourceOptions(class_names=("a",)), "scores 2 classes, 1 are named"),
        (facts((6, CELLS)), SourceOptions(head="yolo_v5"), "yolo_v5: one list of boxes is expected, boxes by values"),
        (facts((CELLS + 1, 6)), SourceOptions(head="yolox"), "make 126 boxes, found 127"),
        (facts((8, 12, 3)), SourceOptions(head="yolo_v8"), "yolo_v8: one list of boxes is expected"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_numbers(found: SourceFacts, options: SourceOptions, said: str) -> None:
    with pytest.raises(OptionError, match=said):
        resolve_spec(found, options)


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("head", HEADS)
def test_every_head_says_no_to_outputs_of_any_number_of_axes(head: str, *, by_name: bool) -> None:
    """Files may state what they like: no axes, none of a size, very many."""
    for first in range(6):
        for rest in range(6):
            for size in (0, 1, 2**31):
                found = facts((size,) * first, (size,) * rest)
                assert HEADS[head].misfit(found, by_name=by_name) is not None
                HEADS[head].misfit(facts((size,) * first), by_name=by_name)
