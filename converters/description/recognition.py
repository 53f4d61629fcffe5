"""Which head a network ends in: the only one of ``HEADS`` that its outputs and the operators in front of them fit.

Where none or several fit, the person chooses; every message says why each does not fit.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.errors import OptionError
from converters.heads import HEADS

if TYPE_CHECKING:
    from converters.facts import SourceFacts

KEEP = "--head none converts it without a decoder"


def recognise(facts: SourceFacts) -> str:
    """The kind of the only head that fits."""
    _require_detector(facts)
    misfits = {kind: head.misfit(facts, by_name=False) for kind, head in HEADS.items()}
    fits = [kind for kind, why in misfits.items() if why is None]
    if len(fits) == 1:
        return fits[0]
    listed = _listed(facts)
    if fits:
        choices = [f"  --head {kind}" for kind in fits]
        raise OptionError(f"'{facts.file}': several heads fit its output {listed}; choose one:", *choices)
    reasons = [f"  {kind}: {why}" for kind, why in misfits.items()]
    raise OptionError(f"'{facts.file}': no head fits its output {listed}; {KEEP}", *reasons)


def _require_detector(facts: SourceFacts) -> None:
    """Refuse a network of another task: its output holds more than boxes and classes, in a list of the same shape."""
    for part in facts.metadata:
        if part.task is not None:
            raise OptionError(
                f"'{facts.file}': {part.where} says that the network's task is {part.task!r}, expected 'detect': its "
                f"output holds other numbers than boxes and classes; {KEEP}, --head KIND decodes it all the same"
            )


def require_fit(facts: SourceFacts, kind: str, *, by_name: bool) -> tuple[str, ...]:
    """Refuse a stated head that cannot be; notes on what speaks against one that ``--head`` names (``by_name``)."""
    misfit = HEADS[kind].misfit(facts, by_name=True)
    takes_raw = bool(HEADS[kind].anchor_units)
    why = misfit or (facts.activated(by_name=by_name) if takes_raw else None)
    if why is not None:
        insist = "" if misfit else f", --head {kind} decodes it all the same"
        raise OptionError(f"'{facts.file}': {kind}: {why}; found {_listed(facts)}; {KEEP}{insist}")
    if facts.activations and takes_raw:
        decoder = f"the {kind} decoder, as asked, activates these numbers once more"
        return (f"{facts.activations} in front of its output: {decoder}",)
    return ()


def _listed(facts: SourceFacts) -> str:
    return ", ".join(f"'{output.name}' {[1, *output.shape]}" for output in facts.outputs)
