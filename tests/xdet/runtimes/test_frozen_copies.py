"""Thresholds that a provider ignores become constants of a copy; what it obeys is asked of the model itself."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from converters.spec import METADATA_KEY, THRESHOLD_INPUTS, ModelDocument, Thresholds
from tests.xdet.finished_models import finished_model
from xdet.errors import ModelError, UsageError
from xdet.model.file import read_document
from xdet.model.wire import freeze_thresholds, read_metadata
from xdet.runtimes import onnxruntime
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.onnxruntime import OnnxRuntime, obeys_fed_thresholds, open_onnxruntime
from xdet.runtimes.ort_session import CPU, OrtSession, SessionChoices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

ASKED = [Thresholds(score, iou) for score in (0.02, 0.05, 0.3) for iou in (0.3, 0.5, 0.99)]
FIELDS = ("num_detections", "boxes_xyxy", "scores", "classes", "anchors")


class Other(OrtSession):
    """The CPU's kernels under another provider's name, which obeys thresholds."""

    def __init__(self, model: bytes, *, file: str, choices: SessionChoices) -> None:
        super().__init__(model, file=file, choices=replace(choices, provider=CPU))
        self.choices = replace(choices, provider="OtherExecutionProvider")


class Ignoring(Other):
    """... which ignores them, as ONNX Runtime's OpenVINO provider does."""

    ignored: tuple[str, ...] = THRESHOLD_INPUTS

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        return super().run(outputs, {n: array for n, array in feeds.items() if n not in self.ignored})


class IgnoringScore(Ignoring):
    ignored = THRESHOLD_INPUTS[:1]


class IgnoringIou(Ignoring):
    ignored = THRESHOLD_INPUTS[1:]


class Refusing(Other):
    """... which fails where thresholds are fed, as ONNX Runtime Web does."""

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        if set(feeds) & set(THRESHOLD_INPUTS):
            raise ModelError("invalid input name")
        return super().run(outputs, feeds)


@pytest.fixture(scope="module")
def model(embedded_tflite: Path) -> bytes:
    low = SourceOptions(score_threshold=0.05, iou_threshold=0.5)
    return convert_to_bytes(embedded_tflite, ConvertOptions(source=low)).model


@pytest.fixture(scope="module")
def noise() -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (2, 224, 224, 3), np.uint8)


def opened(kind: type[OrtSession], model: bytes) -> OnnxRuntime:
    session = kind(model, file="m.onnx", choices=SessionChoices(threads=1))
    return OnnxRuntime(session, read_document(model, file="m.onnx"))


def test_a_frozen_copy_differs_in_thresholds_inputs_and_document_alone(model: bytes) -> None:
    document = read_document(model, file="m.onnx")
    frozen = freeze_thresholds(model, document, Thresholds(0.001, 0.4))
    told = ModelDocument.from_json(read_metadata(frozen)[METADATA_KEY])
    assert told.freeze_thresholds
    assert (told.spec.thresholds.score, told.spec.thresholds.iou) == (0.001, 0.4)
    expected = onnx.load_from_string(model)
    (image,) = [value for value in expected.graph.input if value.name not in THRESHOLD_INPUTS]
    del expected.graph.input[:]
    expected.graph.input.append(image)
    for tensor in expected.graph.initializer:
        if tensor.name in THRESHOLD_INPUTS:
            value = 0.001 if tensor.name == "score_threshold" else 0.4
            tensor.CopyFrom(onnx.numpy_helper.from_array(np.array(value, np.float32), tensor.name))
    onnx.helper.set_model_props(expected, {METADATA_KEY: told.to_json()})
    found = onnx.load_from_string(frozen)
    onnx.checker.check_model(found)
    onnx.helper.set_model_props(found, read_metadata(frozen))
    assert found == expected


def test_a_frozen_copy_finds_what_fed_thresholds_find(model: bytes, noise: NDArray[np.uint8]) -> None:
    document = read_document(model, file="m.onnx")
    for asked in ASKED:
        frozen = freeze_thresholds(model, document, asked)
        with opened(OrtSession, model) as fed, opened(OrtSession, frozen) as constant:
            assert not constant.capabilities.thresholds
            assert_equal(constant, fed, noise, asked)


@pytest.mark.parametrize("kind", [Other, Ignoring, IgnoringScore, IgnoringIou, Refusing])
def test_the_model_itself_tells_whether_a_provider_obeys(
    kind: type[OrtSession], model: bytes, noise: NDArray[np.uint8]
) -> None:
    session = kind(model, file="m.onnx", choices=SessionChoices(threads=1))
    assert obeys_fed_thresholds(session, noise[:1]) is (kind is Other)


@pytest.mark.parametrize("kind", [Other, Ignoring, IgnoringScore, IgnoringIou, Refusing])
def test_boxes_are_those_of_the_thresholds_asked_for_whatever_the_provider_ignores(
    kind: type[OrtSession], model: bytes, noise: NDArray[np.uint8]
) -> None:
    with opened(OrtSession, model) as cpu, opened(kind, model) as other:
        assert other.capabilities.thresholds
        counts = {assert_equal(other, cpu, noise, asked) for asked in ASKED}
        assert len(counts) > 3


def test_copies_are_made_for_thresholds_that_are_ignored_and_the_last_three_are_kept(
    model: bytes, noise: NDArray[np.uint8]
) -> None:
    with opened(Other, model) as obeying, opened(Ignoring, model) as ignoring:
        for asked in (Thresholds(0.05, 0.5), *ASKED[:2], ASKED[0]):
            obeying.detect(noise, asked)
            ignoring.detect(noise, asked)
        assert obeying._others == {}
        kept = dict(ignoring._others)
        assert list(kept) == [(0.02, 0.5), (0.02, 0.3)]  # the file's own pair needs no copy
        for asked in (ASKED[5], ASKED[8]):
            ignoring.detect(noise, asked)
        assert list(ignoring._others) == [(0.02, 0.3), (0.05, 0.99), (ASKED[8].score, ASKED[8].iou)]
        assert ignoring._others[0.02, 0.3] is kept[0.02, 0.3]
    for asked in (ASKED[5], ASKED[1]):  # one that was open, and one that was not
        with pytest.raises(UsageError, match="was closed; open it again"):
            ignoring.detect(noise, asked)


def test_the_cpu_is_not_asked(model: bytes, noise: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> bool:
        raise AssertionError("a run that nobody needs")

    monkeypatch.setattr(onnxruntime, "obeys_fed_thresholds", asked)
    with open_onnxruntime(model, file="m.onnx", choices=RuntimeChoices(threads=1)) as runtime:
        assert runtime.capabilities.thresholds
        assert int(runtime.detect(noise[:1], Thresholds(0.02)).num_detections[0]) > 5


def test_a_file_whose_thresholds_are_frozen_refuses_others_on_every_provider() -> None:
    with opened(Ignoring, finished_model(freeze=True)) as runtime:
        assert not runtime.capabilities.thresholds
        with pytest.raises(UsageError, match=r"frozen at 0\.5, 0\.1 is below it"):
            runtime.detect(np.zeros((1, 2, 2, 3), np.uint8), Thresholds(0.1, 0.5, 4))


def assert_equal(found: OnnxRuntime, expected: OnnxRuntime, images: NDArray[np.uint8], asked: Thresholds) -> int:
    """Both find the same; how many boxes."""
    ours, theirs = found.detect(images, asked), expected.detect(images, asked)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    return int(ours.num_detections.sum())
