"""A finished model on ONNX Runtime: what its metadata promises is checked against its graph, then it runs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.spec import METADATA_KEY, DetectorSpec, ModelDocument, Thresholds
from xdet.detections import BatchDetections
from xdet.errors import ModelError, RuntimeUnavailableError
from xdet.runtimes.base import Capabilities, require_images, require_thresholds
from xdet.runtimes.batches import above_score, first_rows, run_in_chunks
from xdet.runtimes.ort_session import EXACT_KERNELS, OrtSession, SessionChoices, TensorInfo
from xdet.runtimes.providers import CPU, resolve_provider
from xdet.runtimes.saturation import kernels_saturate

if TYPE_CHECKING:
    from numpy.typing import NDArray

IMAGE = "image"
THRESHOLDS = ("score_threshold", "iou_threshold")
DETECTIONS = (
    "num_detections",
    "detection_boxes",
    "detection_scores",
    "detection_classes",
    "detection_anchors",
)
HEAD = "head"


class OnnxRuntime:
    """A finished model, open on one execution provider; may be used from several threads.

    Attributes:
        document: all that the model's metadata says.
    """

    def __init__(self, session: OrtSession, document: ModelDocument, *, provider: str) -> None:
        _require_contract(session, document)
        self._session = session
        self._frozen = not set(THRESHOLDS) <= set(session.optional_inputs)
        self._provider = provider
        self.document = document

    @property
    def name(self) -> str:
        """``onnxruntime:`` and the execution provider."""
        return f"onnxruntime:{self._provider}"

    @property
    def file(self) -> str:
        """The model's name as messages give it."""
        return self._session.file

    @property
    def model(self) -> bytes:
        """The ONNX file's bytes."""
        return self._session.model

    @property
    def spec(self) -> DetectorSpec:
        """The detector that the model holds."""
        return self.document.spec

    @property
    def batch(self) -> int | None:
        """Images per call, or None for any number."""
        return self._session.inputs[0].shape[0]

    @property
    def capabilities(self) -> Capabilities:
        """Thresholds unless frozen, the head only of ``--head none``, exact on the CPU provider."""
        only_head = self.spec.head == "none"
        return Capabilities(
            thresholds=only_head or not self._frozen,
            max_detections=None if only_head else self.spec.thresholds.max_detections,
            head=only_head,
            exact=self._provider == CPU,
        )

    def detect(self, images: NDArray[np.uint8], thresholds: Thresholds) -> BatchDetections:
        """Find boxes in uint8 RGB images ``(N, height, width, 3)``; see ``Runtime.detect``."""
        require_images(images, self.spec)
        require_thresholds(thresholds, self)
        if self.spec.head == "none":
            from xdet.runtimes.numpy_head import decoder_for

            decode = decoder_for(self.spec, file=self.file)
            return decode(self.head(images), thresholds)
        feeds: dict[str, NDArray[Any]] = {}
        if not self._frozen:  # arrays without dimensions: ONNX Runtime refuses numpy scalars
            values = (thresholds.score, thresholds.iou)
            feeds = {n: np.asarray(value, np.float32) for n, value in zip(THRESHOLDS, values, strict=True)}
        outputs = run_in_chunks(
            images, self.batch, lambda chunk: self._session.run(DETECTIONS, {IMAGE: chunk, **feeds})
        )
        found = BatchDetections(*outputs)
        if self._frozen:
            found = above_score(found, thresholds.score)
        return first_rows(found, thresholds.max_detections)

    def head(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """The raw head, float32 ``(N, grid_h, grid_w, channels)``, of a model made with ``--head none``."""
        if self.spec.head != "none":
            raise RuntimeUnavailableError(
                f"'{self.file}' ends in boxes and does not show its raw head; "
                f"convert the source with --head none for a model that does"
            )
        require_images(images, self.spec)
        (head,) = run_in_chunks(images, self.batch, lambda chunk: self._session.run([HEAD], {IMAGE: chunk}))
        return head


def open_onnxruntime(
    model: bytes, *, file: str, provider: str | None = None, threads: int | None = None
) -> OnnxRuntime:
    """Open a finished model.

    Args:
        model: the ONNX file's bytes.
        file: its name, for messages.
        provider: short or full name of an execution provider; None is the CPU.
        threads: threads inside an operator; None is one per physical core.

    Raises:
        ModelError: damaged, or not a finished model of xdet.
        RuntimeUnavailableError: the provider is not there.
    """
    choices = SessionChoices(provider=resolve_provider(provider), threads=threads)
    session = OrtSession(model, file=file, choices=choices)
    document = _read_document(session)
    if document.activations in EXACT_KERNELS and kernels_saturate():
        session = OrtSession(model, file=file, choices=replace(choices, exact_for=document.activations))
    return OnnxRuntime(session, document, provider=choices.provider)


def _read_document(session: OrtSession) -> ModelDocument:
    text = session.metadata.get(METADATA_KEY)
    if text is None:
        raise ModelError(
            f"'{session.file}' is an ONNX model but not one that xdet made (metadata key {METADATA_KEY!r} is "
            f"missing); convert its TFLite or Keras source with xdet convert"
        )
    try:
        return ModelDocument.from_json(text)
    except ValueError as error:
        raise ModelError(
            f"'{session.file}': metadata key {METADATA_KEY!r} cannot be read: {error}; "
            f"convert the source again with this version of xdet"
        ) from error


def _require_contract(session: OrtSession, document: ModelDocument) -> None:
    """Refuse a graph whose inputs and outputs are not those of the contract, naming every difference."""
    spec = document.spec
    faults = _differences(
        session.inputs, (TensorInfo(IMAGE, "uint8", (None, spec.image.height, spec.image.width, 3)),)
    )
    faults += _differences(session.outputs, _expected_outputs(spec))
    expected = () if spec.head == "none" or document.freeze_thresholds else THRESHOLDS
    if set(session.optional_inputs) != set(expected):
        faults.append(f"optional inputs: expected {list(expected)}, found {list(session.optional_inputs)}")
    if faults:
        raise ModelError(
            f"'{session.file}' does not keep what its metadata says: {'; '.join(faults)}; "
            f"was it edited? Convert the source again with xdet convert"
        )


def _expected_outputs(spec: DetectorSpec) -> tuple[TensorInfo, ...]:
    if spec.head == "none":
        return (TensorInfo(HEAD, "float", (None, spec.grid_h, spec.grid_w, spec.head_channels)),)
    k = spec.thresholds.max_detections
    dtypes = ("int32", "float", "float", "int32", "int32")
    shapes: tuple[tuple[int | None, ...], ...] = ((None,), (None, k, 4), (None, k), (None, k), (None, k))
    return tuple(map(TensorInfo, DETECTIONS, dtypes, shapes))


def _differences(found: tuple[TensorInfo, ...], expected: tuple[TensorInfo, ...]) -> list[str]:
    """What differs, one sentence per tensor; the first dimension (the batch) is free."""
    by_name = {tensor.name: tensor for tensor in found}
    faults = [
        f"{tensor.name!r} is not of the contract"
        for tensor in found
        if tensor.name not in {e.name for e in expected}
    ]
    for want in expected:
        have = by_name.get(want.name)
        if have is None:
            faults.append(f"{want.name!r} is missing")
        elif (have.dtype, len(have.shape), have.shape[1:]) != (want.dtype, len(want.shape), want.shape[1:]):
            faults.append(f"{want.name!r}: expected {_described(want)}, found {_described(have)}")
    return faults


def _described(tensor: TensorInfo) -> str:
    return f"{tensor.dtype} [{', '.join('N' if size is None else str(size) for size in tensor.shape)}]"
