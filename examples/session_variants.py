"""Do session options, preallocated buffers or batches pay on ONNX Runtime's CPU? One table of milliseconds per image.

    python session_variants.py [MODEL.tflite ...] [--blocks 7] [--threads 1]

Without arguments it measures the detector that comes with xdet, from pixels at network size to boxes. The ways: a plain
call that returns new arrays, as xdet calls; the same with one session option changed; IO binding, which reads and
writes buffers that live as long as the session; files converted with `--batch 2` and `--batch 4`. Medians of blocks
that alternate between the ways, with one live session each. All ways must give the same boxes.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime as ort

import xdet
from xdet.pictures.images import network_pixels, read_image

if TYPE_CHECKING:
    from collections.abc import Callable

    Image = np.ndarray[Any, np.dtype[np.uint8]]
    Run = Callable[[], list[np.ndarray[Any, Any]]]
    Ways = dict[str, tuple[int, Callable[[], Run]]]

DATA = Path(xdet.__file__).parent / "data"
EMBEDDED = DATA / "tiny_yolo_v2_person_224_int8.tflite"
BATCHES = (1, 2, 4)


def entry(key: str, value: str) -> Callable[[ort.SessionOptions], None]:
    """What sets an entry of the session's configuration."""
    return lambda options: options.add_session_config_entry(f"session.{key}", value)


def pinned(options: ort.SessionOptions) -> None:
    """Every thread but the caller's on a processor of its own, from the second one on."""
    if options.intra_op_num_threads > 1:
        places = ";".join(str(place) for place in range(2, options.intra_op_num_threads + 1))
        options.add_session_config_entry("session.intra_op_thread_affinities", places)


OPTIONS: dict[str, Callable[[ort.SessionOptions], None]] = {
    "plain call": lambda _: None,
    "no memory arena": lambda options: setattr(options, "enable_cpu_mem_arena", False),
    "no memory pattern": lambda options: setattr(options, "enable_mem_pattern", False),
    "waiting threads sleep": entry("intra_op.allow_spinning", "0"),
    "waiting threads yield sooner": entry("intra_op.spin_backoff_max", "64"),
    "threads pinned to processors": pinned,
    "blocks of work shrink": entry("dynamic_block_base", "4"),
    "denormals are zero": entry("set_denormal_as_zero", "1"),
    "weights unpacked": entry("disable_prepacking", "1"),
    "kernels chosen for latency": entry("kernel_dispatch_policy", "latency"),
    "parallel executor": lambda options: setattr(options, "execution_mode", ort.ExecutionMode.ORT_PARALLEL),
    "no layout optimisation": lambda options: setattr(
        options, "graph_optimization_level", ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    ),
}


def open_session(path: Path, threads: int, option: str = "plain call") -> ort.InferenceSession:
    """A session on the CPU, quiet about the optional thresholds."""
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    OPTIONS[option](options)
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def open_plain(path: Path, images: Image, threads: int, option: str = "plain call") -> Run:
    """Call with arrays, get new arrays."""
    session = open_session(path, threads, option)
    return lambda: session.run(None, {"image": images})


def open_saved(path: Path, images: Image, threads: int) -> Run:
    """The graph as ONNX Runtime optimised it, written and opened as it is."""
    saved = path.with_suffix(".optimised.onnx")
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.optimized_model_filepath = str(saved)
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(saved), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"image": images})


def open_bound(path: Path, images: Image, threads: int) -> Run:
    """Copy the picture into a buffer that is bound, and read results where they are written."""
    session = open_session(path, threads)
    binding, picture = session.io_binding(), np.empty_like(images)
    first = session.run(None, {"image": images})
    values = [ort.OrtValue.ortvalue_from_numpy(array) for array in first]
    binding.bind_ortvalue_input("image", ort.OrtValue.ortvalue_from_numpy(picture))
    for output, value in zip(session.get_outputs(), values, strict=True):
        binding.bind_ortvalue_output(output.name, value)

    def run() -> list[np.ndarray[Any, Any]]:
        picture[:] = images
        session.run_with_iobinding(binding)
        return [value.numpy() for value in values]

    return run


def ways(source: Path, folder: Path, threads: int) -> Ways:
    """By name: images per call, and what opens a session and gives the call."""
    files = {batch: folder / f"{source.stem}_{batch}.onnx" for batch in BATCHES}
    for batch, path in files.items():
        spec = xdet.convert(source, path, target="cpu", batch=batch).document.spec.image
    photograph = read_image(DATA / "astronaut.jpg", honour_exif=True)
    image = network_pixels(photograph, spec)[None]
    plain = {
        f"batches of {batch}": (batch, partial(open_plain, path, image.repeat(batch, axis=0), threads))
        for batch, path in files.items()
    }
    del plain["batches of 1"]
    optioned = {option: (1, partial(open_plain, files[1], image, threads, option)) for option in OPTIONS}
    others = {"optimised graph, saved": open_saved, "IO binding": open_bound}
    opened = {name: (1, partial(opener, files[1], image, threads)) for name, opener in others.items()}
    return {**optioned, **opened, **plain}


def require_equal(found: Ways) -> None:
    """End the program unless every way gives the boxes of the first one for each of its images."""
    expected, *others = ([array.copy() for array in opener()()] for _, opener in found.values())
    if not expected[0].any():
        sys.exit("nothing was found in the photograph: the comparison would be void")
    for name, arrays in zip(list(found)[1:], others, strict=True):
        for array, wanted in zip(arrays, expected, strict=True):
            if array.tobytes() != wanted.repeat(len(array), axis=0).tobytes():
                sys.exit(f"'{name}' gives other boxes than the plain call")


def milliseconds(found: Ways, blocks: int) -> list[float]:
    """Median milliseconds per image of each way, in alternating blocks with one live session."""
    times: list[list[float]] = [[] for _ in found]
    for _ in range(blocks):
        for (batch, opener), collected in zip(found.values(), times, strict=True):
            run, block = opener(), list[float]()
            for _ in range(5):
                run()
            until = time.perf_counter() + 0.25
            while time.perf_counter() < until:
                started = time.perf_counter()
                run()
                block.append((time.perf_counter() - started) / batch)
            collected.append(statistics.median(block))
            del run
            gc.collect()
    return [1e3 * statistics.median(collected) for collected in times]


def main() -> None:
    """Measure every model named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", type=Path, help="TFLite detectors with their sidecars")
    parser.add_argument("--blocks", type=int, default=7)
    parser.add_argument("--threads", type=int, default=1, help="inside an operator")
    arguments = parser.parse_args()
    sources, columns = arguments.models or [EMBEDDED], list[list[float]]()
    names: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        for source in sources:
            found = ways(source, Path(folder), arguments.threads)
            require_equal(found)
            names, columns = list(found), [*columns, milliseconds(found, arguments.blocks)]
    print(f"onnxruntime {ort.__version__}, threads inside an operator: {arguments.threads}\n")
    print(f"| ms per image | {' | '.join(source.stem for source in sources)} |")
    print("|---" * (1 + len(sources)) + "|")
    for row, name in enumerate(names):
        print(f"| {name} | {' | '.join(f'{column[row]:.2f}' for column in columns)} |")


if __name__ == "__main__":
    main()
