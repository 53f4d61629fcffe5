"""Layers of Keras sources: honest models stay inside their bound, a planted fault is named and cut out."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

from converters.spec import Thresholds
from tests.xdet.checking import faults, keras_faults
from tests.xdet.checking.layer_runs import layers_of
from xdet.bench.machine import describe_machine
from xdet.checking import layers
from xdet.checking.blame import with_layers
from xdet.checking.layers import write_layer_repro
from xdet.checking.page import Surroundings, check_to_html
from xdet.checking.pair import open_pair
from xdet.checking.report import check_text, check_to_json
from xdet.checking.result import CheckResult, LayerComparison, LayerDistance, LayerResult, PartVerdict
from xdet.checking.runtimes import OpenRuntimes
from xdet.errors import ModelError
from xdet.model.file import ModelFile, read_document, read_model_file
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.table import open_model

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from xdet.checking.pair import OpenedPair

LAYERS = ["bn1", "darknet", "pool1", "bn2", "relu6", "pointwise", "add", "conv2", "leaky", "pool2", "predictions"]
REWRITTEN = {"bn1": "wide stem"}  # of target cpu
POOLED = [name for name in LAYERS if name not in ("darknet", "leaky", "bn2")]  # ... of a quantised model


@pytest.fixture
def images(keras_models: Path) -> NDArray[np.uint8]:
    with np.load(keras_models / "layers.npz") as stored:
        return np.asarray(stored["images"])


@pytest.fixture
def stored_values(keras_models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keras' values from the file that holds them, instead of a process that computes them."""

    def look_up(_: object, shared: Sequence[Any], images: NDArray[np.uint8]) -> Any:
        with np.load(keras_models / "layers.npz") as stored:
            held = {layer.source.name: stored[layer.source.name] for layer in shared}
        return [{name: array[number : number + 1] for name, array in held.items()} for number in range(len(images))]

    monkeypatch.setattr(layers, "source_values", look_up)


def compared(model: bytes, folder: Path, images: NDArray[np.uint8]) -> LayerComparison:
    return layers_of(model, folder / "tf_keras.h5", images)


def real(found: LayerComparison) -> dict[str, LayerResult]:
    return {layer.tensor: layer for layer in found.layers if not layer.in_codes}


@pytest.mark.parametrize("way", ["float", "dynamic"])
@pytest.mark.usefixtures("stored_values")
def test_a_float_model_is_its_source_in_every_layer_but_for_rounding(
    way: str, keras_models: Path, images: NDArray[np.uint8]
) -> None:
    found = compared((keras_models / f"tf_keras.h5-{way}.onnx").read_bytes(), keras_models, images)
    assert found.unit == "of the largest value"
    assert list(real(found)) == LAYERS
    assert found.first_fault is None
    assert max(layer.accumulated.worst for layer in found.layers) < 1e-6  # float32 sums in another order
    for name in ("darknet", "pool1", "relu6", "leaky", "pool2"):
        assert real(found)[name].local.differing == 0  # they choose among numbers, or scale one of them
    layer = real(found)["conv2"]
    assert (layer.operator, layer.kernel, layer.local_bound, layer.kernel_bound) == ("Conv2D", None, 2e-5, None)
    assert layer.local.values == 2 * 8 * 8 * 16


@pytest.mark.parametrize(("way", "bound"), [("per-channel", 0), ("per-tensor", 0), ("cpu", 0), ("int8", 1)])
@pytest.mark.usefixtures("stored_values")
def test_of_a_quantised_model_the_cost_of_each_layer_is_told_and_its_kernels_are_judged(
    way: str, bound: int, keras_models: Path, images: NDArray[np.uint8]
) -> None:
    found = compared((keras_models / f"tf_keras.h5-{way}.onnx").read_bytes(), keras_models, images)
    assert found.unit == "LSB"
    rewritten = REWRITTEN if way == "cpu" else {}
    assert list(real(found)) == [name for name in POOLED if name not in rewritten]
    assert {name: found.absent[name] for name in rewritten} == rewritten
    assert found.absent["darknet"] == "pool before activation"
    assert found.first_fault is None
    for layer in real(found).values():
        assert layer.local_bound is None
        assert layer.kernel is not None
        assert layer.kernel.worst <= (1 if layer.tensor == "add" else bound)
        assert 0.1 < layer.local.mean < 1  # half a step at most by rounding, the rest by weights and inputs
    first = next(iter(real(found).values()))
    assert first.accumulated == first.local  # nothing lies in front of it


@pytest.mark.parametrize(
    ("fault", "layer"),
    [
        (keras_faults.padding_before, "conv2"),
        (keras_faults.slope, "leaky"),
        (keras_faults.pool_before, "pool2"),
        (keras_faults.colours_of_the_kernel, "bn1"),
        (keras_faults.one_bias, "conv2"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
@pytest.mark.usefixtures("stored_values")
def test_a_fault_shows_in_its_own_layer_and_drifts_on(
    fault: faults.Edit, layer: str, keras_models: Path, images: NDArray[np.uint8]
) -> None:
    sound = (keras_models / "tf_keras.h5-float.onnx").read_bytes()
    found = compared(faults.planted(sound, fault), keras_models, images)
    assert found.first_fault is not None
    assert found.first_fault.tensor == layer
    assert [name for name, other in real(found).items() if other.is_mistranslated] == [layer]
    behind = LAYERS[LAYERS.index(layer) + 1 :]
    assert any(real(found)[name].accumulated.worst > 1e-5 for name in behind)


@pytest.mark.usefixtures("stored_values")
def test_the_layer_at_fault_is_written_as_a_model_with_keras_values(
    keras_models: Path, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    model = tmp_path / "planted.onnx"
    sound = (keras_models / "tf_keras.h5-float.onnx").read_bytes()
    model.write_bytes(faults.planted(sound, keras_faults.padding_before))
    found = compared(model.read_bytes(), keras_models, images)
    assert found.first_fault is not None
    source = keras_models / "tf_keras.h5"
    written = write_layer_repro(
        tmp_path / "layer.onnx", found.first_fault, model=model, source=source, photographs=list(images)
    )
    session = onnxruntime.InferenceSession(written.model.read_bytes(), providers=["CPUExecutionProvider"])
    (given,), (computed,) = session.get_inputs(), session.get_outputs()
    assert (given.name, computed.name) == ("net/add/add", keras_faults.CONV2)
    with np.load(written.values) as values:
        (result,) = session.run(None, {given.name: values[given.name]})
        off = float(np.abs(result - values[computed.name]).max() / np.abs(values[computed.name]).max())
    assert off == pytest.approx(real(found)["conv2"].local.worst, rel=1e-3)
    assert written.compared == 8 * 8 * 16


def a_result(way: str) -> CheckResult:
    """A check that found nothing, to which layers are added."""
    parts = tuple(PartVerdict(name, "passed", "nothing") for name in ("static", "exact", "spread", "head"))
    return CheckResult(
        f"{way}.onnx", "0" * 64, "tf_keras.h5", "1" * 64, ("a", "b"), "of the largest value", Thresholds(), parts,
        (), (), None, None, None, (), (), (), {},
    )  # fmt: skip


def told(way: str, pair: OpenedPair, images: NDArray[np.uint8]) -> CheckResult:
    with OpenRuntimes(pair) as runtimes:
        return with_layers(a_result(way), pair, images, runtimes)


@pytest.mark.usefixtures("stored_values")
def test_text_json_and_page_tell_fractions_of_a_float_model(
    keras_models: Path, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    model = tmp_path / "float.onnx"
    sound = (keras_models / "tf_keras.h5-float.onnx").read_bytes()
    model.write_bytes(faults.planted(sound, keras_faults.slope))
    result = told("float", open_pair(model, keras_models / "tf_keras.h5"), images)
    (finding,) = result.findings
    assert (finding.part, finding.cause, finding.layer) == ("static", "layer", "leaky")
    assert "from the source's own values in front of it, the graph computes up to" in finding.message
    assert "of the largest value off in" in finding.message
    assert finding.message.endswith("allowed are 2e-05")
    text = check_text(result)
    assert "distances are fractions of the largest value of each layer" in text
    assert "LSB" not in text.split("layers compared")[1].split("onnxruntime")[0]
    found = json.loads(check_to_json(result))["layers"]
    assert (found["unit"], found["first_fault"]) == ("of the largest value", "leaky")
    assert set(found["layers"][0]["local"]) == {"differing", "values", "worst", "total"}
    assert found["layers"][0]["kernel"] is None
    page = check_to_html(result, list(images), Surroundings(describe_machine(), None, "xdet check"))
    assert "distances are fractions of the largest value of each layer" in page
    assert page.count('class="cell fault"') == 1
    assert ">kernel</text>" not in page


@pytest.mark.usefixtures("stored_values")
def test_text_json_and_page_tell_steps_of_a_quantised_model_and_that_they_are_no_fault(
    keras_models: Path, images: NDArray[np.uint8]
) -> None:
    pair = open_pair(keras_models / "tf_keras.h5-per-channel.onnx", keras_models / "tf_keras.h5")
    result = told("per-channel", pair, images)
    assert result.passed
    assert result.complete
    text = check_text(result)
    assert "local: what quantising that layer costs against Keras, measured, and no fault" in text
    assert "not judged" in text
    found = json.loads(check_to_json(result))["layers"]
    assert (found["unit"], found["first_fault"]) == ("LSB", None)
    assert found["layers"][0]["local_bound"] is None
    assert found["layers"][0]["kernel"]["worst_lsb"] == 0
    page = check_to_html(result, list(images), Surroundings(describe_machine(), None, "xdet check"))
    assert "local: what quantising that layer costs against Keras, measured, and no fault" in page
    assert ">kernel</text>" in page


def test_keras_runs_in_a_subprocess_and_gives_the_same_layers(keras_models: Path, images: NDArray[np.uint8]) -> None:
    file = read_model_file(keras_models / "tf_keras.h5")
    spec = read_document((keras_models / "tf_keras.h5-float.onnx").read_bytes(), file="m.onnx").spec
    names = ["conv2", "predictions"]
    with open_model(file, RuntimeChoices(spec=spec)) as keras:
        found = keras.tensors(images, names)
    with np.load(keras_models / "layers.npz") as stored:
        for name in names:
            # layers asked for together may be fused in another way than all of them
            np.testing.assert_allclose(found[name], stored[name], atol=1e-5)
    assert "tensorflow" not in sys.modules


def test_a_keras_file_that_would_run_code_is_refused_before_anything_runs(tmp_path: Path) -> None:
    pytest.importorskip("h5py", reason='needs pip install "xdet[keras]"')
    from tests.converters.sources.keras.stored_models import functional, h5_bytes, layer

    file = ModelFile(tmp_path / "m.h5", h5_bytes(functional(layer("Lambda", "evil"))), "h5")
    with pytest.raises(ModelError, match="layer 'evil' is of class 'Lambda'"):
        open_model(file)


def test_a_source_without_the_models_layers_is_told(
    keras_models: Path, images: NDArray[np.uint8], tmp_path: Path
) -> None:
    from tests.converters.sources.keras.stored_models import functional, h5_bytes, layer

    other = tmp_path / "other.h5"
    other.write_bytes(h5_bytes(functional(layer("Conv2D", "another"))))
    model = (keras_models / "tf_keras.h5-float.onnx").read_bytes()
    with pytest.raises(ModelError, match=r"other\.h5' shares no layer with the model"):
        layers_of(model, other, images)


def test_distances_add_up_and_no_number_is_infinitely_far() -> None:
    found = LayerDistance.of_reals(np.array([1.0, 3.0]), np.array([1.0, 2.0]), unit=2.0, differing=1)
    assert found == LayerDistance(differing=1, values=2, worst=0.5, total=0.5)
    broken = LayerDistance.of_reals(np.array([np.nan]), np.array([1.0]), unit=1.0, differing=1)
    assert broken.worst == np.inf
    both = found.joined(replace(broken, total=1.0))
    assert (both.differing, both.values, both.worst, both.mean) == (2, 3, np.inf, 0.5)
