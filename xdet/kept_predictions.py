"""Predictions on disk as they are made, so that an interrupted evaluation goes on where it stopped.

A file of JSON lines, one per model and photograph, each appended with a single write. A line names its run (model,
description, runtime, thresholds, input, version of xdet) and its photograph by their SHA-256, so nothing is taken that another
run, or another version of the photograph, made; one file serves any number of models. The half line of a killed process is
cut off.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

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


class KeptPredictions:
    """The lines of one file; a new one is made if it is missing.

    Args:
        path: the file.

    Raises:
        DataError: it exists and is no such file.
        OutputError: it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[Key, dict[str, Any]] = {}
        try:
            data = path.read_bytes() if path.exists() else b""
            whole = data[: data.rfind(b"\n") + 1]
            for number, line in enumerate(whole.splitlines(), 1):
                self._read(line, number)
            if len(whole) < len(data) and not data[len(whole) :].lstrip().startswith(b"{"):
                self._refuse(whole.count(b"\n") + 1)
            with path.open("ab") as file:
                file.truncate(len(whole))
        except OSError as error:
            raise OutputError(
                f"cannot write '{path}': {error.strerror or error}; choose another --resume"
            ) from error

    def take(self, run: str, images: Sequence[LabelledImage]) -> dict[int, Found]:
        """What this run has found in those photographs that have not changed since, by image id."""
        known = {image_id for line_run, image_id, _ in self._lines if line_run == run}
        taken = {}
        for image in images:
            if image.id not in known:
                continue
            line = self._lines.get((run, image.id, _hash_photograph(image)))
            if line is not None:
                taken[image.id] = Found(
                    np.array(line["boxes_xyxy"], np.float32).reshape(-1, 4),
                    np.array(line["scores"], np.float32),
                    np.array(line["classes"], np.int32),
                )
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
        try:
            with self._path.open("ab", buffering=0) as file:
                file.write(json.dumps(line).encode("ascii") + b"\n")
        except OSError as error:
            raise OutputError(f"cannot write '{self._path}': {error.strerror or error}") from error

    def _read(self, line: bytes, number: int) -> None:
        try:
            entry = json.loads(line)
            count = len(entry["scores"])
            whole = np.array(entry["boxes_xyxy"], np.float32).size == 4 * count == 4 * len(entry["classes"])
            key = (str(entry["run"]), int(entry["image"]), str(entry["sha256"]))
        except (ValueError, KeyError, TypeError):
            whole = False
        if not whole:
            self._refuse(number)
        self._lines[key] = entry

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
