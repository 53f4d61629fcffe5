"""The head seam: one row and one class per head. Whoever adds a head adds these two.

A network ends in the only head that its outputs and the operators in front of them fit. Where none or several fit, the
person chooses; every message says why each does not fit.
"""

from __future__ import annotations

from collections import UserDict
from importlib import import_module
from typing import TYPE_CHECKING, Any

from converters.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from converters.facts import SourceFacts
    from converters.heads.base import Head

KEEP = "--head none converts it without a decoder"


class _Heads(UserDict[str, Any]):
    """The table. The class of a row is imported when it is first asked for: all together cost every start 10 ms."""

    def __getitem__(self, kind: str) -> Any:
        row = self.data[kind]
        if isinstance(row, str):
            module, name = row.split(".")
            row = self.data[kind] = getattr(import_module(f"{__name__}.{module}"), name)
        return row


HEADS: MutableMapping[str, type[Head]] = _Heads(
    yolo_v2="yolo_v2.YoloV2",
    yolo_v3="grids.YoloV3",
    st_yolo_x="grids.StYoloX",
    yolo_v5_raw="grids.YoloV5Raw",
    yolo_v5="lists.YoloV5",
    yolo_v8="lists.YoloV8",
    yolox="lists.Yolox",
    fomo="one_grid.Fomo",
    fastestdet="one_grid.FastestDet",
    blazeface="blazeface.BlazeFace",
    ssd="ssd.Ssd",
)
"""What ``--head`` takes. A finished file names its head by ``Head.kind``: that of ``st_yolo_x`` is ``yolo_v3``."""


def head_from_dict(data: Mapping[str, Any]) -> Head:
    """Read what a head's ``to_dict`` wrote.

    Raises:
        ValueError: no head of the table, or malformed parameters.
    """
    kind = data["kind"]
    if not isinstance(kind, str) or kind not in HEADS or HEADS[kind].kind != kind:
        kinds = ", ".join(name for name, head in HEADS.items() if name == head.kind)
        raise ValueError(f"head must be one of {kinds}, got {kind!r}")
    return HEADS[kind].from_dict(data)


def recognise(facts: SourceFacts) -> str:
    """The kind of the only head that fits, of a network whose output is no other than boxes and classes."""
    for part in facts.metadata:
        if part.task is not None:
            raise OptionError(
                f"'{facts.file}': {part.where} says that the network's task is {part.task!r}, expected 'detect': its "
                f"output holds other numbers than boxes and classes; {KEEP}, --head KIND decodes it all the same"
            )
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
