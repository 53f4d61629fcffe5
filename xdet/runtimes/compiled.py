"""A finished model on back ends that take a graph of constants: one set of outputs, one batch, own thresholds.

Before -> after: the file -> a copy with constant thresholds, a batch of 1 where it is free, and the values asked for as
outputs -> a program. The first program shows boxes and raw head, so that one compilation serves both; of others the
last is kept. Numeric effect: none on the graph as the standard reads it.
"""

from __future__ import annotations

import abc
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from converters._ir import ir
from converters.graph import cut_graph, infer_shapes
from converters.spec import DETECTION_OUTPUTS, IMAGE, THRESHOLD_INPUTS
from converters.spec.contract import OTHER_RUNTIMES
from xdet.errors import import_extra
from xdet.model.graph import load_onnx, model_from_proto
from xdet.model.wire import freeze_thresholds
from xdet.runtimes.base import require_release
from xdet.runtimes.finished import FinishedModelRuntime, Outputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from xdet.model.file import ModelFile
    from xdet.runtimes.base import RuntimeChoices

    Program = Callable[[NDArray[np.uint8]], Sequence[NDArray[Any]]]


class CompiledRuntime(FinishedModelRuntime):
    """A finished model that is compiled for a set of outputs; for one thread at a time.

    Subclasses give ``_program`` and the constants.

    Raises:
        MissingExtraError: the back end is not installed.
        RuntimeUnavailableError: it is older than ``OTHER_RUNTIMES`` says.
    """

    EXTRA: ClassVar[str]  # of xdet, which installs it; its name in OTHER_RUNTIMES, too
    MODULE: ClassVar[str]  # to import
    WHY: ClassVar[str]  # older ones will not do

    def __init__(self, model: ModelFile, choices: RuntimeChoices) -> None:
        self._package = import_extra(self.MODULE, self.TITLE, self.EXTRA)
        self.release = self._release()
        require_release(self.TITLE, self.release, OTHER_RUNTIMES[self.EXTRA], extra=self.EXTRA, why=self.WHY)
        super().__init__(model, choices.name)
        constants = model.data
        if self.spec.gives_boxes and not self.document.freeze_thresholds:
            constants = freeze_thresholds(constants, self.document, self.spec.thresholds)
        self.threads = choices.threads
        self._whole = model_from_proto(load_onnx(constants, model.file), model.file)
        self._require_outputs([str(value.name) for value in self._whole.graph.outputs])
        self.batch = _fixed_batch(self._whole.graph)
        self._programs: dict[tuple[str, ...], Program] = {}
        boxes = DETECTION_OUTPUTS if self.spec.gives_boxes else ()
        # a decoder alone has its raw outputs as inputs
        self._showing((*boxes, *(name for name in self._raw_names if name in self._value_names)))

    def _release(self) -> str:
        return str(self._package.__version__)

    @abc.abstractmethod
    def _program(self, model: ir.Model, names: tuple[str, ...]) -> Program:
        """Compile: a function from uint8 ``(batch, height, width, 3)`` to the model's outputs, which are ``names``."""

    def _compute(self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> Outputs:
        shown = self._showing(tuple(names))
        with self._border("failed while running it"):
            arrays = dict(zip(shown, self._programs[shown](np.ascontiguousarray(feeds[IMAGE])), strict=True))
        return [np.array(arrays[name]) for name in names]

    def _showing(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The outputs of a program that shows ``names``, compiled where none does yet."""
        for compiled in self._programs:
            if set(names) <= set(compiled):
                return compiled
        values = {value.name: value for node in self._whole.graph for value in node.outputs}
        shown = [values[name] for name in names]
        if any(value.shape is None for value in shown):  # what the file leaves to the runtime
            infer_shapes(self._whole)
        model = ir.Model(cut_graph(self._whole.graph, shown), ir_version=self._whole.ir_version)
        with self._border("cannot compile it"):
            program = self._program(model, names)
        self._programs = {**dict(list(self._programs.items())[:1]), names: program}
        return names

    def _free(self) -> None:
        self._programs = {}


def as_file(model: ir.Model) -> bytes:
    """The model as an ONNX file's bytes."""
    return bytes(ir.to_proto(model).SerializeToString())


def _fixed_batch(graph: ir.Graph) -> int:
    """The images per call; a free number becomes 1, wherever the graph tells it, in place."""
    (image,) = [value for value in graph.inputs if value.name not in THRESHOLD_INPUTS]
    free = image.shape[0]  # type: ignore[index]  # stated
    if isinstance(free, int):
        return free
    for value in (*graph.inputs, *(value for node in graph for value in node.outputs)):
        if value.shape is not None:
            value.shape = ir.Shape([1 if size == free else size for size in value.shape])
    return 1
