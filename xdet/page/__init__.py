"""The folder of a page: our own files (``static/``), the model, facts of it, ONNX Runtime Web, and samples.

The page's slider moves the score threshold without running the model again: the model in the folder holds a low
threshold as a constant, and the page leaves out the boxes at or below the slider. Those that remain are the ones that
the model gives at that threshold: suppression takes boxes best score first, so a box falls only to a better one.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import counted
from converters.files import FINISHED, read_regular
from converters.spec import ImageInput, ModelDocument, Rescaling
from xdet.errors import DataError, ModelError, RuntimeUnavailableError, UsageError
from xdet.model.file import ModelFile, read_document, read_model_file
from xdet.model.wire import fixed_batch, freeze_thresholds
from xdet.pictures.images import LARGEST_PICTURE
from xdet.runtimes.javascript import FOLDER, session_extra
from xdet.writing.files import MODEL_MARK, PAGE_MARK, encode_text, json_mark, with_sidecars, write_changed
from xdet.writing.text import reason

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.spec import Color, ResizeRule

PACKAGE = "onnxruntime-web"
ONNXRUNTIME_WEB = "1.30.0"  # the release that the page's tests run on
RUNTIME_FOLDER = f"{PACKAGE}-{ONNXRUNTIME_WEB}"
RUNTIME_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
LARGEST_RUNTIME_FILE = 1 << 28
STATIC = Path(__file__).with_name("static")
STATIC_FILES = ("index.html", "page.css", "page.js", "worker.js", "pixels.mjs", "icon.svg")
WORKER = "offline.js"
OUR_MARK = re.compile(rb"(//|/\*|<!--) xdet page")
PAGE_SCHEMA = "xdet.page"
LOWEST_SCORE = 0.05  # where the slider ends, unless the model's own threshold is lower
# Those of static/pixels.mjs.
RESIZE_RULES: tuple[ResizeRule, ...] = ("nearest", "bilinear", "bilinear-antialias", "letterbox")
COLORS: tuple[Color, ...] = ("rgb", "bgr", "grey")
# Others of ImageInput must have their defaults.
IMAGE_FIELDS = frozenset({"height", "width", "rescaling", "resize", "color", "any_size"})


def make_page(
    model: Path | None,
    output: Path,
    *,
    package: Path | None = None,
    title: str | None = None,
    samples: Sequence[Path] = (),
    force: bool = False,
) -> tuple[Path, ...]:
    """Write a page that runs a detector in the browser.

    Args:
        model: a finished model that ends in boxes; None is the embedded detector with its two photographs.
        output: the folder, made if it is missing.
        package: the npm package onnxruntime-web, or a folder that holds it; None looks into ``XDET_NODE_MODULES``, then
            into ``./node_modules``.
        title: of the page; None is the model's name.
        samples: pictures that the page offers; the first is shown at the beginning.
        force: replace files that no page put there, too.

    Returns:
        All files of the page.

    Raises:
        ModelError: no finished model, or one that the page cannot run.
        RuntimeUnavailableError: the package is missing, another release, or not whole.
        DataError: a sample cannot be read.
        UsageError: a file is in the way, or two samples have one name.
        OutputError: the folder cannot be written.
    """
    from xdet.detection.embedded import PHOTOGRAPHS

    pictures = (*samples, *(PHOTOGRAPHS if model is None and not samples else ()))
    file = _embedded() if model is None else read_model_file(model)
    document = read_document(file.data, file=file.file)
    _require_runnable(file, document)
    runtime = read_package(find_package(package))
    shown, lowest = _with_low_threshold(file.data, document)
    title = title or ("Person detector" if model is None else file.path.stem)
    facts = _facts(document, title=title, lowest=lowest, samples=[picture.name for picture in pictures])
    contents: dict[str, bytes] = {"model.onnx": shown, **runtime, **_read_samples(pictures)}
    contents["page.json"] = encode_text(json.dumps(facts, indent=1) + "\n")
    contents |= {name: (STATIC / name).read_bytes() for name in STATIC_FILES}
    contents[WORKER] = _offline_worker(contents)
    marks = dict.fromkeys((*STATIC_FILES, WORKER), OUR_MARK)
    marks |= {"model.onnx": MODEL_MARK, "page.json": json_mark(PAGE_SCHEMA), "index.html": PAGE_MARK}
    last = contents.pop("index.html")  # when all it needs is there
    files = {output / name: data for name, data in (*sorted(contents.items()), ("index.html", last))}
    inputs = [*with_sidecars([file.path]), *pictures]
    write_changed(files, {output / name: mark for name, mark in marks.items()}, inputs, force=force)
    return tuple(files)


def find_package(named: Path | None) -> Path:
    """The folder of the npm package, in the pinned release.

    Raises:
        RuntimeUnavailableError: it is not there, or is another release; gives the line to type.
    """
    modules = Path(os.environ.get(FOLDER) or "node_modules")
    places = (modules / PACKAGE,) if named is None else (named, named / PACKAGE, named / "node_modules" / PACKAGE)
    repair = f"npm install {PACKAGE}@{ONNXRUNTIME_WEB}, and name its folder with --onnxruntime-web"
    for place in places:
        try:
            facts = json.loads(read_regular(place / "package.json", 1 << 20))
            name, version = facts["name"], facts["version"]
        except (OSError, ValueError, KeyError, TypeError):
            continue
        if name == PACKAGE and version != ONNXRUNTIME_WEB:
            raise RuntimeUnavailableError(
                f"'{place}' is {PACKAGE} {version}, the page is made for {ONNXRUNTIME_WEB}; install that one: {repair}"
            )
        if name == PACKAGE:
            return place
    raise RuntimeUnavailableError(f"{PACKAGE} is not in '{places[0]}'; install it: {repair}")


def read_package(package: Path) -> dict[str, bytes]:
    """What the page needs of ONNX Runtime Web, by its place in the page's folder.

    Raises:
        RuntimeUnavailableError: a file is missing or unreadable.
    """
    contents = {}
    for name in RUNTIME_FILES:
        path = package / "dist" / name
        try:
            contents[f"{RUNTIME_FOLDER}/{name}"] = read_regular(path, LARGEST_RUNTIME_FILE)
        except (OSError, ValueError) as error:
            raise RuntimeUnavailableError(
                f"cannot read '{path}': {reason(error)}; the package is not whole, install it again: "
                f"npm install {PACKAGE}@{ONNXRUNTIME_WEB}"
            ) from error
    return contents


def _embedded() -> ModelFile:
    from converters.convert import convert_to_bytes
    from converters.options import ConvertOptions
    from xdet.detection.embedded import SOURCE

    return ModelFile(SOURCE, convert_to_bytes(SOURCE, ConvertOptions()).model, FINISHED)


def _require_runnable(file: ModelFile, document: ModelDocument) -> None:
    """Refuse what the page does not do, by name."""
    image = document.spec.image
    if not document.spec.gives_boxes:
        raise ModelError(f"'{file.file}' ends at its raw outputs; a page shows boxes: convert it with a head")
    batch = fixed_batch(file.data) or 1
    if batch > 1:
        raise ModelError(f"'{file.file}' takes {batch} pictures at a time; a page has one: convert it with `batch` 1")
    plain = ImageInput(height=1, width=1, rescaling=Rescaling(1.0, 0.0))
    others = {field.name for field in fields(ImageInput)} - IMAGE_FIELDS
    unknown = [name for name in sorted(others) if getattr(image, name) != getattr(plain, name)]
    unknown += [] if image.resize in RESIZE_RULES else ["resize"]
    unknown += [] if image.color in COLORS else ["color"]
    if unknown:
        wanted = ", ".join(f"{name} {getattr(image, name)!r}" for name in unknown)
        raise ModelError(f"'{file.file}' wants pictures with {wanted}, which the page does not do yet")


def _with_low_threshold(model: bytes, document: ModelDocument) -> tuple[bytes, float]:
    """The model with the slider's lowest score as its constant threshold; one that is frozen already keeps its own."""
    own = document.spec.thresholds
    if document.freeze_thresholds:
        return model, own.score
    lowest = min(own.score, LOWEST_SCORE)
    return freeze_thresholds(model, document, replace(own, score=lowest)), lowest


def _facts(document: ModelDocument, *, title: str, lowest: float, samples: Sequence[str]) -> dict[str, Any]:
    """What the page reads of its model (``page.json``)."""
    image, thresholds = document.spec.image, document.spec.thresholds
    kinds = counted(len(document.spec.class_names), "class", "classes")
    return {
        "schema": PAGE_SCHEMA,
        "title": title,
        "about": f"{document.source.name}, {image.width} x {image.height}, {kinds}.",
        "image": {name: getattr(image, name) for name in ("height", "width", "resize", "color", "any_size")},
        "class_names": list(document.spec.class_names),
        "thresholds": {"score": thresholds.score, "iou": thresholds.iou, "lowest": lowest},
        "runtime": RUNTIME_FOLDER,
        "extra": session_extra(document),
        "samples": list(samples),
    }


def _read_samples(pictures: Sequence[Path]) -> dict[str, bytes]:
    names = [picture.name for picture in pictures]
    if len(set(names)) < len(names):
        raise UsageError(f"two samples have the name '{max(names, key=names.count)}'; rename one")
    samples = {}
    for picture in pictures:
        try:
            samples[f"samples/{picture.name}"] = read_regular(picture, LARGEST_PICTURE)
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read '{picture}': {reason(error)}") from error
    return samples


def _offline_worker(contents: Mapping[str, bytes]) -> bytes:
    """The service worker that keeps all files of the page; its version is the hash of what it keeps."""
    hashed = hashlib.sha256()
    for name, data in sorted(contents.items()):
        hashed.update(f"{name} {hashlib.sha256(data).hexdigest()}\n".encode())
    names = json.dumps(["./", *sorted(contents)])
    start = f'// xdet page: keeps it for times without a network.\nconst VERSION = "{hashed.hexdigest()[:16]}";\n'
    return start.encode() + f"const FILES = {names};\n".encode() + (STATIC / WORKER).read_bytes()
