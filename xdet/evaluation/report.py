"""An evaluation as text, as JSON (schema ``xdet.evaluation``, docs/evaluation.md), and as a plot of its curves."""

from __future__ import annotations

import io
from dataclasses import asdict
from itertools import cycle
from pathlib import PurePath
from typing import TYPE_CHECKING

from converters.errors import counted
from xdet.errors import import_extra
from xdet.evaluation.dataset import IGNORED
from xdet.evaluation.scoring import RECALLS, RESAMPLES
from xdet.writing.blocks import Items, Report, Section, Table, Text
from xdet.writing.files import SOFTWARE, to_json, write_bytes
from xdet.writing.text import format_duration, image_names

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from xdet.evaluation.dataset import Problem
    from xdet.evaluation.evaluate import Evaluation, ModelResult
    from xdet.evaluation.scoring import Difference
    from xdet.writing.blocks import Block

EVALUATION_SCHEMA = "xdet.evaluation"
EVALUATION_VERSION = 1
SHOWN_PROBLEMS = 10  # per kind; the JSON has all of them
PLOT_INCHES = (6.4, 4.8)
DOTS_PER_INCH = 150
DASHES = ("-", "--", "-.", ":")


def evaluation_to_json(evaluation: Evaluation) -> str:
    """JSON text with a final newline; no times, so equal detections give equal bytes."""
    options = asdict(evaluation.options)
    results = named_results(evaluation)
    document = {
        "protocol": options.pop("protocol"),
        "metrics": evaluation.results[0].score.metrics,
        "options": options,
        "dataset": {
            "annotations": PurePath(evaluation.annotations).name,
            "sha256": evaluation.annotations_sha256,
            "classes": list(evaluation.class_names),
            "images": evaluation.num_images,
            "ground_truths": evaluation.num_truths,
            "crowds_ignored": evaluation.num_crowds,
            "boxes_over_the_edge": evaluation.over_the_edge,
            "warning": evaluation.warning,
        },
        "models": [
            {
                "name": name,
                "sha256": result.sha256,
                "runtime": result.runtime,
                "metrics": result.score.metrics,
                "classes": dict(zip(evaluation.class_names, result.score.per_class, strict=True)),
            }
            for name, result in results
        ],
        "comparisons": [
            {
                "model": results[one.index][0],
                "reference": results[0][0],
                "metric": one.metric,
                "difference": one.difference.value,
                "low": one.difference.low,
                "high": one.difference.high,
                "seen": one.difference.seen,
            }
            for one in evaluation.comparisons
        ],
        "ignored": evaluation.ignored,
        "problems": [problem.message for problem in evaluation.problems],
    }
    return to_json(EVALUATION_SCHEMA, EVALUATION_VERSION, document)


def evaluation_report(evaluation: Evaluation) -> Report:
    """What was measured, the metrics in per cent, differences, what was left out, and where the time went."""
    left_out = tuple(f"{count} {IGNORED[kind]}" for kind, count in evaluation.ignored.items())
    blocks: list[tuple[Block, ...]] = [
        (metrics_table(evaluation),),
        (_class_table(evaluation),) if len(evaluation.class_names) > 1 else (),
        comparison_blocks(evaluation),
        (Items(left_out, title="Left out:"),) if left_out else (),
        (_seconds_table(evaluation),),
    ]
    return Report("xdet eval", tuple(Section("", block) for block in blocks), tuple(_setting_lines(evaluation)))


def metrics_table(evaluation: Evaluation) -> Table:
    """One line per model: its runtime and the metrics that are worth a column, in per cent."""
    wanted = [name for name in evaluation.results[0].score.metrics if "_" not in name]
    rows = (
        (name, result.runtime, *(_percent(result.score.metrics[metric]) for metric in wanted))
        for name, result in named_results(evaluation)
    )
    return Table(("model", "runtime", *wanted), tuple(rows), keys=2)


def comparison_blocks(evaluation: Evaluation) -> tuple[Block, ...]:
    """Every further model against the first: who loses or gains how much, or that no difference was seen."""
    if not evaluation.comparisons:
        return ()
    names = [name for name, _ in named_results(evaluation)]
    metrics = dict.fromkeys(one.metric for one in evaluation.comparisons)
    rows = {one.index: [names[one.index]] for one in evaluation.comparisons}
    for one in evaluation.comparisons:
        rows[one.index].append(difference_text(one.difference))
    title = f"Against {names[0]}, with the 95 % interval of {RESAMPLES} draws of the photographs:"
    return Text(title), Table(("model", *metrics), tuple(map(tuple, rows.values())))


def difference_text(difference: Difference) -> str:
    """A difference in points, the half width of its interval, and the interval."""
    low, high = difference.low * 100, difference.high * 100
    if low == high == 0:
        return "equal"
    interval = f"{low:+.1f} to {high:+.1f}"
    if not difference.seen:
        return f"no difference seen ({interval})"
    verb = "loses" if difference.value < 0 else "gains"
    return f"{verb} {abs(difference.value) * 100:.1f} +- {(high - low) / 2:.1f} points ({interval})"


def problem_lines(problems: Sequence[Problem]) -> list[str]:
    """The problems, the first ``SHOWN_PROBLEMS`` of each kind in full, the others counted."""
    lines = []
    for kind, title in IGNORED.items():
        messages = [problem.message for problem in problems if problem.kind == kind]
        lines += messages[:SHOWN_PROBLEMS]
        if len(messages) > SHOWN_PROBLEMS:
            lines.append(f"... and {len(messages) - SHOWN_PROBLEMS} more {title}; --json lists all")
    return lines


def named_results(evaluation: Evaluation) -> list[tuple[str, ModelResult]]:
    """Each model's file name, with as many folders as tell it apart and the runtime where one file ran twice."""
    names = image_names([result.file for result in evaluation.results])
    return [
        (name if names.count(name) == 1 else f"{name} ({result.runtime})", result)
        for name, result in zip(names, evaluation.results, strict=True)
    ]


def _setting_lines(evaluation: Evaluation) -> Iterator[str]:
    options, limits = evaluation.options, evaluation.options.thresholds
    hit = "" if options.eval_iou is None else f" a hit from IoU {options.eval_iou:g} on,"
    yield (
        f"Protocol {options.protocol}:{hit} score > {limits.score}, NMS IoU > {limits.iou}, at most "
        f"{counted(limits.max_detections, 'detection', 'detections')}, crowds: {options.crowd}"
        f"{', truncated input' if options.truncate_input else ''}"
    )
    classes = ", ".join(evaluation.class_names)
    images = counted(evaluation.num_images, "image", "images")
    truths = counted(evaluation.num_truths, "ground truth", "ground truths")
    yield (
        f"{PurePath(evaluation.annotations).name}: {images}, {truths}{crowds_words(evaluation)}; matched by name: "
        f"{classes}"
    )
    if evaluation.over_the_edge:
        boxes = counted(evaluation.over_the_edge, "box reaches", "boxes reach")
        yield f"{boxes} over the edge of an image; kept as annotated"


def crowds_words(evaluation: Evaluation) -> str:
    """Crowds that were ignored, behind a comma; empty without any."""
    crowds = evaluation.num_crowds
    return f", {counted(crowds, 'crowd', 'crowds')} ignored" if crowds else ""


def _class_table(evaluation: Evaluation) -> Table:
    rows = (
        (name, class_name, *map(_percent, values.values()))
        for name, result in named_results(evaluation)
        for class_name, values in zip(evaluation.class_names, result.score.per_class, strict=True)
    )
    return Table(("model", "class", *evaluation.results[0].score.per_class[0]), tuple(rows), keys=2)


def _seconds_table(evaluation: Evaluation) -> Table:
    rows = []
    for name, result in named_results(evaluation):
        seconds, fresh = result.seconds, evaluation.num_images - result.resumed
        speed = f"{fresh / seconds.wall:.1f}" if fresh > 0 and seconds.wall > 0 else ""
        parts = (seconds.read, seconds.resize, seconds.network, seconds.wall, result.metric_s)
        rows.append((name, *map(format_duration, parts), speed, result.resumed or ""))
    columns = ("time", "read", "resize", "network", "elapsed", "metric", "images/s", "resumed")
    return Table(columns, tuple(rows))


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value * 100:.1f}"


def require_plotting() -> None:
    """Refuse a plot before the work whose result it shows by a ``MissingExtraError``, not after."""
    import_extra("matplotlib", "matplotlib, which draws the plot,", "eval")


def save_precision_plot(path: Path, evaluation: Evaluation) -> None:
    """Write every model's precision over recall as PNG; equal curves give equal bytes.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    require_plotting()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=PLOT_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for (name, result), dashes in zip(named_results(evaluation), cycle(DASHES), strict=False):
        label = f"{name} ({result.runtime})"
        axes.plot(RECALLS, result.score.precision, dashes, label=label, linewidth=1.5)
    options = evaluation.options
    images = counted(evaluation.num_images, "image", "images")
    title = f"Protocol {options.protocol}, IoU {options.eval_iou or 0.5:g}, {images}"
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="Recall", ylabel="Precision", title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": SOFTWARE})
    write_bytes(path, buffer.getvalue())
