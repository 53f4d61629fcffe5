"""A finished model on ONNX Runtime: what its metadata promises is checked against its graph, then it runs."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.files import FINISHED
from converters.spec import (
    DETECTION_OUTPUTS,
    IMAGE,
    THRESHOLD_INPUTS,
    ContractTensor,
    ModelDocument,
    Thresholds,
    contract_io,
)
from xdet.errors import ModelError
from xdet.model.file import ModelFile, read_document
from xdet.model.wire import freeze_thresholds
from xdet.runtimes.base import RuntimeChoices, threads_per_network
from xdet.runtimes.finished import FinishedModelRuntime, showing
from xdet.runtimes.ort_session import (
    CPU,
    EXACT_KERNELS,
    OrtSession,
    SessionChoices,
    TensorInfo,
    available_providers,
    inexact_codes,
    resolve_provider,
    short_name,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from xdet.runtimes.finished import Outputs

UNFUSED = "onnxruntime-unfused"
OTHER_SESSIONS = 3  # kept beside the main one, the last ones used: for the head, for layers, for other thresholds
DEFAULTS = RuntimeChoices()


class OnnxRuntime(FinishedModelRuntime):
    """A finished model, open on one execution provider; may be used from several threads.

    Thresholds are fed. A provider that ignores fed ones, which ``obeys_fed_thresholds`` finds out when they are first
    needed, runs copies of the model in which they are constants. ``session`` has the model itself.
    """

    def __init__(self, session: OrtSession, document: ModelDocument) -> None:
        _require_contract(session, document)
        choices, model = session.choices, ModelFile(Path(session.file), session.model, FINISHED)
        kind = "onnxruntime" if choices.fuse else UNFUSED
        named = RuntimeChoices(
            kind, short_name(choices.provider), provider_options=choices.provider_options, device=choices.device
        )
        super().__init__(model, named.name, document=document, batch=session.inputs[0].shape[0])
        exact = choices.provider == CPU and choices.fuse and document.activations in EXACT_KERNELS
        self.capabilities = replace(self.capabilities, exact=exact)
        if choices.provider == CPU:  # other providers are not all made for several threads
            self.turns = nullcontext()
        self.session = session
        self._outputs = frozenset(output.name for output in session.outputs)
        self._others: dict[tuple[str, ...] | tuple[float, float], OrtSession] = {}
        self._opening = Lock()

    def _boxes(self, images: NDArray[np.uint8], thresholds: Thresholds) -> Outputs:
        """As others do; a provider that ignores fed thresholds gets a copy of the model in which they are constants."""
        if not self._feeds_thresholds or self._obeys:
            return super()._boxes(images, thresholds)
        return self._frozen_at(thresholds).run(DETECTION_OUTPUTS, {IMAGE: images})

    def _compute(self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Outputs:
        """Values that the model does not show by itself open a second session, which does."""
        return self._showing(tuple(names)).run(names, feeds)

    def _free(self) -> None:
        for session in (self.session, *self._others.values()):
            session.close()

    @cached_property
    def _obeys(self) -> bool:
        """Whether fed thresholds are obeyed: by the CPU provider in every release that is tested; others are asked."""
        if self.session.choices.provider == CPU:
            return True
        image = self.spec.image
        noise = np.random.default_rng(0).integers(0, 256, (self.batch or 1, *image.shape), np.uint8)
        return obeys_fed_thresholds(self.session, image.as_fed(noise))

    def _frozen_at(self, thresholds: Thresholds) -> OrtSession:
        """A session whose thresholds are constants."""
        own, pair = self.spec.thresholds, (thresholds.score, thresholds.iou)
        if pair == (own.score, own.iou):
            return self.session
        constants = replace(own, score=thresholds.score, iou=thresholds.iou)
        return self._other(pair, lambda: freeze_thresholds(self.session.model, self.document, constants))

    def _showing(self, names: tuple[str, ...]) -> OrtSession:
        """A session whose outputs include ``names``."""
        if self._outputs.issuperset(names):
            return self.session
        hidden = tuple(sorted(set(names) - self._outputs))
        return self._other(hidden, lambda: showing(self.session.model, hidden))

    def _other(self, key: tuple[str, ...] | tuple[float, float], copy: Callable[[], bytes]) -> OrtSession:
        """A session of a copy of the model, opened unless it is among the last ones used."""
        with self._opening:
            session = self._others.pop(key, None) or self.session.reopen(copy())
            kept = list(self._others.items())[1 - OTHER_SESSIONS :]
            self._others = {**dict(kept), key: session}
            return session


def obeys_fed_thresholds(session: OrtSession, image: NDArray[np.uint8]) -> bool:
    """Whether boxes follow the thresholds that are fed: the same picture, at extremes of each of the two.

    No score exceeds 1, every one exceeds 0; at IoU 0 no two boxes of a class may touch, at 1 all may lie on each other.
    The model itself is asked, since the answer for one graph says nothing of another: OpenVINO's provider obeys in a
    tiny graph, whose suppression it leaves to the CPU, and ignores thresholds where it takes all nodes. Where the
    picture does not tell, the answer is no, which costs a session and never a result.
    The model ends in boxes and has threshold inputs.
    """
    count, anchors = DETECTION_OUTPUTS[0], DETECTION_OUTPUTS[-1]

    def boxes_at(score: float, iou: float) -> list[NDArray[np.int32]]:
        fed = {n: np.asarray(v, np.float32) for n, v in zip(THRESHOLD_INPUTS, (score, iou), strict=True)}
        return session.run((count, anchors), {IMAGE: image, **fed})

    try:
        every, nothing, disjoint = boxes_at(0.0, 1.0), boxes_at(1.0, 1.0), boxes_at(0.0, 0.0)
    except ModelError:  # it refuses them
        return False
    follows_score = bool((every[0] > 0).all() and (nothing[0] == 0).all())
    return follows_score and not np.array_equal(every[1], disjoint[1])


def open_model(model: ModelFile, choices: RuntimeChoices) -> OnnxRuntime:
    """Open a finished model."""
    return open_onnxruntime(model.data, file=model.file, choices=choices)


def providers(_: str) -> tuple[str, ...]:
    """Short names of the execution providers here."""
    return tuple(provider.short for provider in available_providers())


def open_onnxruntime(
    model: bytes,
    *,
    file: str,
    choices: RuntimeChoices = DEFAULTS,
    optimized_path: str | None = None,
    profile_prefix: str | None = None,
) -> OnnxRuntime:
    """Open a finished model.

    Args:
        model: the ONNX file's bytes.
        file: its name, for messages.
        choices: the runtime ``onnxruntime-unfused`` leaves integer kernels out; ``provider`` is a short or full name,
            None the CPU; ``threads`` None is one per physical core, or the processors shared among several ``workers``.
        optimized_path: where to save the graph that it runs; ``session.placement`` tells where, then.
        profile_prefix: see ``SessionChoices``.

    Raises:
        ModelError: damaged, or not a finished model of xdet.
        RuntimeUnavailableError: the provider or the device is not there.
        UsageError: options for the CPU provider, which has none.
    """
    provider = resolve_provider(choices.provider)
    is_cpu = provider == CPU
    document = read_document(model, file=file)
    threads = choices.threads
    if threads is None and choices.workers > 1 and is_cpu:
        threads = threads_per_network(choices.workers)
    session_choices = SessionChoices(
        provider=provider,
        threads=threads,
        exact_for=inexact_codes(document.activations, in_float=document.multiplies_in_float) if is_cpu else None,
        fuse=choices.runtime != UNFUSED,
        optimized_path=optimized_path,
        record_placement=optimized_path is not None,
        device=choices.device,
        provider_options=choices.provider_options,
        profile_prefix=profile_prefix,
    )
    return OnnxRuntime(OrtSession(model, file=file, choices=session_choices), document)


def _require_contract(session: OrtSession, document: ModelDocument) -> None:
    """Refuse a graph whose inputs and outputs are not those of the contract, naming every difference."""
    inputs, outputs = contract_io(document.spec, "N", freeze_thresholds=document.freeze_thresholds)
    faults = _differences(session.inputs, [tensor for tensor in inputs if not tensor.optional])
    faults += _differences(session.outputs, outputs)
    optional = [tensor.name for tensor in inputs if tensor.optional]
    cause = "was it edited? Convert the source again with xdet convert"
    if set(session.optional_inputs) != set(optional):
        faults.append(f"optional inputs: expected {optional}, found {list(session.optional_inputs)}")
        cause = (
            "simplifiers (onnxsim, onnxslim) fold optional inputs into constants: convert the source again with "
            "--freeze-thresholds before one"
        )
    if faults:
        raise ModelError(f"'{session.file}' does not keep what its metadata says: {'; '.join(faults)}; {cause}")


def _differences(actual: Sequence[TensorInfo], expected: Sequence[ContractTensor]) -> list[str]:
    """What differs, one sentence per tensor; the first dimension (the batch) is free."""
    by_name = {tensor.name: tensor for tensor in actual}
    promised = {tensor.name for tensor in expected}
    faults = [f"{name!r} is not of the contract" for name in by_name if name not in promised]
    for tensor in expected:
        own = by_name.get(tensor.name)
        if own is None:
            faults.append(f"{tensor.name!r} is missing")
        elif (own.dtype, len(own.shape), own.shape[1:]) != (tensor.dtype, len(tensor.shape), _sizes(tensor)[1:]):
            faults.append(f"{tensor.name!r}: expected {_described(tensor)}, found {_described(own)}")
    return faults


def _sizes(tensor: ContractTensor) -> tuple[int | None, ...]:
    """Its shape as sessions tell it: None where a size is dynamic."""
    return tuple(size if isinstance(size, int) else None for size in tensor.shape)


def _described(tensor: TensorInfo | ContractTensor) -> str:
    sizes = (str(size) if isinstance(size, int) else "N" for size in tensor.shape)
    return f"{tensor.dtype} [{', '.join(sizes)}]"
