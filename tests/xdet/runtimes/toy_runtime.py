"""A runtime as a newcomer would write it: its module, to which a row of the table leads (``test_toy_runtime``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdet.model.contract import read_document
from xdet.model.wire import FLOAT, with_outputs
from xdet.runtimes.finished import FinishedModelRuntime, Outputs
from xdet.runtimes.ort_session import OrtSession, SessionChoices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from xdet.model.file import ModelFile
    from xdet.runtimes.processors import RuntimeChoices


class ToyRuntime(FinishedModelRuntime):
    """A finished model on a back end that opens it anew for every question."""

    def __init__(self, model: ModelFile) -> None:
        document = read_document(model.data, file=model.file)
        super().__init__(model.data, file=model.file, document=document, batch=1)

    @property
    def name(self) -> str:
        return "toy:wood"

    def _compute(self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Outputs:
        model = with_outputs(self._model, [(name, FLOAT) for name in names if name == "head"])
        session = OrtSession(model, file=self.file, choices=SessionChoices(threads=1))
        return session.run(list(names), feeds)

    def _free(self) -> None:
        pass


def open_model(model: ModelFile, choices: RuntimeChoices) -> ToyRuntime:  # noqa: ARG001 - as every module
    return ToyRuntime(model)


def providers() -> tuple[str, ...]:
    return ("wood",)
