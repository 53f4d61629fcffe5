"""A source file before its own runtime gets it: verified to the last offset, and described.

LiteRT trusts much of what it is given, and a native crash ends the whole process. So the very bytes that will run are read
and checked by the converter's reader first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from xdet.errors import ModelError, UsageError

if TYPE_CHECKING:
    from converters.spec import DetectorSpec
    from converters.tflite.records import TfliteModel
    from xdet.runtimes.model_file import ModelFile

CONVOLUTIONS = frozenset({"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"})


@dataclass(frozen=True, slots=True)
class SourceModel:
    """What is known of a source file without running it.

    Attributes:
        spec: the detector, from the file and the sidecar beside it.
        integer: whether its convolutions compute on integers.
    """

    spec: DetectorSpec
    integer: bool


def describe_source(model: ModelFile) -> SourceModel:
    """Check and describe a TFLite file that is in memory.

    Raises:
        ModelError: damaged, or with operators whose operands do not fit.
        UsageError: its anchors or classes are stated nowhere, or contradict it.
    """
    from converters.description import settings
    from converters.errors import ConversionError, OptionError
    from converters.tflite.facts import facts_from_tflite
    from converters.tflite.reader import read_tflite
    from converters.tflite.signatures import require_sound

    try:
        records = read_tflite(model.data, model.file)
        require_sound(records)
        facts = facts_from_tflite(records)
        spec = settings.describe_source(model.path, facts, settings.SourceOptions()).spec
    except OptionError as error:
        raise UsageError(str(error)) from error
    except ConversionError as error:
        raise ModelError(str(error)) from error
    return SourceModel(spec, _is_integer(records))


def _is_integer(model: TfliteModel) -> bool:
    operands = [model.tensors[op.inputs[0]].dtype for op in model.operators if op.op in CONVOLUTIONS]
    return bool(operands) and all(dtype in ("int8", "uint8") for dtype in operands)
