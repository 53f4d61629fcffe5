"""The scan lets Keras' own layers pass and names everything else, before anything is loaded."""

from __future__ import annotations

from typing import Any

import pytest

from converters.errors import SourceFileError, UnsupportedModelError
from converters.sources.keras.scan import KerasLayer, require_harmless
from converters.sources.keras.stored import read_keras
from tests.converters.sources.keras.stored_models import functional, h5_bytes, keras_zip, layer

CONV = layer("Conv2D", "conv", activation="linear", kernel_initializer={"class_name": "GlorotUniform", "config": {}})
MARSHALLED = {"class_name": "__lambda__", "config": {"value": "4wEAAAAAAAAA", "defaults": None, "closure": None}}


def keras_3(kind: str, name: str, **extra: Any) -> dict[str, Any]:
    return {**layer(kind, name), "module": "keras.layers", "registered_name": None, **extra}


def test_the_layers_of_a_harmless_model_are_listed_with_those_of_nested_models() -> None:
    inner = {**functional(layer("ReLU", "relu6", max_value=6.0)), "name": "backbone"}
    layers = require_harmless(functional(CONV, inner), "m.h5")
    assert layers == (
        *(KerasLayer("image", "InputLayer"), KerasLayer("conv", "Conv2D")),
        *(KerasLayer("image", "InputLayer"), KerasLayer("relu6", "ReLU")),
    )


def test_a_sequential_model_of_old_keras_is_a_plain_list() -> None:
    assert require_harmless({"class_name": "Sequential", "config": [CONV]}, "m.h5") == (KerasLayer("conv", "Conv2D"),)


def test_training_settings_are_not_looked_at_because_they_are_never_loaded() -> None:
    config = functional(CONV, compile_config={"loss": {"class_name": "function", "config": "my_loss"}})
    assert len(require_harmless(config, "m.keras")) == 2


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        pytest.param(
            layer("Lambda", "evil", function=["4wEAAAAA", None, None]),
            r"layer 'evil' is of class 'Lambda' \(code of its own\)",
            id="Lambda",
        ),
        pytest.param(
            layer("TFOpLambda", "op", function="io.write_file"),
            "layer 'op' is of class 'TFOpLambda'",
            id="an operation by name",
        ),
        pytest.param(layer("MyBlock", "block"), "layer 'block' is of class 'MyBlock'", id="custom class"),
        pytest.param(
            keras_3("Conv2D", "c", registered_name="pkg>Conv2D"),
            "layer 'c' is the custom object 'pkg>Conv2D'",
            id="registered name",
        ),
        pytest.param(keras_3("Conv2D", "c", module="os"), "layer 'c' comes from module 'os'", id="module"),
        pytest.param(
            layer("Activation", "a", activation=MARSHALLED),
            "the activation of layer 'a' is of class '__lambda__'",
            id="marshalled activation",
        ),
        pytest.param(
            layer("Activation", "a", activation="my_act"),
            "layer 'a' has the activation 'my_act'",
            id="unknown activation",
        ),
        pytest.param(
            layer(
                "Conv2D",
                "c",
                kernel_initializer={"class_name": "function", "config": "os.system", "module": "builtins"},
            ),
            r"a part of layer 'c' is of class 'function' \(code of its own\)",
            id="a function as initialiser",
        ),
        pytest.param(
            layer("TimeDistributed", "t", layer=CONV), "layer 't' is of class 'TimeDistributed'", id="a wrapper"
        ),
        pytest.param(
            {**functional(layer("Lambda", "deep")), "name": "backbone"},
            "layer 'deep' is of class 'Lambda'",
            id="in a nested model",
        ),
        pytest.param(
            {**CONV, "inbound_nodes": [[["x", 0, 0, {"fn": MARSHALLED}]]]},
            "a part of layer 'conv' is of class '__lambda__'",
            id="in a call's arguments",
        ),
        pytest.param(
            {**functional(CONV), "name": "b", "compile_config": {"loss": MARSHALLED}},
            "a part of layer 'b' is of class '__lambda__'",
            id="training settings of a nested model, which are loaded",
        ),
        pytest.param(
            {**CONV, "class_name": ["Conv2D"]}, r"layer 'conv' is of class \['Conv2D'\]", id="a class that is no text"
        ),
        pytest.param("Conv2D", "layer 1 of the model is no JSON object", id="no object"),
        pytest.param(
            layer("Conv2D", "half", dtype="float16"),
            "layer 'half' computes in 'float16', expected float32",
            id="float16",
        ),
        pytest.param(
            layer("Conv2D", "mixed", dtype={"class_name": "DTypePolicy", "config": {"name": "mixed_float16"}}),
            "layer 'mixed' computes in 'mixed_float16'",
            id="mixed precision",
        ),
    ],
)
def test_what_could_run_code_is_refused_by_its_layers_name(stored: Any, message: str) -> None:
    with pytest.raises(UnsupportedModelError, match=rf"m\.h5: refused before loading: .*{message}"):
        read_keras(h5_bytes(functional(stored)), "m.h5")


def test_everything_that_is_refused_stands_in_one_message() -> None:
    config = functional(layer("Lambda", "one"), layer("MyBlock", "two"), keras_3("Conv2D", "three", module="evil"))
    with pytest.raises(UnsupportedModelError, match=r"'one'.*'two'.*'three'.*Code from a model file is never run"):
        read_keras(keras_zip(config), "m.keras")


def test_nesting_beyond_any_network_is_refused() -> None:
    value: Any = 0
    for _ in range(600):
        value = {"a": value}
    with pytest.raises(UnsupportedModelError, match="nested deeper than 100 levels"):
        require_harmless(functional(layer("Conv2D", "c", deep=value)), "m.h5")


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="the model has no list of layers"):
        require_harmless({"class_name": "Functional", "config": {}}, "m.h5")


def test_a_file_with_weights_only_says_how_to_save_the_whole_model() -> None:
    with pytest.raises(SourceFileError, match=r"m\.h5: holds weights only .*model\.save\('model\.h5'\)"):
        read_keras(h5_bytes(None), "m.h5")


@pytest.mark.parametrize(("version", "legacy"), [("2.8.0", True), ("3.9.0", False)])
def test_the_keras_that_wrote_a_file_decides_which_one_loads_it(version: str, legacy: bool) -> None:  # noqa: FBT001 - a parameter
    read = read_keras(h5_bytes(functional(CONV), version=version), "m.h5")
    assert (read.version, read.is_legacy, read.input_shape) == (version, legacy, (None, 8, 8, 3))


def test_a_model_whose_input_has_no_shape_is_refused() -> None:
    with pytest.raises(SourceFileError, match="no layer states the shape of the input"):
        read_keras(h5_bytes({"class_name": "Sequential", "config": [CONV]}), "m.h5")
