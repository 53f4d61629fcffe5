"""Precision over recall as a picture: the curve per model under which its protocol takes the area (IoU 0.5 or ``eval_iou``)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from xdet.errors import import_extra
from xdet.evaluation.records import RECALLS
from xdet.writing.files import SOFTWARE, write_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from xdet.evaluation.records import Float64

SIZE_INCHES = (6.4, 4.8)
DOTS_PER_INCH = 150
DASHES = ("-", "--", "-.", ":")


def require_plotting() -> None:
    """Refuse a plot before the work whose result it shows, not after.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    import_extra("matplotlib", "matplotlib, which draws the plot,", "eval")


def save_precision_plot(path: Path, curves: Sequence[tuple[str, Float64]], *, title: str) -> None:
    """Write the plot as PNG; equal curves give equal bytes.

    Args:
        path: the file.
        curves: for each line its label and float64 ``(101,)``, precision 0..1 at recalls 0, 0.01 .. 1.
        title: above the plot.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputError: the file cannot be written.
    """
    require_plotting()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCHES, dpi=DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for index, (label, precision) in enumerate(curves):
        axes.plot(RECALLS, precision, DASHES[index % len(DASHES)], label=label, linewidth=1.5)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="Recall", ylabel="Precision", title=title)
    axes.grid(alpha=0.3)
    axes.legend(loc="upper right", fontsize="small")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": SOFTWARE})
    write_bytes(path, buffer.getvalue())
