"""A finished model holds standard operators and all its data: what can run for ever or leave the file is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import pytest
from onnx import TensorProto, helper

from tests.xdet.finished_models import finished_model
from xdet.errors import ModelError
from xdet.model.file import MOST_NAMED, read_document, require_contract_graph

if TYPE_CHECKING:
    from collections.abc import Callable


def body(name: str = "body") -> onnx.GraphProto:
    return helper.make_graph([helper.make_node("Identity", ["a"], ["b"])], name, [], [])


def external(name: str) -> onnx.TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    return tensor


def add_node(name: str, domain: str = "", **attributes: Any) -> Callable[[onnx.ModelProto], None]:
    return lambda model: model.graph.node.append(helper.make_node(name, ["image"], ["x"], domain=domain, **attributes))


def add_function(model: onnx.ModelProto) -> None:
    node = helper.make_node("Identity", ["a"], ["b"])
    opsets = [helper.make_opsetid("", 19)]
    model.functions.append(helper.make_function("own", "Twice", ["a"], ["b"], [node], opsets))


def add_external(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(external("weights"))


def add_external_sparse(model: onnx.ModelProto) -> None:
    model.graph.sparse_initializer.add(values=external("weights"))


def add_training(model: onnx.ModelProto) -> None:
    model.training_info.add().algorithm.CopyFrom(body())


def edited(edit: Callable[[onnx.ModelProto], None]) -> bytes:
    model = onnx.load_from_string(finished_model())
    edit(model)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("edit", "fault"),
    [
        (add_node("Loop", body=body()), "operator 'Loop', which runs a graph of its own"),
        (add_node("If", then_branch=body(), else_branch=body()), "operator 'If', which runs"),
        (add_node("Scan", body=body(), num_scan_inputs=1), "operator 'Scan', which runs"),
        (add_node("SequenceMap", body=body()), "operator 'SequenceMap', which runs"),
        (add_node("Loop"), "operator 'Loop', which runs"),
        (add_node("Identity", body=body()), "operator 'Identity', which runs"),
        (add_node("Identity", bodies=[body()]), "operator 'Identity', which runs"),
        (add_node("FusedConv", "com.microsoft"), "operator 'FusedConv' of the domain 'com.microsoft'"),
        (add_node("Constant", value=external("")), "external data of operator 'Constant'"),
        (add_external, "external data of an initialiser"),
        (add_external_sparse, "external data of a sparse initialiser"),
        (add_function, "functions"),
        (add_training, "a training graph"),
    ],
)
def test_what_the_contract_excludes_is_refused_before_anything_runs(
    edit: Callable[[onnx.ModelProto], None], fault: str
) -> None:
    with pytest.raises(ModelError, match=rf"'m\.onnx' holds what no finished model may: {fault}"):
        read_document(edited(edit), file="m.onnx")


def test_a_sound_model_passes_and_its_standard_domain_has_two_names() -> None:
    require_contract_graph(finished_model(), "m.onnx")
    require_contract_graph(edited(add_node("Identity", "ai.onnx")), "m.onnx")


def test_a_second_graph_field_is_looked_through_too() -> None:
    """Protobuf merges a field that comes twice, so what stands behind the graph belongs to it."""
    more = onnx.ModelProto(graph=helper.make_graph([helper.make_node("Loop", [], ["x"])], "g", [], []))
    with pytest.raises(ModelError, match="operator 'Loop'"):
        require_contract_graph(finished_model() + more.SerializeToString(), "m.onnx")


def test_the_message_is_bounded() -> None:
    def add_many(model: onnx.ModelProto) -> None:
        for number in range(1000):
            model.graph.node.append(helper.make_node(f"Op{number}" + "x" * 9999, [], ["x"], domain="own"))

    with pytest.raises(ModelError) as refused:
        require_contract_graph(edited(add_many), "m.onnx")
    assert len(str(refused.value)) < MOST_NAMED * 200 + 500
