"""What ties anchors and classes to a YOLO v2 head: ``channels = A * (5 + NC)``, A and NC at least 1."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.description.classes import default_class_names
from converters.errors import OptionError

if TYPE_CHECKING:
    from converters.description.facts import SourceFacts


def fit_class_names(
    facts: SourceFacts, num_anchors: int, class_names: tuple[str, ...] | None
) -> tuple[str, ...]:
    """Check the names against the head, or make up as many as the head has classes.

    Raises:
        OptionError: no number of classes, or another one than was named, fits the head's channels.
    """
    channels = facts.head_channels
    if class_names is None:
        num_classes = channels // num_anchors - 5
        if channels % num_anchors or num_classes < 1:
            msg = (
                f"'{facts.file}': {_count(num_anchors, 'anchor', 'anchors')} x (5 + classes) cannot make "
                f"the head's {channels} channels; {describe_fit(channels)}: check --anchors"
            )
            raise OptionError(msg)
        return default_class_names(num_classes)
    made = num_anchors * (5 + len(class_names))
    if made != channels:
        msg = (
            f"'{facts.file}': {_count(num_anchors, 'anchor', 'anchors')} x (5 + "
            f"{_count(len(class_names), 'class', 'classes')}) = {made} channels, the head has {channels}; "
            f"{describe_fit(channels)}: check --anchors and --classes"
        )
        raise OptionError(msg)
    return class_names


def describe_fit(channels: int) -> str:
    """Which numbers of anchors and classes a head with so many channels can have, as part of a sentence."""
    fits = fitting_counts(channels)
    if not fits:
        return f"no anchors and classes make {channels} channels: no YOLO v2 head (--head none keeps it raw)"
    parts = [f"{_count(a, 'anchor', 'anchors')} with {_count(nc, 'class', 'classes')}" for a, nc in fits]
    return f"{channels} channels fit {' or '.join(parts)}"


def fitting_counts(channels: int) -> tuple[tuple[int, int], ...]:
    """All (anchors, classes) with ``anchors * (5 + classes) == channels``, fewest anchors first."""
    return tuple((a, channels // a - 5) for a in range(1, channels // 6 + 1) if channels % a == 0)


def _count(number: int, one: str, many: str) -> str:
    return f"{number} {one if number == 1 else many}"
