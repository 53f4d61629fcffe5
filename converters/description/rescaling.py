"""Which real number a network sees of a pixel, and whether everybody agrees about it.

- uint8 input: the codes are the pixels, so the file itself fixes ``real = scale * (p - zero_point)``.
- int8 input: the codes are ``p - 128``, so ``real = scale * (p - 128 - zero_point)``.
- uint8 input without a quantisation: the network takes the pixels as numbers, ``real = p``.
- float32 input: the file says nothing; a zoo yaml or the sidecar must.

What is recorded for a quantised input is always the file's own mapping: its float32 scale, widened exactly,
and ``-zero_point * scale`` in double precision, so a sidecar that rounds differently changes no byte of the
result. A rescaling that somebody states is only compared: it may differ by one quantisation step anywhere in
0..255 (the zoo's ``1/127.5, -1`` became ``(0.0078431, 127)``, half a step off); beyond that it belongs to
another file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.errors import OptionError, SourceFileError, UnsupportedModelError
from converters.spec import Rescaling

if TYPE_CHECKING:
    from converters.description.facts import SourceFacts

_PIXEL_MINUS_CODE = {"uint8": 0, "int8": 128}


@dataclass(frozen=True, slots=True)
class StatedRescaling:
    """A rescaling somebody wrote down, and where: ``"sidecar 'm.xdet.json': rescaling"``."""

    value: Rescaling
    where: str


def resolve_rescaling(facts: SourceFacts, stated: StatedRescaling | None) -> Rescaling:
    """The pixel encoding of a source model (see the module's docstring).

    Raises:
        OptionError: a float input whose rescaling nobody states.
        SourceFileError: the stated rescaling contradicts the input's quantisation.
        UnsupportedModelError: the input has a dtype that cannot take pixels.
    """
    if facts.input_dtype == "float32":
        if stated is None:
            msg = (
                f"'{facts.file}' takes float pixels and does not say how they are scaled; give --config "
                "ZOO.yaml, or write a sidecar with "
                '{"rescaling": {"scale": 0.00392156862745098, "offset": 0.0}} for 1/255 '
                '({"scale": 0.00784313725490196, "offset": -1.0} for 1/127.5, -1)'
            )
            raise OptionError(msg)
        return stated.value
    own = rescaling_of_quantised_input(facts)
    if stated is not None and not _agree(stated.value, own):
        msg = (
            f"{stated.where}: {_describe(stated.value)}, but the quantised input of '{facts.file}' says "
            f"{_describe(own)}; remove that key, or use the settings that belong to this file"
        )
        raise SourceFileError(msg)
    return own


def rescaling_of_quantised_input(facts: SourceFacts) -> Rescaling:
    """The mapping an integer input fixes.

    Raises:
        UnsupportedModelError: the input is neither uint8 nor per-tensor int8.
    """
    shift, quant = _PIXEL_MINUS_CODE.get(facts.input_dtype), facts.input_quant
    if shift == 0 and quant is None:
        return Rescaling(1.0, 0.0)
    if shift is None or quant is None or quant.scale.size != 1:
        found = facts.input_dtype + ("" if shift is None else " without one scale and zero-point")
        raise UnsupportedModelError(
            f"'{facts.file}': the image input is {found}; expected uint8, int8 or float32"
        )
    scale = float(quant.scalar_scale)
    return Rescaling(scale, -(quant.scalar_zero_point + shift) * scale)


def _agree(stated: Rescaling, own: Rescaling) -> bool:
    """Within one step of ``own`` everywhere: both are straight lines, so the ends of 0..255 decide."""
    return all(abs(_real(stated, pixel) - _real(own, pixel)) <= own.scale for pixel in (0, 255))


def _real(rescaling: Rescaling, pixel: int) -> float:
    return pixel * rescaling.scale + rescaling.offset


def _describe(rescaling: Rescaling) -> str:
    return (
        f"p * {rescaling.scale:.8g} + {rescaling.offset:.8g} "
        f"(pixels 0..255 become {_real(rescaling, 0):.4g}..{_real(rescaling, 255):.4g})"
    )
