"""Detecting in many photographs on Ray Data: one loaded detector per actor, rows as Parquet files of ``xdet detect``.

On CPUs an actor reads, decodes and detects, so that only names and rows travel. With GPUs, tasks on the CPU workers
decode and resize, and actors with a share of a GPU get network-sized pixels. A picture that cannot be read is a row
with its ``error``. Ray starts anew what a killed worker was doing; a row is there once.
"""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from xdet.detection.batch import result_name
from xdet.detection.detector import Detector
from xdet.detection.parquet import arrow_schema, row_to_entry
from xdet.detection.results import NamedImage, detections_to_entry, entry_to_row, failure_to_entry
from xdet.detections import require_classes
from xdet.errors import ImageError, UsageError, XdetError, import_extra
from xdet.pictures.addresses import Address, is_stored
from xdet.pictures.download import fetch
from xdet.pictures.images import Encoded, hash_file
from xdet.pictures.preparation import Preparation, Prepared, prepare, through_network
from xdet.writing.files import with_sidecars

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from converters.spec import ImageInput
    from xdet.detection.results import ResultsFile

BATCH = 16  # photographs that an actor takes at a time
BLOCKS_PER_PROCESSOR = 8  # of a list of names; what is lost with a worker is a part of one
_PIXELS = "_pixels"
_Ready = tuple[NamedImage, Prepared]


def detect(
    dataset: Any,
    model: str | os.PathLike[str] | None = None,
    *,
    classes: Sequence[str] | None = None,
    concurrency: int | None = None,
    num_gpus: float = 0,
    **options: Any,
) -> Any:
    """Detect in a Ray dataset.

    Args:
        dataset: a ``ray.data.Dataset`` whose rows name a photograph in ``path`` (a file that every node sees, or an
            address in a store: s3, gs, abfs, hdfs), and may hold the bytes of its file in ``bytes``, as
            ``ray.data.read_binary_files(..., include_paths=True)`` makes them; or a list of such paths.
        model: as for ``Detector``; its file, and its sidecar, are sent to the actors.
        classes: names of the classes to keep; None keeps all.
        concurrency: actors; None is one per processor of the cluster, or per ``num_gpus``.
        num_gpus: of an actor; above 0, decoding is left to tasks on the CPU workers.
        **options: of ``Detector``: ``provider``, ``provider_options``, ``device``, ``score_threshold``,
            ``iou_threshold``, and ``threads``, 1 if not given.

    Returns:
        A lazy ``ray.data.Dataset`` with the columns of ``xdet.detection.results.COLUMNS``, one row per photograph.

    Raises:
        MissingExtraError: Ray is not installed.
        XdetError: as ``Detector``; the model is opened here once, before any work.
    """
    ray = import_ray()
    settings = {"threads": 1, **options}
    if settings.get("decode", "full") != "full":
        raise UsageError("`decode` reduced is for one machine; leave it out on Ray")
    with Detector(model, **settings) as detector:
        if classes is not None:
            require_classes(classes, detector.spec.class_names, what="`classes`")
        image = detector.spec.image
    if not ray.is_initialized():
        _start(ray)
    resources = ray.cluster_resources()
    processors = int(resources.get("CPU", 1))
    if not isinstance(dataset, ray.data.Dataset):
        rows = [{"path": os.fspath(path)} for path in dataset]
        blocks = min(max(1, len(rows) // BATCH), processors * BLOCKS_PER_PROCESSOR)
        dataset = ray.data.from_items(rows, override_num_blocks=blocks)
    actors = concurrency or max(1, int(resources.get("GPU", 0) / num_gpus) if num_gpus else processors)
    paths = [] if model is None else [path for path in with_sidecars([Path(model)]) if path.is_file()]
    shipped = ray.put(({path.name: path.read_bytes() for path in paths}, settings, classes))
    batches: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": BATCH, "zero_copy_batch": True}
    if num_gpus:
        dataset = dataset.map_batches(_decode, fn_kwargs={"image": image}, **batches)
    return dataset.map_batches(
        _Actor,
        fn_constructor_args=(shipped,),
        compute=ray.data.ActorPoolStrategy(min_size=1, max_size=actors, initial_size=actors),
        num_cpus=0 if num_gpus else 1,
        num_gpus=num_gpus or None,
        **batches,
    )


def detect_to_file(
    detector: Detector,
    images: Sequence[Path | Address],
    results: ResultsFile,
    *,
    classes: Sequence[str] | None = None,
    concurrency: int | None = None,
    progress: Callable[[int], object] = lambda _: None,
) -> int:
    """As ``xdet.detection.batch.detect_to_file``, on Ray; results are written here, in the order of the images.

    Images are files that every node sees under that name, and photographs in stores. One that ``results`` has is known
    by its name alone: it is not read again to see whether it has changed. Actors open detectors of their own with the
    arguments of this one, with one thread each if none were named; ``concurrency`` None is one per processor.

    Returns:
        0, as no image is detected anew.

    Raises:
        UsageError: Ray does not start, or gave up.
    """
    todo = [name for name in map(result_name, images) if name not in results.done or name in results.errors]
    progress(len(images) - len(todo))
    if not todo:
        return 0
    ray = import_ray()
    options = {key: value for key, value in detector.arguments.items() if key not in ("workers", "source_options")}
    options["threads"] = options["threads"] or 1
    with _running(ray), _plain_errors(ray):
        context = ray.data.DataContext.get_current()
        context.execution_options.preserve_order, context.enable_progress_bars = True, False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        rows = detect(todo, classes=classes, concurrency=concurrency, **options)
        for table in rows.iter_batches(batch_format="pyarrow", batch_size=None):
            for row in table.to_pylist():
                results.add_entry(row_to_entry(row))
            progress(table.num_rows)
    return 0


class _Actor:
    """One loaded detector, of the model's files by name (none for the embedded one), options, and classes to keep."""

    def __init__(self, shipped: Any) -> None:
        import ray

        files, options, self._classes = ray.get(shipped)
        with tempfile.TemporaryDirectory(prefix="xdet-ray-") as folder:
            for name, data in files.items():
                (Path(folder) / name).write_bytes(data)
            model = Path(folder) / next(iter(files)) if files else None
            self._detector = Detector(model, **options)

    def __call__(self, batch: Any) -> Any:
        import pyarrow as pa

        detector = self._detector
        image = detector.spec.image

        def detect_ready(batch: Sequence[_Ready]) -> list[dict[str, Any]]:
            results = detector.detect_prepared([prepared for _, prepared in batch], classes=self._classes)
            return [detections_to_entry(name, found) for (name, _), found in zip(batch, results, strict=True)]

        rows = []
        for row, outcome in through_network(
            batch.to_pylist(), lambda row: _ready(row, image), detect_ready, batch=detector.batch, workers=1
        ):
            if isinstance(outcome, ImageError):
                name = NamedImage(row["image" if _PIXELS in row else "path"], getattr(outcome, "sha256", ""))
                outcome = failure_to_entry(name, str(outcome))  # noqa: PLW2901 - the same as an entry
            rows.append(entry_to_row(outcome))
        return pa.Table.from_pylist(rows, arrow_schema())


class _UnreadableError(ImageError):
    """Of a file whose digest is known."""

    def __init__(self, message: str, sha256: str) -> None:
        super().__init__(message)
        self.sha256 = sha256


def _ready(row: Mapping[str, Any], image: ImageInput) -> _Ready:
    """A row of names, of bytes, or of what ``_decode`` made of them, ready for the network."""
    if _PIXELS in row:
        if row["error"] is not None:
            raise _UnreadableError(row["error"], row["sha256"] or "")
        size_wh = (row["width"], row["height"])
        width, height = size_wh if image.any_size else (image.width, image.height)
        pixels = np.frombuffer(row[_PIXELS], np.uint8).reshape(height, width, -1)
        prepared = Prepared(row["image"], size_wh, pixels, image.placement(size_wh))
        return NamedImage(row["image"], row["sha256"]), prepared
    name, data = row["path"], row.get("bytes")
    if data is None and is_stored(name):
        data = fetch(Address(name, in_store=True))
    digest = hash_file(Path(name)) if data is None else hashlib.sha256(data).hexdigest()
    try:
        return NamedImage(name, digest), prepare(name if data is None else Encoded(name, data), Preparation(image))
    except ImageError as error:
        raise _UnreadableError(str(error), digest) from error


def _decode(batch: Any, image: ImageInput) -> Any:
    """Names or bytes -> network-sized pixels: the stage of tasks that have no GPU."""
    import pyarrow as pa

    texts = [(name, pa.string()) for name in ("image", "sha256", "error")]
    schema = pa.schema([*texts, ("width", pa.int32()), ("height", pa.int32()), (_PIXELS, pa.binary())])
    rows: list[dict[str, Any]] = []
    for row in batch.to_pylist():
        try:
            (name, sha256, *_), prepared = _ready(row, image)
        except ImageError as error:
            rows.append({"image": row["path"], "sha256": getattr(error, "sha256", ""), "error": str(error)})
            continue
        width, height = prepared.size_wh
        pixels = prepared.pixels.tobytes()
        rows.append({"image": name, "sha256": sha256, "width": width, "height": height, _PIXELS: pixels})
    return pa.Table.from_pylist(rows, schema)


def _start(ray: Any) -> None:
    """Join the cluster of RAY_ADDRESS, or start one on this machine; no figures of use are sent from here."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # errors come as exceptions
    ray.init(logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)


@contextmanager
def _running(ray: Any) -> Iterator[None]:
    ours = not ray.is_initialized()
    if ours:
        try:
            _start(ray)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise UsageError(f"Ray does not start: {_first_line(error)}") from error
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


@contextmanager
def _plain_errors(ray: Any) -> Iterator[None]:
    """Raise what an actor raised, and what Ray says about itself in one line."""
    try:
        yield
    except ray.exceptions.RayError as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, XdetError):
            cause = getattr(cause, "cause", None) or cause.__cause__
        raise cause or UsageError(f"Ray gave up: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    """Ray's errors have many."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def import_ray() -> Any:
    """The package ``ray`` with its data library, and pyarrow.

    Raises:
        MissingExtraError: it is not installed.
    """
    import_extra("ray.data", "Ray, which `engine` ray needs,", "ray")
    return import_extra("ray", "Ray, which `engine` ray needs,", "ray")
