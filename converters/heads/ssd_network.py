"""SSD heads from facts and statements: which output is what, where priors come from, and what the scores still need.

Priors come from the operator behind the outputs, from a constant of the file, from an output that no product of the
picture reaches, from the columns of the one output (scores, offsets, priors: the SSD of STMicroelectronics' model zoo),
or from ``--priors``. The zoo's priors are corners without variances; any others state their format and variances.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from converters.errors import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.description.precedence import AllStatements
    from converters.description.priors import Four, PriorFormat, Priors, ScoreActivation
    from converters.facts import PostProcess, SourceFacts, SourceOutput
    from converters.heads.ssd import Activation, Part, Ssd

ASK = "--priors FILE (.npy, .csv, .json) or --priors coco-ssd|coco-ssd-fpn"
PROBABILITIES = (-0.01, 1.01)


def is_no_ssd(facts: SourceFacts, *, by_name: bool) -> str | None:
    """Why a network's outputs are no SSD head; None where they are."""
    if facts.postprocess is not None:
        return None
    shapes = [output.shape for output in facts.outputs]
    if any(len(shape) != 2 for shape in shapes) or len({shape[0] for shape in shapes}) != 1:
        return "an SSD head is offsets [1, boxes, 4] and scores [1, boxes, classes], maybe priors [1, boxes, 4]"
    if len(shapes) == 1:
        if not by_name:
            return "one list of scores, offsets and priors is read as SSD only where --head ssd says so"
        least = "scores, 4 offsets and 4 priors of each box, 9 columns or more, are expected"
        return None if shapes[0][1] >= 9 else f"{least}, found {shapes[0][1]}"
    try:
        _parts(facts, by_name=by_name)
    except OptionError as error:
        return str(error)
    return None


def build_ssd(head: type[Ssd], statements: AllStatements) -> Ssd:
    """The head."""
    facts, stated = statements.facts, statements.priors
    if facts.postprocess is not None:
        statements.require_names(facts.postprocess.num_classes)
        return _behind_operator(head, facts, facts.postprocess)
    joined = len(facts.outputs) == 1
    parts = ("scores", "offsets", "priors") if joined else _parts(facts)
    scores = facts.outputs[0 if joined else parts.index("scores")]
    boxes, columns = scores.shape[0], scores.shape[1] - (8 if joined else 0)
    background = _has_background(facts, columns, statements.names_of_people)
    kind, variances, priors = _settle_priors(statements, boxes, own="priors" in parts)
    try:
        return head(
            num_boxes=boxes,
            num_classes=columns - background,
            coding="centers" if kind in ("yxhw", "xywh") else "corners",
            scales=cast("Four", tuple(float(np.float32(1 / v)) for v in variances)),
            priors=None if priors is None else cast("tuple[Four, ...]", tuple(map(tuple, priors.rows.tolist()))),
            yx_first=kind in ("yxhw", "yxyx"),
            background=background,
            activation=_activation(facts, stated.activation, scores),
            parts=cast("tuple[Part, ...]", parts),
            joined=joined,
        )
    except ValueError as error:
        where = "the network's priors" if priors is None else priors.where
        raise OptionError(f"'{facts.file}': {where}, read as {kind}: {error}; check --prior-format") from error


def _behind_operator(head: type[Ssd], facts: SourceFacts, behind: PostProcess) -> Ssd:
    return head(
        num_boxes=len(behind.priors),
        num_classes=behind.num_classes,
        coding="centers",
        scales=behind.scales,
        priors=behind.priors,
        yx_first=True,
        background=facts.outputs[1].shape[-1] > behind.num_classes,
        parts=("offsets", "scores"),
        clipped=False,
    )


def _parts(facts: SourceFacts, *, by_name: bool = True) -> tuple[str, ...]:
    """What each of several outputs is, in the file's order."""
    outputs = facts.outputs
    fixed = [index for index, output in enumerate(outputs) if output.from_picture is False]
    if len(outputs) == 3 and outputs[0].from_picture is None:
        if not by_name:
            raise OptionError(
                "which output is the priors cannot be told here: --head ssd takes scores, offsets, priors"
            )
        fixed = [2]
    rest = [index for index in range(len(outputs)) if index not in fixed]
    if len(outputs) > 3 or len(fixed) > 1 or (len(outputs) == 3) != (len(fixed) == 1):
        raise OptionError(
            f"an SSD head is two outputs of the picture, and one at most that is no product of it (its priors), found "
            f"{len(rest)} and {len(fixed)}"
        )
    offsets = [index for index in rest if outputs[index].shape[1] == 4]
    if len(offsets) == 2:
        offsets = [index for index in rest if not outputs[index].activations]
    if len(offsets) != 1 or any(outputs[index].shape[1] != 4 for index in fixed):
        raise OptionError("which output holds the four offsets of each box cannot be told: expected [1, boxes, 4] once")
    names = {offsets[0]: "offsets", **dict.fromkeys(fixed, "priors")}
    return tuple(names.get(index, "scores") for index in range(len(outputs)))


def _has_background(facts: SourceFacts, columns: int, class_names: tuple[str, ...] | None) -> bool:
    """Whether the first score is that of a background; without names it is, unless it is the only one."""
    if class_names is None:
        return columns > 1
    if len(class_names) not in (columns, columns - 1):
        raise OptionError(
            f"'{facts.file}': its scores have {columns} columns, {columns} classes or a background and {columns - 1}; "
            f"{len(class_names)} are named; check --classes"
        )
    return len(class_names) == columns - 1


def _settle_priors(
    statements: AllStatements, boxes: int, *, own: bool
) -> tuple[PriorFormat, Sequence[float], Priors | None]:
    """Format, variances, and the priors where they are no output of the network's ``own``."""
    facts, stated = statements.facts, statements.priors
    if own and stated.priors is not None:
        raise OptionError(f"'{facts.file}' gives its priors itself: leave --priors out")
    if own or (facts.priors is not None and stated.priors is None):
        kind = stated.format or "xyxy"
        if stated.variances is None and kind in ("yxhw", "xywh"):
            raise OptionError(_ask_for_variances(facts, "its own priors", kind))
        return kind, stated.variances or (1, 1, 1, 1), None if own else statements.read_priors()
    priors = statements.read_priors()
    if priors is None:
        raise OptionError(
            f"'{facts.file}': its SSD head ({boxes} boxes) needs priors, and no one states them; give {ASK}"
        )
    if len(priors.rows) != boxes:
        raise OptionError(
            f"{priors.where}: {len(priors.rows)} priors, expected {boxes}, one for each box of '{facts.file}'"
        )
    kind_or_none, variances = stated.format or priors.format, stated.variances or priors.variances
    if kind_or_none is None:
        raise OptionError(
            f"{priors.where}: how its four numbers are read is not stated; give --prior-format yxhw (centre y and x, "
            "height, width), xywh, xyxy (corners) or yxyx"
        )
    if variances is None:
        raise OptionError(_ask_for_variances(facts, priors.where, kind_or_none))
    return kind_or_none, variances, priors


def _ask_for_variances(facts: SourceFacts, where: str, kind: str) -> str:
    return (
        f"'{facts.file}': {where} ({kind}) have no variances, which offsets are multiplied by: expected 8 columns, or "
        f"--variances 0.1,0.1,0.2,0.2 (1,1,1,1: none)"
    )


def _activation(facts: SourceFacts, stated: ScoreActivation | None, scores: SourceOutput) -> Activation:
    """What the scores still need: nothing where the network has activated them, or their codes are probabilities."""
    low, high = PROBABILITIES
    done = bool(scores.activations)
    if not done and scores.smallest is not None and scores.largest is not None:
        done = low <= scores.smallest and scores.largest <= high
    if done and stated not in (None, "none"):
        found = " and ".join(scores.activations) or "its codes lie within 0..1"
        raise OptionError(
            f"'{facts.file}': its scores are probabilities already ({found}); leave --score-activation out"
        )
    if not done and stated is None:
        raise OptionError(
            f"'{facts.file}': its scores are raw numbers; say what turns them into probabilities: --score-activation "
            "softmax (Caffe, ST) or sigmoid (TensorFlow's Object Detection API), or none"
        )
    return stated or "none"
