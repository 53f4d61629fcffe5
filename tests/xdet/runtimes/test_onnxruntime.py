"""A finished model runs as its metadata says; anything else is one clean error."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

from converters.spec import METADATA_KEY, Target, Thresholds
from tests.xdet.finished_models import RAW_HEAD, SIZE, SPEC, document, finished_model, head_model, red_image
from xdet.errors import ModelError, RuntimeUnavailableError, UsageError
from xdet.runtimes import ort_session
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.onnxruntime import OnnxRuntime, open_onnxruntime

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.heads.base import BatchDetections


def opened(model: bytes, *, threads: int | None = 1) -> OnnxRuntime:
    return open_onnxruntime(model, file="m.onnx", choices=RuntimeChoices(threads=threads))


def equal(a: BatchDetections, b: BatchDetections) -> bool:
    names = ("num_detections", "boxes_xyxy", "scores", "classes", "anchors")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in names)


def several(count: int) -> NDArray[np.uint8]:
    return np.concatenate([red_image(10 * i, 200, 130 + i, 250 - i) for i in range(count)])


def test_detecting_gives_the_five_outputs_best_score_first() -> None:
    found = opened(finished_model()).detect(red_image(10, 200, 130, 250), SPEC.thresholds)
    assert found.num_detections.tolist() == [3]
    assert found.anchors.tolist() == [[3, 1, 2, -1]]
    assert found.classes.tolist() == [[0, 0, 0, -1]]
    assert found.scores.tolist() == [[np.float32(v) / np.float32(255) for v in (250, 200, 130)] + [0.0]]
    assert found.boxes_xyxy[0, 2].tolist() == [0, 0, 0.5, 0.25]
    assert not found.boxes_xyxy[0, 3].any()


def test_the_runtime_names_its_provider_spec_and_capabilities() -> None:
    runtime = opened(finished_model())
    assert runtime.name == "onnxruntime:cpu"
    assert runtime.spec == SPEC
    assert runtime.capabilities.thresholds
    assert runtime.capabilities.exact
    assert runtime.document.source.name == "identity.tflite"


def test_thresholds_are_taken_at_run_time() -> None:
    runtime = opened(finished_model())
    image = red_image(10, 200, 130, 250)
    assert runtime.detect(image, replace(SPEC.thresholds, score=0.001)).num_detections.tolist() == [4]
    assert runtime.detect(image, replace(SPEC.thresholds, score=0.9, iou=0.1)).num_detections.tolist() == [1]


def test_a_frozen_model_filters_for_a_higher_score_as_a_free_one_would() -> None:
    image, higher = several(3), replace(SPEC.thresholds, score=0.7)
    frozen, free = opened(finished_model(freeze=True, batch="N")), opened(finished_model(batch="N"))
    assert not frozen.capabilities.thresholds
    assert equal(frozen.detect(image, higher), free.detect(image, higher))


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (replace(SPEC.thresholds, score=0.4), "score threshold frozen at 0.5, 0.4 is below"),
        (replace(SPEC.thresholds, iou=0.6), "IoU threshold frozen at 0.5, 0.6 was asked"),
        (replace(SPEC.thresholds, max_detections=5), "at most 4 detections per image, 5 were asked"),
    ],
    ids=["lower-score", "other-iou", "more-rows"],
)
def test_a_frozen_model_refuses_what_it_cannot_honour(asked: Thresholds, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        opened(finished_model(freeze=True)).detect(red_image(1, 2, 3, 4), asked)


def test_fewer_detections_are_the_best_rows() -> None:
    found = opened(finished_model()).detect(red_image(10, 200, 130, 250), replace(SPEC.thresholds, max_detections=2))
    assert found.num_detections.tolist() == [2]
    assert found.anchors.tolist() == [[3, 1]]


@pytest.mark.parametrize("batch", [1, 3, 4, "N"])
def test_any_number_of_images_runs_on_any_batch(batch: int | str) -> None:
    runtime, single = opened(finished_model(batch=batch)), opened(finished_model())
    images = several(7)
    found = runtime.detect(images, SPEC.thresholds)
    assert len(found.scores) == 7
    for i in range(7):
        alone = single.detect(images[i : i + 1], SPEC.thresholds)
        assert found.scores[i].tolist() == alone.scores[0].tolist()
        assert found.anchors[i].tolist() == alone.anchors[0].tolist()


@pytest.mark.parametrize(
    "images",
    [
        np.zeros((0, SIZE, SIZE, 3), np.uint8),
        np.zeros((SIZE, SIZE, 3), np.uint8),
        np.zeros((1, SIZE, SIZE + 1, 3), np.uint8),
        np.zeros((1, SIZE, SIZE, 3), np.float32),
    ],
    ids=["none", "no-batch-axis", "other-size", "float"],
)
def test_images_of_another_form_are_refused(images: NDArray[np.uint8]) -> None:
    with pytest.raises(UsageError, match=r"expected images as uint8 \(N, 2, 2, 3\)"):
        opened(finished_model()).detect(images, SPEC.thresholds)


@pytest.mark.parametrize("batch", [1, 2, "N"])
def test_a_raw_head_is_given_and_decoded_in_numpy(batch: int | str) -> None:
    runtime = opened(head_model(batch=batch))
    images = np.concatenate([red_image(0, 255, 51, 0)] * 3)
    head = runtime.head(images)
    assert head.shape == (3, SIZE, SIZE, 6)
    assert head.dtype == np.float32
    assert head[2, 0, 1].tolist() == [0, 0, 0, 0, 1, 0]
    found = runtime.detect(images, Thresholds(score=0.6, max_detections=3))
    assert found.anchors.tolist() == [[1, -1, -1]] * 3


def test_a_raw_head_without_anchors_cannot_detect() -> None:
    runtime = opened(head_model(spec=replace(RAW_HEAD, head=None)))
    with pytest.raises(ModelError, match="no anchors are known"):
        runtime.detect(red_image(1, 2, 3, 4), Thresholds())


def test_inner_values_are_shown_by_name_whatever_the_batch() -> None:
    runtime, images = opened(finished_model(batch=2)), several(3)
    shown = runtime.tensors(images, ["order", "flat_red", "order"])
    assert list(shown) == ["order", "flat_red"]
    assert shown["flat_red"].tolist() == [[10 * i, 200, 130 + i, 250 - i] for i in range(3)]
    assert shown["order"].tolist() == [[3, 1, 2, 0]] * 3


def test_a_value_that_the_graph_does_not_compute_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match=r"'m\.onnx' computes no value named 'nowhere', 'white'; the tensor map"):
        opened(finished_model()).tensors(red_image(1, 2, 3, 4), ["white", "scores", "nowhere"])


def test_at_most_three_sessions_are_kept_for_inner_values(monkeypatch: pytest.MonkeyPatch) -> None:
    created: list[int] = []
    create = ort_session._create

    def counting(model: bytes, choices: ort_session.SessionChoices) -> object:
        created.append(len(model))
        return create(model, choices)

    runtime, image = opened(finished_model()), red_image(1, 2, 3, 4)
    monkeypatch.setattr(ort_session, "_create", counting)
    for name in ("scores", "order", "real", "scores", "flat_red", "scores"):
        runtime.tensors(image, [name])
    assert len(created) == 4
    runtime.tensors(image, ["order"])
    assert len(created) == 5


def test_a_closed_runtime_says_so() -> None:
    with opened(finished_model()) as runtime:
        runtime.tensors(red_image(1, 2, 3, 4), ["scores"])
    runtime.close()
    for ask in (
        lambda: runtime.detect(red_image(1, 2, 3, 4), SPEC.thresholds),
        lambda: runtime.tensors(several(1), ["scores"]),
    ):
        with pytest.raises(UsageError, match=r"'m\.onnx' was closed; open it again"):
            ask()


def test_a_float_model_is_not_called_exact() -> None:
    runtime = opened(finished_model(metadata=document(activations="float32").to_json()))
    assert not runtime.capabilities.exact


def _foreign() -> bytes:
    model = onnx.load_from_string(finished_model(metadata=None))
    serialized: bytes = model.SerializeToString()
    return serialized


def _nothing_but_metadata() -> bytes:
    model = onnx.ModelProto(ir_version=9)
    onnx.helper.set_model_props(model, {METADATA_KEY: document().to_json()})
    serialized: bytes = model.SerializeToString()
    return serialized


def _output_renamed() -> bytes:
    model = onnx.load_from_string(finished_model())
    model.graph.output.pop()
    serialized: bytes = model.SerializeToString()
    return serialized


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (_foreign(), "not one that xdet made"),
        (finished_model(metadata="[]"), f"metadata key '{METADATA_KEY}' cannot be read"),
        (finished_model(metadata='{"contract":99}'), "contract version 99"),
        (finished_model(metadata=document(RAW_HEAD).to_json()), "'head' is missing"),
        (finished_model(metadata=document(freeze=True).to_json()), r"optional inputs: expected \[\]"),
        (
            finished_model(metadata=document(replace(SPEC, thresholds=Thresholds())).to_json()),
            r"'detection_boxes': expected float32 \[N, 100, 4\], found float32 \[1, 4, 4\]",
        ),
        (_output_renamed(), "'detection_anchors' is missing"),
        (finished_model()[:400], r"damaged one: field 7 ends at byte [\d,]+, the data has 400; see that"),
        (np.random.default_rng(0).bytes(4096), "is no ONNX file or a damaged one"),
        (b"\x08\x09", "not one that xdet made"),
        (b"\x20\x00\x00\x00ORTM" + bytes(200), "is no ONNX file or a damaged one"),
        (_nothing_but_metadata(), "ONNX Runtime cannot load it: No graph was found"),
    ],
    ids=[
        *("foreign", "no-document", "other-version", "other-head", "other-freezing", "other-rows", "output-gone"),
        *("truncated", "noise", "empty-protobuf", "ort-flatbuffer", "only-metadata"),
    ],
)
def test_a_file_that_is_no_finished_model_is_one_clean_error(
    model: bytes, message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ModelError, match=message) as caught:
        opened(model)
    assert "'m.onnx'" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("target", "advice"), [("cpu", "`target` portable"), ("portable", "a lower `opset`")])
def test_a_file_that_is_too_new_is_told_so_and_not_called_damaged(
    monkeypatch: pytest.MonkeyPatch, target: Target, advice: str
) -> None:
    told = replace(document(), target=target, oldest_runtimes={"onnxruntime": "1.24"})
    model = onnx.load_from_string(finished_model(metadata=told.to_json()))
    model.graph.node[0].op_type = "FromTheFuture"
    data: bytes = model.SerializeToString()
    monkeypatch.setattr(ort_session, "installed_release", lambda: "1.20.1")
    with pytest.raises(RuntimeUnavailableError) as caught:
        opened(data)
    assert str(caught.value) == (
        "'m.onnx' needs ONNX Runtime 1.24 or newer, found 1.20.1; install a newer onnxruntime, or convert the source "
        f"again with {advice}"
    )
    monkeypatch.setattr(ort_session, "installed_release", lambda: "1.24.0")
    with pytest.raises(ModelError, match=r"cannot load it.*FromTheFuture"):
        opened(data)


def test_opening_and_running_print_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    opened(finished_model()).detect(red_image(1, 2, 3, 4), SPEC.thresholds)
    assert capfd.readouterr() == ("", "")


def test_a_run_that_fails_is_a_model_error_and_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    session = ort_session.OrtSession(finished_model(), file="m.onnx", choices=ort_session.SessionChoices(threads=1))
    with pytest.raises(ModelError, match=r"'m\.onnx': ONNX Runtime failed while running it: Got invalid dimensions"):
        session.run(["num_detections"], {"image": np.zeros((1, 1, 1, 3), np.uint8)})
    assert capfd.readouterr() == ("", "")
