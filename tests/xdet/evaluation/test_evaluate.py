"""Evaluating models: numbers worked by hand, everything left out is told, and interrupted runs go on."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

import xdet
from converters.spec import Rescaling
from tests.xdet.finished_models import SPEC
from tests.xdet.labelled_scenes import ELSEWHERE_XYWH_PX, FOUND_XYWH_PX, Scene, write_model
from xdet.errors import DataError, ModelError, OutputError, UsageError
from xdet.evaluation.evaluate import evaluate
from xdet.evaluation.predictions import HEADER, truncation_table
from xdet.evaluation.report import evaluation_report, evaluation_to_json
from xdet.runtimes.onnxruntime import OnnxRuntime
from xdet.writing.terminal import report_text

if TYPE_CHECKING:
    from pathlib import Path

    from xdet.evaluation.evaluate import Evaluation


def ap50(evaluation: Evaluation) -> float | None:
    return evaluation.results[0].score.metrics["AP50"]


def test_one_of_two_found_is_51_of_101_recalls(scene: Scene, model: Path) -> None:
    found = scene.measure(model)
    assert ap50(found) == pytest.approx(51 / 101, abs=1e-15)
    assert found.results[0].runtime == "onnxruntime:cpu"
    assert (found.num_images, found.num_truths, found.num_crowds) == (2, 2, 0)
    assert (found.class_names, found.problems, found.ignored) == (("person",), (), {})
    assert list(found.results[0].score.metrics) == [
        "AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large", "AR1", "AR4", "AR_small", "AR_medium", "AR_large",
    ]  # fmt: skip


@pytest.mark.parametrize(("protocol", "expected"), [("zoo-3", 1 / 2), ("zoo-4", 0.49 + 0.01 * 3 / 4 + 0.5 * 0.5 / 2)])
def test_the_zoo_protocols_on_a_hit_and_a_miss(scene: Scene, model: Path, protocol: str, expected: float) -> None:
    """Recall 1/2, 1/2; precision 1, 1/2. zoo-4: 1 up to 0.49, 1/2 at 0.5, then down to 0 at 1."""
    assert ap50(scene.measure(model, protocol=protocol)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("eval_iou", "name", "expected"), [(None, "AP50", 0.0), (0.3, "AP30", 1.0), (0.335, "AP33.5", 0.0)]
)
@pytest.mark.parametrize("protocol", ["zoo-3", "zoo-4"])
def test_the_iou_of_a_hit_is_an_option_of_the_zoo_protocols(
    tmp_path: Path, protocol: str, eval_iou: float | None, name: str, expected: float
) -> None:
    """They share 1 of 3 pixels of the network; predictions do not depend on the IoU, so the kept ones serve all."""
    scene = Scene(tmp_path)
    scene.add(255, truths=[[0, 0, 40, 50]])
    model, kept = write_model(tmp_path / "identity.onnx"), tmp_path / "kept"
    scene.measure(model, protocol=protocol, resume=kept)
    found = scene.measure(model, protocol=protocol, eval_iou=eval_iou, resume=kept)
    assert found.results[0].resumed == 1
    assert found.options.eval_iou == (eval_iou or 0.5)
    assert found.results[0].score.metrics == {name: pytest.approx(expected, abs=0.011)}
    assert f"Protocol {protocol}: a hit from IoU {eval_iou or 0.5} on, score > 0.001" in report_text(
        evaluation_report(found)
    )
    assert json.loads(evaluation_to_json(found))["options"]["eval_iou"] == (eval_iou or 0.5)


@pytest.mark.parametrize("workers", [1, 3, None])
@pytest.mark.parametrize("batch", [1, 4, "N"])
def test_neither_workers_nor_batches_change_a_number(tmp_path: Path, workers: int | None, batch: int | str) -> None:
    scene = Scene(tmp_path)
    for index in range(7):
        scene.add(30 * index + 1, truths=[FOUND_XYWH_PX] if index % 3 else [ELSEWHERE_XYWH_PX])
    one = scene.measure(write_model(tmp_path / "1.onnx"), workers=1)
    other = scene.measure(write_model(tmp_path / "m.onnx", batch=batch), workers=workers)
    assert other.results[0].score.metrics == one.results[0].score.metrics
    assert ap50(one) is not None


@pytest.mark.parametrize(
    ("crowd", "expected", "counts"),
    [("ignore", 1.0, (1, 1, {})), ("drop", 1 / 2, (1, 0, {"crowds_dropped": 1})), ("keep", 1.0, (2, 0, {}))],
)
def test_a_detection_on_a_crowd(
    tmp_path: Path, model: Path, crowd: str, expected: float, counts: tuple[int, int, dict[str, int]]
) -> None:
    """The better detection lies on a crowd: nothing, a miss, or a hit."""
    scene = Scene(tmp_path)
    scene.add(255, truths=[], crowds=[FOUND_XYWH_PX])
    scene.add(128, truths=[FOUND_XYWH_PX])
    found = scene.measure(model, crowd=crowd)
    assert ap50(found) == pytest.approx(expected, abs=1e-15)
    assert (found.num_truths, found.num_crowds, found.ignored) == counts


@pytest.mark.parametrize(("protocol", "crowd"), [("coco", "ignore"), ("zoo-3", "keep"), ("zoo-4", "keep")])
def test_every_protocol_has_its_own_rule_for_crowds(scene: Scene, model: Path, protocol: str, crowd: str) -> None:
    assert scene.measure(model, protocol=protocol).options.crowd == crowd


def test_images_with_too_many_truths_are_left_out_and_counted(scene: Scene, model: Path) -> None:
    scene.add(255, truths=[ELSEWHERE_XYWH_PX] * 3)
    found = scene.measure(model, max_gt=2)
    assert (found.num_images, found.ignored) == (2, {"images_over_max_gt": 1})
    assert ap50(found) == pytest.approx(51 / 101, abs=1e-15)
    assert "  1 images with too many ground truths" in report_text(evaluation_report(found))


def test_categories_are_matched_by_name_and_the_others_counted(tmp_path: Path) -> None:
    """Category 5 is the model's class 0; its class 1 is not annotated, category 1 is not the model's."""
    names = replace(SPEC, class_names=("Dog",))
    scene = Scene(tmp_path, categories=[{"id": 1, "name": "person"}, {"id": 5, "name": "dog "}])
    scene.add(255, truths=[FOUND_XYWH_PX, ELSEWHERE_XYWH_PX])
    scene.annotations[0]["category_id"] = 5
    found = scene.measure(write_model(tmp_path / "dog.onnx", spec=names))
    assert found.class_names == ("dog ",)
    assert found.ignored == {"annotations_of_other_categories": 1}
    assert ap50(found) == pytest.approx(1.0, abs=1e-15)


def test_models_of_other_classes_are_refused(scene: Scene, tmp_path: Path) -> None:
    cat = write_model(tmp_path / "cat.onnx", spec=replace(SPEC, class_names=("cat",)))
    with pytest.raises(DataError, match=r"has the categories 'person', '.*cat\.onnx' finds 'cat'.*`classes`"):
        scene.measure(cat)


def test_models_of_different_classes_cannot_be_compared(scene: Scene, model: Path, tmp_path: Path) -> None:
    scene.categories.append({"id": 2, "name": "cat"})
    cat = write_model(tmp_path / "cat.onnx", spec=replace(SPEC, class_names=("cat",)))
    with pytest.raises(UsageError, match=r"only one of them finds 'person', 'cat'; evaluate them in two calls"):
        scene.measure([model, cat])


@pytest.mark.parametrize("orientation", [6, 1])
def test_the_annotated_size_decides_about_exif(tmp_path: Path, model: Path, orientation: int) -> None:
    """A photograph stored lying: its annotation has the upright size, so it is turned, and its person found."""
    scene = Scene(tmp_path)
    scene.add(255, truths=[FOUND_XYWH_PX], orientation=orientation)
    assert ap50(scene.measure(model)) == pytest.approx(1.0, abs=1e-15)


def test_a_photograph_of_another_size_is_left_out_and_told(scene: Scene, model: Path) -> None:
    scene.images[1]["width"] = 300
    found = scene.measure(model)
    assert found.ignored == {"images_of_another_size": 1}
    (problem,) = found.problems
    assert problem.message.startswith(
        f"image 2: '{scene.folder / '2.png'}' has 200 x 100 pixels, its annotation says 300 x 100: it was scaled or cut"
    )
    assert ap50(found) == pytest.approx(1.0, abs=1e-15)


def test_damaged_photographs_are_left_out_for_every_model_and_told_once(
    scene: Scene, model: Path, tmp_path: Path
) -> None:
    scene.add(255, truths=[ELSEWHERE_XYWH_PX]).write_bytes(b"no picture")
    found = scene.measure([model, write_model(tmp_path / "other.onnx")])
    assert found.ignored == {"unreadable_images": 1}
    assert len(found.problems) == 1
    assert found.problems[0].message.startswith(f"image 3: '{scene.folder / '3.png'}'")
    assert found.num_images == 2


def test_when_no_photograph_can_be_used_the_counts_are_told(scene: Scene, model: Path) -> None:
    for path in scene.folder.glob("*.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"leaves no image to evaluate: unreadable_images 2"):
        scene.measure(model)


def test_several_models_are_compared_with_the_first(scene: Scene, model: Path, tmp_path: Path) -> None:
    """The same detector under another name differs by nothing."""
    found = scene.measure([model, write_model(tmp_path / "twin.onnx")])
    assert [(one.index, one.metric) for one in found.comparisons] == [(1, "AP"), (1, "AP50")]
    for comparison in found.comparisons:
        assert (comparison.difference.value, comparison.difference.low, comparison.difference.high) == (0, 0, 0)
    assert "twin.onnx  equal  equal" in report_text(evaluation_report(found))


def test_the_zero_point_127_truncates_every_pixel_to_the_one_below(tmp_path: Path) -> None:
    minus_one_to_one = replace(SPEC, image=replace(SPEC.image, rescaling=Rescaling(1 / 127.5, -1.0)))
    table = truncation_table(minus_one_to_one, "m")
    assert table is not None
    assert table.tolist() == [0, *range(255)]
    quantised = [int(np.trunc((p / 127.5 - 1) * 127.5 + 127)) for p in range(256)]
    assert table.tolist() == quantised
    assert truncation_table(SPEC, "m") is None

    scene = Scene(tmp_path)
    scene.add(1, truths=[FOUND_XYWH_PX])  # score 1 / 255, truncated to 0
    path = write_model(tmp_path / "m.onnx", spec=minus_one_to_one)
    assert ap50(scene.measure(path, protocol="zoo-3")) == 1.0
    assert ap50(scene.measure(path, protocol="zoo-3", truncate_input=True)) == 0.0


def test_truncation_is_refused_where_it_is_not_defined(scene: Scene, model: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="`truncate_input` belongs to the zoo's protocols"):
        scene.measure(model, truncate_input=True)
    odd = replace(SPEC, image=replace(SPEC.image, rescaling=Rescaling(0.017, -2.1)))
    with pytest.raises(UsageError, match=r"odd\.onnx' rescales them by 0\.017, -2\.1"):
        scene.measure(write_model(tmp_path / "odd.onnx", spec=odd), protocol="zoo-4", truncate_input=True)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"protocol": "voc"}, "--protocol must be one of coco, zoo-3, zoo-4, got 'voc'"),
        ({"crowd": "hide"}, "--crowd must be one of ignore, drop, keep, got 'hide'"),
        ({"max_gt": 0}, "`max_gt` must be at least 1, got 0"),
        ({"eval_iou": 0.4}, "`eval_iou` belongs to the zoo's protocols"),
        ({"eval_iou": 0.0, "protocol": "zoo-3"}, "`eval_iou` must be above 0 and at most 1, got 0.0"),
        ({"eval_iou": float("nan"), "protocol": "zoo-4"}, "`eval_iou` must be above 0 and at most 1, got nan"),
        ({"workers": 0}, "`workers` must lie in 1..64, got 0"),
        ({"score_threshold": 2.0}, "score threshold must lie in 0..1, got 2.0"),
    ],
)
def test_options_out_of_range_are_refused(scene: Scene, model: Path, options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError) as refused:
        scene.measure(model, **options)
    assert words in str(refused.value)


def test_an_evaluation_of_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="name at least one model to evaluate"):
        evaluate([], tmp_path, tmp_path / "none.json")


def test_frozen_thresholds_are_refused(scene: Scene, tmp_path: Path) -> None:
    frozen = write_model(tmp_path / "frozen.onnx", freeze=True)
    with pytest.raises(UsageError, match=r"frozen at 0\.5, 0\.001 is below it; .*without `freeze_thresholds`"):
        scene.measure(frozen)
    assert scene.measure(frozen, score_threshold=0.5).num_images == 2


def test_a_missing_model_is_told_before_any_work(scene: Scene, model: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot read model '.*gone\.onnx'"):
        scene.measure([model, scene.folder / "gone.onnx"], resume=scene.folder / "kept")
    assert not (scene.folder / "kept").exists()


@pytest.mark.parametrize("options", [{}, {"protocol": "zoo-4", "truncate_input": True}])
def test_every_model_is_checked_before_the_first_one_runs(
    scene: Scene, model: Path, tmp_path: Path, looked_at: list[int], options: dict[str, Any]
) -> None:
    """The second model is refused for its thresholds, its input or its classes: the first has looked at nothing."""
    odd = replace(SPEC, image=replace(SPEC.image, rescaling=Rescaling(0.017, -2.1)))
    scene.categories.append({"id": 2, "name": "cat"})
    seconds = [
        write_model(tmp_path / "odd.onnx", spec=odd, freeze=not options),
        write_model(tmp_path / "cat.onnx", spec=replace(SPEC, class_names=("cat",))),
        write_model(tmp_path / "fish.onnx", spec=replace(SPEC, class_names=("fish",))),
    ]
    for second in seconds:
        with pytest.raises((UsageError, DataError), match=second.name):
            scene.measure([model, second], resume=scene.folder / "kept", **options)
    assert looked_at == []
    assert not (scene.folder / "kept").exists()


class Stop(Exception):  # noqa: N818 - stands for Ctrl-C
    pass


def interrupt_after(count: int) -> Any:
    seen: list[int] = []

    def progress(done: int, whole: int) -> None:
        seen.append(done)
        assert whole == 4
        if sum(seen) == count:
            raise Stop

    return progress


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of the network had."""
    calls: list[int] = []
    detect = OnnxRuntime.detect

    def counted(self: OnnxRuntime, images: Any, thresholds: Any) -> Any:
        calls.append(len(images))
        return detect(self, images, thresholds)

    monkeypatch.setattr(OnnxRuntime, "detect", counted)
    return calls


@pytest.fixture
def four(tmp_path: Path) -> Scene:
    scene = Scene(tmp_path)
    for index in range(4):
        scene.add(60 * index + 10, 77, truths=[FOUND_XYWH_PX, ELSEWHERE_XYWH_PX])
    return scene


def test_an_interrupted_run_goes_on_where_it_stopped(four: Scene, model: Path, looked_at: list[int]) -> None:
    kept = four.folder / "kept.jsonl"
    with pytest.raises(Stop):
        four.measure(model, resume=kept, progress=interrupt_after(3))
    assert len(kept.read_bytes().splitlines()) == 1 + 3
    looked_at.clear()
    resumed = four.measure(model, resume=kept)
    assert (looked_at, resumed.results[0].resumed) == ([1], 3)
    assert resumed.results[0].score.metrics == four.measure(model).results[0].score.metrics
    assert len(kept.read_bytes().splitlines()) == 1 + 4


def test_half_a_line_of_a_killed_process_is_cut_off(four: Scene, model: Path, looked_at: list[int]) -> None:
    kept = four.folder / "kept.jsonl"
    whole = four.measure(model, resume=kept).results[0].score.metrics
    kept.write_bytes(kept.read_bytes()[:-20])
    looked_at.clear()
    assert four.measure(model, resume=kept).results[0].score.metrics == whole
    assert looked_at == [1]
    assert len(kept.read_bytes().splitlines()) == 1 + 4


def test_a_photograph_that_changed_is_looked_at_again(four: Scene, model: Path, looked_at: list[int]) -> None:
    kept = four.folder / "kept.jsonl"
    four.measure(model, resume=kept)
    (four.folder / "2.png").write_bytes((four.folder / "1.png").read_bytes())
    looked_at.clear()
    assert four.measure(model, resume=kept).results[0].resumed == 3
    assert looked_at == [1]


def test_other_options_and_models_take_nothing(four: Scene, model: Path, tmp_path: Path) -> None:
    kept = four.folder / "kept.jsonl"
    four.measure(model, resume=kept)
    assert four.measure(model, resume=kept, iou_threshold=0.6).results[0].resumed == 0
    other = write_model(tmp_path / "other.onnx", batch=2)
    assert four.measure(other, resume=kept).results[0].resumed == 0
    assert [result.resumed for result in four.measure([model, other], resume=kept).results] == [4, 4]
    assert four.measure(model, resume=kept, protocol="zoo-4", crowd="drop").results[0].resumed == 4


def test_a_file_of_an_earlier_version_goes_on_without_a_header(four: Scene, model: Path, looked_at: list[int]) -> None:
    kept = four.folder / "kept.jsonl"
    four.measure(model, resume=kept)
    earlier = kept.read_bytes().removeprefix(HEADER)
    kept.write_bytes(earlier[:-20])
    looked_at.clear()
    assert four.measure(model, resume=kept).results[0].resumed == 3
    assert looked_at == [1]
    assert kept.read_bytes() == earlier


def test_a_place_that_cannot_be_written_is_told_before_any_work(four: Scene, model: Path, looked_at: list[int]) -> None:
    with pytest.raises(OutputError, match=r"cannot write '.*kept'.*`resume`"):
        four.measure(model, resume=four.folder / "nowhere" / "kept")
    assert looked_at == []


def test_the_library_call_is_public(scene: Scene, model: Path) -> None:
    assert xdet.evaluate is evaluate
    assert isinstance(scene.measure(model), xdet.Evaluation)


@pytest.mark.shared
@pytest.mark.parametrize(("name", "expected"), [("192", 23.7), ("224", 29.3), ("224_per_tensor", 29.4), ("416", 32.6)])
def test_source_and_converted_model_reach_the_published_ap50(
    shared_dir: Path, tmp_path: Path, name: str, expected: float
) -> None:
    """On 150 photographs; the figures are those of the models' README, made with pycocotools."""
    source = shared_dir / "models" / f"tiny_yolo_v2_person_{name}_int8.tflite"
    xdet.convert(source, tmp_path / "m.onnx")
    folder = shared_dir / "data" / "coco_person"
    found = evaluate([source, tmp_path / "m.onnx"], folder / "images", folder / "annotations.json")
    litert, onnx = (result.score.metrics["AP50"] for result in found.results)
    assert litert == onnx
    assert litert is not None
    assert round(litert * 100, 1) == expected
    assert (found.num_images, found.num_truths, found.num_crowds) == (150, 606, 8)
