"""The detector that comes with xdet: a TFLite file, converted once into the user's cache, for the runtime at hand.

The demo goes the whole way on it and on photographs: convert, load, detect, draw, and write the boxes as JSON.

The cached file's name holds a digest of all that its bytes come from: the version, the target, and size and time of the
source, its sidecar and every file of the converter. Nothing is read for it, so a start costs no time; whoever upgrades,
or works on the converter, never runs an old conversion. It appears whole or not at all, for processes that start
together; conversions of other versions are removed, but for the latest few. Where the cache cannot be written, the
conversion lives in memory.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from converters.files import FINISHED
from converters.spec.contract import UINT8_MAX_ONNXRUNTIME, is_older
from xdet import __version__
from xdet.errors import ModelError, RuntimeUnavailableError
from xdet.model.file import ModelFile, read_model
from xdet.runtimes.base import RuntimeChoices, choose_workers
from xdet.runtimes.finished import open_at
from xdet.runtimes.table import RUNTIMES, open_model, require_choices, usual_runtime
from xdet.writing.text import format_duration, format_score, format_size

if TYPE_CHECKING:
    from collections.abc import Callable

    from converters.spec import DetectorSpec, Target, Thresholds
    from xdet.runtimes.base import Runtime
    from xdet.runtimes.table import RuntimeRow

SOURCE = Path(__file__).parent.parent / "data" / "tiny_yolo_v2_person_224_int8.tflite"
CACHE_VARIABLE = "XDET_CACHE_DIR"
KEPT = 3  # conversions in the cache: environments of several versions share it
DEFAULTS = RuntimeChoices()
PHOTOGRAPHS = tuple(SOURCE.parent / name for name in ("astronaut.jpg", "camera.jpg"))


def open_embedded(
    choices: RuntimeChoices = DEFAULTS, choose: Callable[[DetectorSpec], Thresholds] = lambda spec: spec.thresholds
) -> Runtime:
    """Open the embedded detector, ``choose`` being that of ``open_at``; the first call of all converts it.

    Raises:
        RuntimeUnavailableError: the provider or the runtime is not there, or does not take the model.
        UsageError: a runtime that takes no ONNX files.
    """
    if _row_of(choices).takes_options:
        from xdet.runtimes.ort_session import resolve_provider

        resolve_provider(choices.provider)  # before any work
    target = target_for(choices)
    cached = cache_path(target)
    try:
        model = ModelFile(cached, read_model(cached), FINISHED)
    except ModelError:  # not there yet
        return open_at(_converted(cached, target), choices, choose)
    try:
        return open_at(model, choices, choose)
    except ModelError:
        if _is_sound(model):
            raise  # the provider cannot run it: converting again would change nothing
        return open_at(_converted(cached, target), choices, choose)


def cache_path(target: Target | None = None) -> Path:
    """Where the converted model is kept; the environment variable ``XDET_CACHE_DIR`` names another folder."""
    digest = hashlib.sha256(f"{__version__} {target or target_for(DEFAULTS)}".encode("ascii"))
    for path in (SOURCE, SOURCE.with_suffix(".xdet.json"), *_converter_files()):
        with contextlib.suppress(FileNotFoundError):
            state = path.stat()
            digest.update(f"{path.name} {state.st_size} {state.st_mtime_ns}\n".encode())
    folder = os.environ.get(CACHE_VARIABLE)
    if not folder:
        from platformdirs import user_cache_dir

        folder = user_cache_dir("xdet", appauthor=False)
    return Path(folder) / f"{SOURCE.stem}-{digest.hexdigest()[:16]}.onnx"


def target_for(choices: RuntimeChoices) -> Target:
    """``"cpu"`` on a runtime whose installed release has its kernels, else ``"portable"``: the same bits, slower."""
    if _row_of(choices).target != "cpu":
        return "portable"
    from xdet.runtimes.ort_session import installed_release

    return "portable" if is_older(installed_release(), UINT8_MAX_ONNXRUNTIME) else "cpu"


def _row_of(choices: RuntimeChoices) -> RuntimeRow:
    return RUNTIMES[str(require_choices(choices, FINISHED, file=SOURCE.name).runtime)]


def _converter_files() -> list[Path]:
    import converters

    return sorted(Path(converters.__file__).parent.rglob("*.py"))


def _is_sound(model: ModelFile) -> bool:
    """Whether the usual runtime takes it, which takes every model that xdet makes; without one, it is taken to be."""
    try:
        open_model(model, usual_runtime(FINISHED, threads=1)).close()
    except ModelError:
        return False
    except RuntimeUnavailableError:
        return True
    return True


def _converted(cached: Path, target: Target) -> ModelFile:
    """Converted now, and put into the cache in one step where it can be written."""
    from converters.errors import OutputError
    from converters.files import write_output

    data = _convert(SOURCE, target)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_output(cached, data)
    except (OSError, OutputError):  # a read-only home, a full disk
        return ModelFile(Path(cached.name), data, FINISHED)
    _prune(cached)
    return ModelFile(cached, data, FINISHED)


def _convert(source: Path, target: Target) -> bytes:
    from converters.convert import convert_to_bytes
    from converters.options import ConvertOptions

    return convert_to_bytes(source, ConvertOptions(target=target)).model


def _prune(newest: Path) -> None:
    """Remove the oldest conversions beside the newest one; one that is in use or gone already is left alone."""
    with contextlib.suppress(OSError):
        others = [path for path in newest.parent.glob(f"{SOURCE.stem}-*.onnx") if path != newest]
        others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        for path in others[KEPT - 1 :]:
            path.unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class DemoFiles:
    """What the demo wrote: the converted detector, photographs with boxes, the same boxes as JSON (docs/json.md)."""

    model: Path
    pictures: tuple[Path, ...]
    detections: Path


def run_demo(output: Path, report: Callable[[str], None], *, force: bool = False) -> DemoFiles:
    """Convert the embedded detector and run it on the embedded photographs; files of an earlier run are replaced.

    Args:
        output: the folder to write to; made if it is missing.
        report: takes one line per step.
        force: replace files of the same names that no demo made, too.

    Returns:
        The files written.

    Raises:
        UsageError: a file is there that no demo made, or the folder is that of the photographs.
        OutputError: the folder or a file in it cannot be written.
    """
    from xdet.conversion import convert
    from xdet.detection.batch import detect_files
    from xdet.detection.detector import Detector
    from xdet.detection.report import DETECTIONS_SCHEMA, report_to_json
    from xdet.runtimes.ort_session import resolve_provider
    from xdet.writing import files as written

    resolve_provider(None)  # before any work
    model, listed = output / f"{SOURCE.stem}.onnx", output / "detections.json"
    pictures = tuple(output / f"{photograph.stem}.png" for photograph in PHOTOGRAPHS)
    written.require_apart(output, PHOTOGRAPHS)
    marks = {
        model: written.MODEL_MARK,
        **dict.fromkeys(pictures, written.PICTURE_MARK),
        listed: written.json_mark(DETECTIONS_SCHEMA),
    }
    outputs = [written.Output(path, mark, in_new_folder=True) for path, mark in marks.items()]
    written.require_outputs(outputs, [*written.with_sidecars([SOURCE]), *PHOTOGRAPHS], force=force)
    written.make_folder(output)
    since = time.perf_counter()

    def tell(step: str) -> None:
        nonlocal since
        before, since = since, time.perf_counter()
        report(f"{step}, {format_duration(since - before)}")

    convert(SOURCE, model, force=True)
    tell(f"converted {SOURCE.name} ({format_size(SOURCE.stat().st_size)}): {_with_size(model)}")
    with Detector(model, workers=min(choose_workers(), len(PHOTOGRAPHS))) as detector:
        tell(f"loaded it on {detector.runtime.name}")
        results = detect_files(detector, PHOTOGRAPHS, pictures=pictures)
    tell("detected and drew")
    for photograph, picture, detections in zip(PHOTOGRAPHS, pictures, results.images, strict=True):
        boxes = ", ".join(f"{box.class_name} {format_score(box.score)}" for box in detections) or "nothing found"
        report(f"{photograph.name}: {boxes}: {_with_size(picture)}")
    written.write_text(listed, report_to_json(results))
    tell(f"listed them: {_with_size(listed)}")
    return DemoFiles(model, pictures, listed)


def _with_size(path: Path) -> str:
    return f"{path}, {format_size(path.stat().st_size)}"
