"""Runs a head's nodes on the runtimes at hand, and makes raw outputs of every shape and value for it."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx.reference import ReferenceEvaluator

from converters.graph import IR_VERSION, GraphWriter, infer_shapes
from converters.heads.ssd import Ssd
from converters.opset import stamp_opset

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from converters.heads.base import Head

    Float32 = NDArray[np.float32]
    Decoded = tuple[Float32, Float32]

ROUNDING = 4e-7  # values up to 1 after exp (at most 2 units in the last place off) and up to six float32 operations


@functools.cache
def decoder(head: Head, batch: int | str = "N") -> bytes:
    """A model of a head's nodes alone: raw outputs in, boxes and scores out."""
    writer = GraphWriter("head")
    values = [
        writer.input(f"raw_{index}", ir.DataType.FLOAT, [batch, *raw.shape])
        for index, raw in enumerate(head.raw_outputs())
    ]
    for value, size in zip(head.decode_nodes(writer, values), (4, head.num_classes), strict=True):
        value.type, value.shape = ir.TensorType(ir.DataType.FLOAT), ir.Shape([batch, head.num_boxes, size])
        writer.graph.outputs.append(value)
    model = ir.Model(writer.graph, ir_version=IR_VERSION)
    infer_shapes(model)
    stamp_opset(model, None)
    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString(deterministic=True))


@functools.cache
def session(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def feeds_of(outputs: Sequence[Float32]) -> dict[str, Float32]:
    return {f"raw_{index}": output for index, output in enumerate(outputs)}


def run_onnxruntime(model: bytes, outputs: Sequence[Float32]) -> Decoded:
    boxes, scores = session(model).run(None, feeds_of(outputs))
    return boxes, scores


@functools.cache
def evaluator(model: bytes) -> ReferenceEvaluator:
    return ReferenceEvaluator(onnx.load_from_string(model))


def run_reference(model: bytes, outputs: Sequence[Float32]) -> Decoded:
    with np.errstate(over="ignore"):  # exp of huge logits is infinity by design
        results: list[Any] = list(evaluator(model).run(None, feeds_of(outputs)))
    return results[0], results[1]


@functools.cache
def compiled(model: bytes) -> Any:
    openvino = pytest.importorskip("openvino", reason='needs pip install "xdet[openvino]"')
    core = openvino.Core()
    return core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def run_openvino(model: bytes, outputs: Sequence[Float32]) -> Decoded:
    results = compiled(model)(feeds_of(outputs))
    return results[0], results[1]


RUNTIMES: dict[str, Callable[[bytes, Sequence[Float32]], Decoded]] = {
    "onnxruntime": run_onnxruntime,
    "reference": run_reference,
    "openvino": run_openvino,
}


def random_outputs(head: Head, batch: int, *, spread: float = 2.0, seed: int = 0) -> list[Float32]:
    """Raw outputs of normally distributed numbers."""
    rng = np.random.default_rng(seed)
    return with_priors(head, [rng.normal(0, spread, (batch, *raw.shape)) for raw in head.raw_outputs()])


def with_priors(head: Head, outputs: Sequence[NDArray[Any]]) -> list[Float32]:
    """These outputs as float32; priors are what the head itself would make: no network computes them from a picture."""
    batch = len(outputs[0])
    own = head.encode(
        np.repeat(head.default_boxes()[None], batch, axis=0),
        np.zeros((batch, head.num_boxes, head.num_classes), np.float32),
    )
    made = [
        encoded if raw.name == "priors" else output.astype(np.float32)
        for raw, output, encoded in zip(head.raw_outputs(), outputs, own, strict=True)
    ]
    if isinstance(head, Ssd) and head.joined and head.priors is None:
        made[0][..., -4:] = own[0][..., -4:]
    return made


def lattice_outputs(head: Head, batch: int, *, step: float, limit: int) -> list[Float32]:
    """Raw outputs of few distinct numbers, as int8 makes them: ties everywhere."""
    rng = np.random.default_rng(1)
    codes = [rng.integers(-limit, limit + 1, (batch, *raw.shape)) for raw in head.raw_outputs()]
    return with_priors(head, [code * step for code in codes])


RAW_OUTPUTS: dict[str, Callable[[Head, int], list[Float32]]] = {
    "normal numbers": random_outputs,
    "probabilities": lambda head, batch: with_priors(head, [abs(o) for o in random_outputs(head, batch, spread=0.3)]),
    "a lattice": functools.partial(lattice_outputs, step=0.25, limit=16),
    "zeros": functools.partial(lattice_outputs, step=1.0, limit=0),
    "ones": lambda head, batch: with_priors(head, [np.ones_like(o) for o in random_outputs(head, batch)]),
    "numbers of 1e4": functools.partial(lattice_outputs, step=5000.0, limit=2),
    "numbers of 3e38": functools.partial(lattice_outputs, step=1.5e38, limit=2),
}


def assert_decoded_alike(actual: Decoded, expected: Decoded, *, reach: float = 1.0) -> None:
    """Boxes and scores of one shape that differ by no more than the rounding of ``exp``.

    ``reach`` is how many pictures away a centre can be: a corner in the picture is then a difference of such numbers.
    """
    for mine, theirs in zip(actual, expected, strict=True):
        assert mine.dtype == theirs.dtype == np.float32
        assert mine.shape == theirs.shape
        differ = mine != theirs  # infinite scores of absurd numbers are equal, or fail below
        off = np.abs(mine[differ] - theirs[differ]) / np.maximum(1, np.abs(theirs[differ]))
        np.testing.assert_array_less(off, ROUNDING * reach)
