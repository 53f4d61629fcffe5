"""Predictions on disk as they are made, so that an interrupted evaluation goes on where it stopped.

A file of JSON lines. The first is ``HEADER``, which tells the file from every other; files of earlier versions lack it. Each
further line is one model and photograph, appended with a single write. It names its run (model, description, runtime,
thresholds, input, version of xdet) and its photograph by their SHA-256, so nothing is taken that another run, or another
version of the photograph, made; one file serves any number of models. The half line of a killed process is cut off. Any other
file is refused, and keeps every byte.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from xdet import __version__
from xdet.errors import DataError, OutputError
from xdet.predictions import Found

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from xdet.datasets import LabelledImage
    from xdet.predictions import PredictionOptions
    from xdet.runtimes.base import Runtime

Key = tuple[str, int, str]  # run, image id, SHA-256 of the photograph
HEADER = b'{"schema": "xdet.kept_predictions", "version": 1}\n'
_LINE_START = b'{"run": "'  # of every kept prediction


class KeptPredictions:
    """The lines of one file; a new one is made if it is missing or empty.

    Args:
        path: the file.

    Raises:
        DataError: it exists and is no such file.
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[Key, Found] = {}
        try:
            data = self._read_file() if path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            for number, line in enumerate(whole.split(b"\n")[:-1], 1):
                self._read_line(line, number)
            half = data[len(whole) :]
            if half and not (whole and (half.startswith(_LINE_START) or _LINE_START.startswith(half))):
                self._refuse(whole.count(b"\n") + 1)
            with path.open("ab") as file:
                if half:
                    file.truncate(len(whole))
        except (OSError, ValueError) as error:
            raise OutputError(
                f"cannot write '{path}': {getattr(error, 'strerror', None) or error}; choose another --resume"
            ) from error
        if not data:
            self._append(HEADER)

    def take(self, run: str, images: Sequence[LabelledImage]) -> dict[int, Found]:
        """What this run has found in those photographs that have not changed since, by image id."""
        known = {image_id for line_run, image_id, _ in self._lines if line_run == run}
        taken = {}
        for image in images:
            if image.id not in known:
                continue
            line = self._lines.get((run, image.id, _hash_photograph(image)))
            if line is not None:
                taken[image.id] = line
        return taken

    def add(self, run: str, image: LabelledImage, found: Found) -> None:
        """Append one line.

        Raises:
            OutputError: it cannot be written.
        """
        line = {
            "run": run,
            "image": image.id,
            "sha256": _hash_photograph(image),
            "boxes_xyxy": found.boxes_xyxy.tolist(),
            "scores": found.scores.tolist(),
            "classes": found.classes.tolist(),
        }
        self._append(json.dumps(line).encode("ascii") + b"\n")

    def _append(self, line: bytes) -> None:
        try:
            with self._path.open("ab", buffering=0) as file:
                written = file.write(line)
        except OSError as error:
            raise OutputError(f"cannot write '{self._path}': {error.strerror or error}") from error
        if written != len(line):
            raise OutputError(
                f"cannot write '{self._path}': only a part of a line fits; make room on the disk"
            )

    def _read_file(self) -> bytes:
        """All bytes, if the first ones are ours: a foreign file may be of any kind and size."""
        if self._path.exists() and not self._path.is_file():
            raise OSError("it is no regular file")
        with self._path.open("rb") as file:
            start = file.read(len(HEADER))
            if start and start != HEADER and not start.startswith(_LINE_START):
                self._refuse(1)
            return start + file.read()

    def _read_line(self, line: bytes, number: int) -> None:
        if line + b"\n" == HEADER:  # a second one, too: of two processes that began the file at the same time
            return
        try:
            entry = json.loads(line)
            key = (str(entry["run"]), int(entry["image"]), str(entry["sha256"]))
            with np.errstate(over="ignore"):  # beyond float32 is infinite, and refused
                boxes, scores = (np.array(entry[name], np.float32) for name in ("boxes_xyxy", "scores"))
            found = Found(boxes.reshape(len(scores), 4), scores, np.array(entry["classes"], np.int32))
            usable = found.classes.shape == scores.shape == (len(scores),)
            usable = usable and bool(np.isfinite(boxes).all() and np.isfinite(scores).all())
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
            usable = False
        if not usable:
            self._refuse(number)
        self._lines[key] = found

    def _refuse(self, number: int) -> None:
        raise DataError(
            f"'{self._path}', line {number}, is no kept prediction; give --resume a file that xdet eval made, or a new one"
        )


def name_run(runtime: Runtime, options: PredictionOptions) -> str:
    """A digest of all that decides what a model finds in a photograph."""
    parts = {
        "xdet": __version__,
        "model": runtime.sha256,
        "spec": runtime.spec.to_dict(),
        "runtime": runtime.name,
        "thresholds": asdict(options.thresholds),
        "truncate_input": options.truncate_input,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _hash_photograph(image: LabelledImage) -> str:
    try:
        return hashlib.sha256(image.path.read_bytes()).hexdigest()
    except OSError:
        return ""  # gone or unreadable: nothing kept fits it, and reading it tells why
