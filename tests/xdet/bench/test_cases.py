"""Which cases a call means, and the network without its head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest

import xdet
from tests.xdet.finished_models import finished_model, head_model
from xdet.bench.cases import case_coverage, plan_cases
from xdet.errors import ModelError, UsageError
from xdet.model.surgery import cut_at_head
from xdet.runtimes.onnxruntime import open_onnxruntime

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def converted(embedded_tflite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bench") / "person.onnx"
    xdet.convert(embedded_tflite, path)
    return path


def names(models: list[Path], runtimes: str | None, threads: tuple[int, ...]) -> list[tuple[str, str, int | None]]:
    return [
        (case.model.path.suffix, f"{case.choices.runtime}:{case.choices.provider}", case.choices.threads)
        for case in plan_cases(models, runtimes, threads)
    ]


def test_cases_are_models_times_fitting_runtimes_times_threads(embedded_tflite: Path, converted: Path) -> None:
    assert names([embedded_tflite, converted], None, (1, 2)) == [
        (".tflite", "litert:xnnpack", 1),
        (".tflite", "litert:xnnpack", 2),
        (".onnx", "onnxruntime:cpu", 1),
        (".onnx", "onnxruntime:cpu", 2),
    ]
    assert names([converted, embedded_tflite], "litert:builtin,litert,onnxruntime", (1,)) == [
        (".onnx", "onnxruntime:cpu", 1),
        (".tflite", "litert:builtin", 1),
        (".tflite", "litert:xnnpack", 1),
    ]


def test_runtimes_and_models_that_do_not_meet_are_refused(embedded_tflite: Path, converted: Path) -> None:
    with pytest.raises(UsageError, match=r"no model here runs on 'onnxruntime'.*leave it out"):
        plan_cases([embedded_tflite], "litert,onnxruntime", (1,))
    with pytest.raises(UsageError, match=r"person\.onnx' is a file of format onnx.*add onnxruntime"):
        plan_cases([embedded_tflite, converted], "litert", (1,))
    with pytest.raises(UsageError, match="at least one model"):
        plan_cases([], None, (1,))


def test_a_picture_is_no_model(sample_pictures: list[Path]) -> None:
    with pytest.raises(ModelError, match="of no known format"):
        plan_cases([sample_pictures[0]], None, (1,))


def test_the_cut_network_gives_the_head_bit_for_bit_and_nothing_else(converted: Path) -> None:
    data = converted.read_bytes()
    cut = cut_at_head(data, "person.onnx")
    model = onnx.load_from_string(cut)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["image"]
    assert [value.name for value in model.graph.output] == ["head"]
    assert not {"NonMaxSuppression", "TopK", "Exp"} & {node.op_type for node in model.graph.node}
    image = np.random.default_rng(5).integers(0, 256, (1, 224, 224, 3), np.uint8)
    with open_onnxruntime(data, file="whole.onnx") as whole, open_onnxruntime(cut, file="cut.onnx") as network:
        assert not network.spec.gives_boxes
        assert np.array_equal(whole.head(image), network.head(image))


def test_a_model_that_ends_at_its_head_is_its_own_network() -> None:
    model = head_model()
    assert cut_at_head(model, "raw.onnx") is model


@pytest.mark.parametrize(
    ("model", "word"),
    [
        (finished_model(metadata=None), "not one that xdet made"),
        (finished_model(), "has no value named 'head'"),
        (finished_model()[:-4], "damaged"),
    ],
    ids=["foreign", "headless", "damaged"],
)
def test_what_cannot_be_cut_is_told(model: bytes, word: str) -> None:
    with pytest.raises(ModelError, match=rf"'m\.onnx'.*{word}"):
        cut_at_head(model, "m.onnx")


def test_every_case_has_its_coverage(embedded_tflite: Path, converted: Path, tmp_path: Path) -> None:
    sized = tmp_path / "sized.onnx"
    xdet.convert(embedded_tflite, sized, any_size=True)
    for case in plan_cases([embedded_tflite, converted, sized], None, (1,)):
        found = case_coverage(case)
        assert found is not None
        assert (found.macs_total, found.share) == (773_864_448, 1.0)
