"""Run detectors in every dialect on every runtime; print how far each is from ONNX Runtime's CPU kernels, as Markdown.

``python runtime_matrix.py person.tflite face.tflite --images photos --runtimes openvino,tract,onnxruntime-web``

Converts each source in each dialect (``--dialects``: ``portable``, which is float of a float source; ``cpu``, ``int8``,
``float leaky``, ``dequantised`` and ``dequantised float16`` of quantised sources; ``float16`` and ``symmetric`` of
float ones), runs the first photographs (``--count``) and prints a row per source, dialect and runtime:

* head: values of the raw head that differ, and by how many quantisation steps at most (of float models: by how much);
* boxes: whether every row is of the same box as ONNX Runtime's, and if not how many rows are;
* time, with ``--repeats``: milliseconds per photograph, the least of so many, network and head, on ``--threads``
  threads.

A runtime that refuses or cannot load a file is told with its first words. Without ``--runtimes`` all that work here are
run. ``--look-alikes`` adds a small network of every head (of the tests, random weights; extra: litert). ``--into FILE``
puts the table in the place of the first such one that a Markdown file holds, ``--under HEADING`` of the first one
behind that line. Exit code 0, or 2 for a request that cannot be met.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import xdet
from xdet.errors import MissingExtraError, RuntimeUnavailableError, UsageError, XdetError
from xdet.model.file import read_document, read_model_file
from xdet.pictures.images import find_images
from xdet.pictures.preparation import Preparation, prepare_many
from xdet.runtimes.base import RuntimeChoices
from xdet.runtimes.table import RUNTIMES, open_model, parse_runtimes, runtimes_for

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from converters.heads.base import BatchDetections
    from xdet.model.file import ModelFile

DIALECTS: Mapping[str, Mapping[str, Any]] = {
    "portable": {},
    "cpu": {"target": "cpu"},
    "int8": {"activations": "int8"},
    "float leaky": {"leaky_relu": "float"},
    "dequantised": {"dequantize": True},
    "dequantised float16": {"dequantize": True, "float16": True},
    "float16": {"float16": True},
    "symmetric": {"quantize": "per-channel", "symmetric": True},
}
OF_QUANTISED = ("portable", "cpu", "int8", "float leaky")  # what any quantised source has
REFERENCE = "onnxruntime:cpu"
WORDS = 110  # of a refusal
LINES: list[str] = []  # of the table
COLUMNS: list[str] = []
HEADER = ("source", "dialect", "runtime", "head", "boxes")


def measure(
    model: ModelFile, name: str, pixels: NDArray[np.uint8], *, threads: int, repeats: int
) -> tuple[NDArray[np.float32], BatchDetections, str]:
    """Head, boxes and the least time per photograph of a model on a runtime; no time without repeats."""
    runtime, _, provider = name.partition(":")
    choices = RuntimeChoices(runtime, provider or RUNTIMES[runtime].usual, threads)
    apart = choices.provider not in RUNTIMES[runtime].trusted
    with open_model(model, choices, subprocess=apart) as opened:
        head, thresholds = opened.head(pixels), opened.spec.thresholds
        found = opened.detect(pixels, thresholds)
        least = float("inf")
        for _ in range(repeats):
            started = time.perf_counter()
            opened.detect(pixels[:1], thresholds)
            least = min(least, time.perf_counter() - started)
    return head, found, f"{least * 1000:.1f}" if repeats else ""


def describe_head(head: NDArray[np.float32], known: NDArray[np.float32], step: float | None) -> str:
    """``0 differ``, or how many and by how much at most."""
    differing = int((head != known).sum())
    if not differing:
        return "0 differ"
    most = float(np.abs(head - known).max())
    told = f"{most:.2g}" if step is None else f"{most / step:.0f} LSB"
    return f"{differing:,} of {head.size:,} by at most {told}"


def describe_boxes(found: BatchDetections, known: BatchDetections) -> str:
    """``equal``, or how many of the known rows are there in their place."""
    filled = known.anchors >= 0
    same = int((found.anchors == known.anchors)[filled].sum())
    if same == int(filled.sum()) and found.num_detections.tolist() == known.num_detections.tolist():
        return "equal"
    return f"{same} of {int(filled.sum())} rows"


def print_rows(source: Path, dialect: str, names: Sequence[str], photographs: Sequence[Path], args: Any) -> None:
    """Convert, run, and print the rows of one source in one dialect."""
    with tempfile.TemporaryDirectory(prefix="xdet-matrix-") as folder:
        path = Path(folder) / "model.onnx"
        options = dict(DIALECTS[dialect])
        if "quantize" in options:
            options["calibration"] = args.calibration
        xdet.convert(source, path, score_threshold=args.score_threshold, **options)
        model = read_model_file(path)
        document = read_document(model.data, file=model.file)
        prepared = prepare_many(photographs, Preparation(document.spec.image), workers=1)
        pixels = np.stack([picture.pixels for picture in prepared])
        step = None if document.golden is None else document.golden.scale
        how = {"threads": args.threads, "repeats": args.repeats}
        head, boxes, least = measure(model, REFERENCE, pixels, **how)
        row(source.stem, dialect, REFERENCE, "the reference", f"{int(boxes.num_detections.sum())} boxes", least)
        for name in names:
            try:
                found = measure(model, name, pixels, **how)
            except MissingExtraError as error:
                row(source.stem, dialect, name, f"not here: {error.what}", "", "")
            except XdetError as error:
                told = str(error).replace(f"'{model.file}': ", "").replace("|", "/")
                kind = "refused" if isinstance(error, RuntimeUnavailableError) else "fails"
                row(source.stem, dialect, name, f"{kind}: {told.partition('; ')[0][:WORDS]}", "", "")
            else:
                told_head, told_boxes = describe_head(found[0], head, step), describe_boxes(found[1], boxes)
                row(source.stem, dialect, name, told_head, told_boxes, found[2])


def write_look_alikes(folder: Path) -> list[Path]:
    """A small network of every head, by the tests' builders."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from tests.every_head import write_look_alikes as write

    return write(folder)


def row(*cells: str) -> None:
    """Print one row of the table at once: compilers take minutes. The time is left out where nothing is timed."""
    LINES.append(f"| {' | '.join(cells[: len(COLUMNS)])} |")
    print(LINES[-1], flush=True)


def put_table(file: Path, heading: str | None) -> None:
    """Replace the table that an earlier run put into a Markdown file, behind a heading if one is named.

    Raises:
        UsageError: it holds none.
    """
    before = file.read_text("utf-8").splitlines()
    behind = 0 if heading is None else before.index(heading) if heading in before else len(before)
    if LINES[0] not in before[behind:]:
        where = "" if heading is None else f" behind the line {heading!r}"
        raise UsageError(f"'{file}' holds no table{where} that begins with {LINES[0]}; put this line there first")
    start = before.index(LINES[0], behind)
    end = next((i for i in range(start, len(before)) if not before[i].startswith("|")), len(before))
    file.write_text("\n".join([*before[:start], *LINES, *before[end:]]) + "\n", "utf-8")


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description="Every dialect on every runtime, as Markdown.")
    parser.add_argument("sources", nargs="*", type=Path, help="TFLite or Keras detectors")
    parser.add_argument("--look-alikes", action="store_true", help="a small network of every head, too")
    parser.add_argument("--into", type=Path, metavar="FILE", help="a Markdown file whose table is replaced")
    parser.add_argument("--under", metavar="HEADING", help="a line of that file in front of the table")
    parser.add_argument("--calibration", type=Path, metavar="DIR", help="photographs for symmetric")
    parser.add_argument("--images", nargs="+", type=Path, required=True, help="photographs, or folders of them")
    parser.add_argument("--dialects", default=",".join(OF_QUANTISED), help=f"of {', '.join(DIALECTS)}")
    parser.add_argument("--runtimes", help="names as xdet check takes them; default: all that work here")
    parser.add_argument("--count", type=int, default=2, help="photographs that are run")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=0, help="of each runtime, for its time; default: none")
    parser.add_argument("--score-threshold", type=float, default=0.1, help="low, so that there are boxes to compare")
    args = parser.parse_args()
    dialects = [word.strip() for word in args.dialects.split(",")]
    unknown = sorted(set(dialects) - set(DIALECTS))
    if unknown:
        print(
            f"there is no dialect {', '.join(map(repr, unknown))}; choose among {', '.join(DIALECTS)}", file=sys.stderr
        )
        return 2
    try:
        if args.runtimes is None:
            names: Sequence[str] = runtimes_for("onnx")
        else:
            names = [
                f"{c.runtime}:{c.provider or RUNTIMES[str(c.runtime)].usual}" for c in parse_runtimes(args.runtimes)
            ]
        photographs = find_images(args.images)[: args.count]
        COLUMNS.extend([*HEADER, *(["ms"] if args.repeats else [])])
        row(*COLUMNS)
        row(*("---" for _ in COLUMNS))
        with tempfile.TemporaryDirectory(prefix="xdet-heads-") as folder:
            sources = [*args.sources, *(write_look_alikes(Path(folder)) if args.look_alikes else ())]
            for source in sources:
                for dialect in dialects:
                    print_rows(source, dialect, [name for name in names if name != REFERENCE], photographs, args)
        if args.into is not None:
            put_table(args.into, args.under)
    except XdetError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
