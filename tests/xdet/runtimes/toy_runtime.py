"""A runtime as a newcomer would write it: its module, to which a row of the table leads (``test_toy_runtime``)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xdet.runtimes.finished import FinishedModelRuntime, Outputs, showing
from xdet.runtimes.ort_session import OrtSession, SessionChoices

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices


class ToyRuntime(FinishedModelRuntime):
    """A finished model on a back end that opens it anew for every question."""

    def __init__(self, model: ModelFile, choices: RuntimeChoices) -> None:
        super().__init__(model, choices.name, batch=1)

    def _compute(self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Outputs:
        model = showing(self.model.data, [name for name in names if name == "head"])
        session = OrtSession(model, file=self.file, choices=SessionChoices(threads=1))
        return session.run(list(names), feeds)

    def _free(self) -> None:
        pass


def open_model(model: ModelFile, choices: RuntimeChoices) -> ToyRuntime:
    return ToyRuntime(model, choices)
