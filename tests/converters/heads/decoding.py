"""Models of heads alone, on the runtimes at hand, and raw outputs of every shape and value for them."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from converters.graph import IR_VERSION, GraphWriter, infer_shapes, keep_static_shapes
from converters.heads.base import BatchDetections
from converters.heads.nms_nodes import add_head
from converters.heads.ssd import Ssd
from converters.opset import stamp_opset
from converters.spec import DetectorSpec, ImageInput, Rescaling, Thresholds, contract_io

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from converters.heads.base import Head

Float32 = NDArray[np.float32]
Decoded = tuple[Float32, Float32]
Arrays = dict[str, NDArray[Any]]

ROUNDING = 4e-7  # values up to 1 after exp (at most 2 units in the last place off) and up to six float32 operations
OUTPUTS = ("num_detections", "detection_boxes", "detection_scores", "detection_classes", "detection_anchors")


def spec_of(head: Head, thresholds: Thresholds | None = None, **more: Any) -> DetectorSpec:
    """A detector with this head; class names are made up."""
    image = ImageInput(64, 64, Rescaling(1 / 255, 0.0))
    names = tuple(f"class {index}" for index in range(head.num_classes))
    return DetectorSpec(image, head, names, thresholds or Thresholds(), **more)


def raw_inputs(writer: GraphWriter, head: Head, batch: int | str) -> list[ir.Value]:
    """The raw outputs as inputs of a graph."""
    return [writer.input(raw.value_name, ir.DataType.FLOAT, [batch, *raw.shape]) for raw in head.raw_outputs()]


def serialised(writer: GraphWriter, batch: int | str, more_outputs: Mapping[str, list[int | str]]) -> bytes:
    """A checked model; ``more_outputs`` are float32 values inside that become outputs, too, with their shapes."""
    model = ir.Model(writer.graph, ir_version=IR_VERSION)
    infer_shapes(model)
    stamp_opset(model, None)
    keep_static_shapes(model, batch)
    proto = ir.to_proto(model)
    for name, shape in more_outputs.items():
        proto.graph.output.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    onnx.checker.check_model(proto, full_check=True)
    return bytes(proto.SerializeToString(deterministic=True))


def decoded_values(writer: GraphWriter, head: Head, batch: int | str) -> dict[str, list[int | str]]:
    """Write a head's nodes; names and shapes of its boxes and scores."""
    boxes, scores = head.decode_nodes(writer, raw_inputs(writer, head, batch))
    return {str(boxes.name): [batch, head.num_boxes, 4], str(scores.name): [batch, head.num_boxes, head.num_classes]}


@functools.cache
def decoder(head: Head, batch: int | str = "N") -> bytes:
    """A model of a head's nodes alone: raw outputs in, boxes and scores out."""
    writer = GraphWriter("head")
    return serialised(writer, batch, decoded_values(writer, head, batch))


@functools.cache
def detector(spec: DetectorSpec, batch: int | str = 1, *, frozen: bool = True, decoded: bool = False) -> bytes:
    """A model of a head and its tail; ``decoded`` makes its boxes and scores outputs, too, behind all others."""
    assert spec.head is not None
    writer = GraphWriter("detector")
    promised = contract_io(spec, batch, freeze_thresholds=frozen)[1]
    add_head(writer, raw_inputs(writer, spec.head, batch), spec, promised, freeze_thresholds=frozen)
    inner = decoded_values(GraphWriter("names"), spec.head, batch) if decoded else {}
    return serialised(writer, batch, inner)


def feeds_of(head: Head, outputs: Sequence[Float32]) -> Arrays:
    return dict(zip((raw.value_name for raw in head.raw_outputs()), outputs, strict=True))


@functools.cache
def session(model: bytes) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # overridable initialisers draw a warning each
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run_onnxruntime(model: bytes, feeds: Arrays) -> Arrays:
    names = [output.name for output in session(model).get_outputs()]
    return dict(zip(names, session(model).run(names, feeds), strict=True))


@functools.cache
def evaluator(model: bytes) -> ReferenceEvaluator:
    return ReferenceEvaluator(onnx.load_from_string(model))


def run_reference(model: bytes, feeds: Arrays) -> Arrays:
    with np.errstate(over="ignore"):  # exp of huge logits is infinity by design
        results: list[Any] = list(evaluator(model).run(None, feeds))
    return dict(zip(evaluator(model).output_names, results, strict=True))


@functools.cache
def compiled(model: bytes) -> Any:
    openvino = pytest.importorskip("openvino", reason='needs pip install "xdet[openvino]"')
    core = openvino.Core()
    return core.compile_model(core.read_model(model), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})


def run_openvino(model: bytes, feeds: Arrays) -> Arrays:
    results = compiled(model)(feeds)
    return {output.get_any_name(): results[output] for output in compiled(model).outputs}


RUNTIMES: dict[str, Callable[[bytes, Arrays], Arrays]] = {
    "onnxruntime": run_onnxruntime,
    "reference": run_reference,
    "openvino": run_openvino,
}


def decode_nodes(
    head: Head, outputs: Sequence[Float32], *, runtime: str = "onnxruntime", batch: int | str = "N"
) -> Decoded:
    """Boxes and scores that a head's nodes give."""
    boxes, scores = RUNTIMES[runtime](decoder(head, batch), feeds_of(head, outputs)).values()
    return boxes, scores


def decode_twice(head: Head, *outputs: Float32) -> tuple[Decoded, Decoded]:
    """Boxes and scores in numpy, and of the nodes."""
    return head.decode(outputs), decode_nodes(head, outputs)


def as_batch(outputs: Arrays) -> BatchDetections:
    return BatchDetections(*(outputs[name] for name in OUTPUTS))


def assert_equal_rows(actual: BatchDetections, expected: BatchDetections, *, atol: float = 0) -> None:
    for name in ("num_detections", "anchors", "classes"):
        np.testing.assert_array_equal(getattr(actual, name), getattr(expected, name), err_msg=name)
    for name in ("scores", "boxes_xyxy"):
        np.testing.assert_allclose(getattr(actual, name), getattr(expected, name), rtol=0, atol=atol, err_msg=name)


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


def lattice_outputs(head: Head, batch: int, *, step: float, limit: int, seed: int = 1) -> list[Float32]:
    """Raw outputs of few distinct numbers, as int8 makes them: ties everywhere."""
    rng = np.random.default_rng(seed)
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
