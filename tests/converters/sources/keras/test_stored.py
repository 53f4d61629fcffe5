"""Layers, connections and arrays of stored Keras networks, read as data."""

from __future__ import annotations

import copy
import io
import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converters.errors import SourceFileError, UnsupportedModelError
from converters.sources.keras.stored import KerasNetwork, read_keras, read_network
from tests.converters.sources.keras.stored_models import functional, h5_bytes, h5py, keras_zip, layer

if TYPE_CHECKING:
    from collections.abc import Mapping

KERNEL = np.arange(27, dtype=np.float32).reshape(1, 1, 3, 9)


def connected(*layers: Mapping[str, Any]) -> dict[str, Any]:
    """A functional model in which every layer reads the one before it, as Keras 2 stores it."""
    model = functional(*(copy.deepcopy(dict(each)) for each in layers))
    stored = model["config"]["layers"]
    for before, after in itertools.pairwise(stored):
        after["inbound_nodes"] = [[[before["name"], 0, 0, {}]]]
    model["config"]["output_layers"] = [[stored[-1]["name"], 0, 0]]
    return model


def write_kernel(file: Any) -> None:
    group = file["model_weights"].create_group("conv").create_group("conv")
    group.create_dataset("kernel:0", data=KERNEL)
    group.create_dataset("bias:0", data=np.ones(9, np.float32))


def network(config: Mapping[str, Any], write: Any = write_kernel) -> KerasNetwork:
    return read_network(read_keras(h5_bytes(config, write), "m.h5"))


def archive(config: Mapping[str, Any], arrays: Mapping[str, Mapping[str, Any]], **names: str) -> KerasNetwork:
    """A ``.keras`` file with numbered arrays; ``names`` is what groups say of their layers."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for group, stored in arrays.items():
            variables = file.create_group(f"layers/{group}/vars")
            if group in names:
                variables.attrs["name"] = names[group]
            for number, array in stored.items():
                variables.create_dataset(number, data=array)
    data = keras_zip(config, {"model.weights.h5": buffer.getvalue()})
    return read_network(read_keras(data, "m.keras"))


def test_an_h5_file_gives_layers_with_their_arrays_by_role_and_what_they_read() -> None:
    found = network(connected(layer("Conv2D", "conv"), layer("ReLU", "relu")))
    assert [(one.name, one.kind, one.inputs) for one in found.layers] == [
        ("image", "InputLayer", ()),
        ("conv", "Conv2D", ("image",)),
        ("relu", "ReLU", ("conv",)),
    ]
    assert (found.output, found.input_shape) == ("relu", (None, 8, 8, 3))
    np.testing.assert_array_equal(found.layers[1].weights["kernel"], KERNEL)
    assert set(found.layers[1].weights) == {"kernel", "bias"}


def test_connections_of_keras_3_are_read_by_their_history() -> None:
    config = connected(layer("Conv2D", "conv", use_bias=False), layer("Add", "add"))
    for stored, names in zip(config["config"]["layers"], ([], ["image"], ["image", "conv"]), strict=True):
        tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [name, 0, 0]}} for name in names]
        stored["inbound_nodes"] = [{"args": [tensors], "kwargs": {"mask": None}}] if names else []
    config["config"]["output_layers"] = ["add", 0, 0]
    found = archive(config, {"conv2d": {"0": KERNEL}}, conv2d="conv")
    assert [one.inputs for one in found.layers] == [(), ("image",), ("image", "conv")]
    assert found.output == "add"


def test_numbered_arrays_are_named_by_class_and_order() -> None:
    config = connected(
        layer("Conv2D", "first", use_bias=False),
        layer("Conv2D", "second"),
        layer("BatchNormalization", "bn", scale=False),
    )
    vector = np.ones(9, np.float32)
    found = archive(
        config,
        {
            "conv2d": {"0": KERNEL},
            "conv2d_1": {"0": KERNEL + 1, "1": vector},
            "batch_normalization": {"0": vector * 2, "1": vector * 3, "2": vector * 4},
        },
    )
    by_name = {one.name: one.weights for one in found.layers}
    assert float(by_name["second"]["kernel"][0, 0, 0, 0]) == 1.0
    assert {role: float(array[0]) for role, array in by_name["bn"].items()} == {
        "beta": 2.0,
        "moving_mean": 3.0,
        "moving_variance": 4.0,
    }


@pytest.mark.parametrize(
    ("arrays", "names"),
    [
        pytest.param({"conv2d": {"0": KERNEL, "1": KERNEL, "2": KERNEL}}, {}, id="too many"),
        pytest.param({"conv2d": {}}, {}, id="none"),
        pytest.param({}, {}, id="no group"),
        pytest.param({"conv2d": {"0": KERNEL, "1": KERNEL}}, {"conv2d": "other"}, id="another layer's"),
    ],
)
def test_numbered_arrays_that_do_not_fit_their_layer_are_refused(
    arrays: dict[str, dict[str, Any]], names: dict[str, str]
) -> None:
    with pytest.raises(SourceFileError, match=r"m\.keras: layer 'conv' \(Conv2D\): expected its 2 arrays, found"):
        archive(connected(layer("Conv2D", "conv")), arrays, **names)


def test_a_sequential_model_is_a_chain_and_needs_no_input_layer() -> None:
    first = layer("Conv2D", "conv", batch_input_shape=[None, 8, 8, 3])
    config = {"class_name": "Sequential", "config": {"name": "net", "layers": [first, layer("ReLU", "relu")]}}
    found = network(config)
    assert [(one.name, one.inputs) for one in found.layers] == [("conv", ()), ("relu", ("conv",))]
    assert found.output == "relu"


def twice(config: dict[str, Any]) -> None:
    config["config"]["layers"][1]["inbound_nodes"] *= 2


def nested(config: dict[str, Any]) -> None:
    config["config"]["layers"].append({**functional(), "name": "inner"})


def two_outputs(config: dict[str, Any]) -> None:
    config["config"]["output_layers"] = [["conv", 0, 0], ["image", 0, 0]]


def from_nowhere(config: dict[str, Any]) -> None:
    config["config"]["layers"][1]["inbound_nodes"] = [[["elsewhere", 0, 0, {}]]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(twice, "layer 'conv' is used 2 times, expected once", id="used twice"),
        pytest.param(nested, "'inner' is a model inside the model", id="a nested model"),
        pytest.param(two_outputs, "2 outputs, expected one", id="two outputs"),
        pytest.param(from_nowhere, "'conv' reads 'elsewhere', which no layer before it computes", id="a gap"),
    ],
)
def test_networks_that_are_no_chain_of_single_uses_are_refused_by_name(change: Any, message: str) -> None:
    config = connected(layer("Conv2D", "conv"))
    change(config)
    with pytest.raises(UnsupportedModelError, match=rf"m\.h5: {message}"):
        network(config)


def doubled(file: Any) -> None:
    write_kernel(file)
    file["model_weights/conv"].create_dataset("kernel:0", data=KERNEL)


def in_itself(file: Any) -> None:
    group = file["model_weights"].create_group("conv")
    group["again"] = group


def broken(file: Any) -> None:
    file["model_weights"].create_group("conv").create_dataset("kernel:0", data=np.array([np.nan], np.float32))


@pytest.mark.parametrize(
    ("write", "message"),
    [
        pytest.param(doubled, "layer 'conv' holds two arrays 'kernel'", id="twice the same"),
        pytest.param(in_itself, "layer 'conv' holds more than 100 groups", id="a group in itself"),
        pytest.param(broken, "'kernel' of layer 'conv': holds numbers that are not finite", id="not finite"),
    ],
)
def test_arrays_that_keras_does_not_write_are_refused(write: Any, message: str) -> None:
    with pytest.raises(SourceFileError, match=rf"m\.h5: {message}"):
        network(connected(layer("Conv2D", "conv")), write)


def array_for_group(name: str) -> Any:
    def write(file: Any) -> None:
        if name in file:
            del file[name]
        file.create_dataset(name, data=KERNEL)

    return write


@pytest.mark.parametrize("name", ["model_weights", "model_weights/conv"])
def test_an_array_where_an_h5_file_has_a_group_is_refused(name: str) -> None:
    with pytest.raises(SourceFileError, match=r"is an array, expected a group of arrays; save the model again"):
        network(connected(layer("Conv2D", "conv")), array_for_group(name))


@pytest.mark.parametrize("name", ["layers", "layers/conv2d", "layers/conv2d/vars"])
def test_an_array_where_an_archive_has_a_group_is_refused(name: str) -> None:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        file.create_dataset(name, data=KERNEL)
    data = keras_zip(connected(layer("Conv2D", "conv")), {"model.weights.h5": buffer.getvalue()})
    with pytest.raises(SourceFileError, match=r"is an array, expected a group of arrays; save the model again"):
        read_network(read_keras(data, "m.keras"))
