"""What a conversion costs, how soon the first box is there, and whether the network is really int8, on this machine.

Usage: python measure.py [SOURCE.tflite] [--repeats 5]

Without an argument it measures the detector that comes with xdet. Times are medians. Conversion and first box run in
processes of their own, from the interpreter's start; the fused head's share is a finished model against the same one
without its head, on one thread, in alternating blocks with one live session, because idle sessions keep spinning
threads.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

CONVERT = """
import sys, time
started = time.perf_counter()
import xdet
xdet.convert(sys.argv[1], sys.argv[2], force=True)
seconds = time.perf_counter() - started
try:
    import resource
except ImportError:  # Windows
    print(seconds, "n/a")
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(seconds, f"{peak / (1e6 if sys.platform == 'darwin' else 1e3):.0f} MB")
"""
WARM_UP = 5


def describe_machine() -> str:
    """Processor, cores, system and versions."""
    from importlib.metadata import version

    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor() or platform.machine()
    packages = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "numpy"))
    return f"{processor}, {os.cpu_count()} CPUs, {platform.system()}, Python {platform.python_version()}, {packages}"


def convert(source: Path, target: Path, repeats: int) -> tuple[float, str]:
    """Seconds and peak memory of a process that converts ``source``; Linux counts this one in, which is still small."""
    command = [sys.executable, "-c", CONVERT, str(source), str(target)]
    printed = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(repeats)]
    runs = [line.split(" ", 1) for line in printed]
    return statistics.median(float(seconds) for seconds, _ in runs), runs[-1][1].strip()


def first_box_s(model: Path, photo: Path, repeats: int) -> float:
    """Seconds from starting ``xdet detect`` on a finished model to its printed table."""
    command, seconds = [sys.executable, "-m", "xdet", "detect", str(model), str(photo)], []
    for _ in range(repeats):
        started = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)


def block_ms(model: Path, block_s: float = 0.5) -> float:
    """Median milliseconds per image of one session on one thread, at score 0.5, over ``block_s`` seconds."""
    from converters.spec import Thresholds
    from xdet.pictures.images import network_pixels, read_image
    from xdet.runtimes.base import RuntimeChoices
    from xdet.runtimes.table import open_runtime

    with open_runtime(model, RuntimeChoices(threads=1)) as runtime:
        photo = network_pixels(read_image(sample_photo(), honour_exif=True), runtime.spec.image)
        images, thresholds = photo[None], Thresholds(score=0.5)
        run = runtime.head if not runtime.spec.gives_boxes else lambda x: runtime.detect(x, thresholds)
        times: list[float] = []
        begun = time.perf_counter()
        while len(times) < WARM_UP or time.perf_counter() - begun < block_s:
            started = time.perf_counter()
            run(images)
            times.append(time.perf_counter() - started)
    gc.collect()
    return 1e3 * statistics.median(times[WARM_UP:] or times)


def head_share(fused: Path, bare: Path, repeats: int) -> tuple[float, float]:
    """Median milliseconds of the bare network, and the share of the finished model's time that its head takes."""
    pairs = [(block_ms(bare), block_ms(fused)) for _ in range(repeats)]
    network, whole = (statistics.median(times) for times in zip(*pairs, strict=True))
    return network, (whole - network) / whole


def sample_photo() -> Path:
    """The astronaut that comes with xdet."""
    import xdet

    return Path(xdet.__file__).parent / "data" / "astronaut.jpg"


def main() -> None:
    """Measure one source and print what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", nargs="?", type=Path, help="a TFLite detector with its sidecar")
    parser.add_argument("--repeats", type=int, default=5, help="of everything")
    arguments = parser.parse_args()
    source = arguments.source or sample_photo().with_name("tiny_yolo_v2_person_224_int8.tflite")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        fused, bare = folder / "fused.onnx", folder / "bare.onnx"
        print(describe_machine())
        seconds, peak = convert(source, fused, arguments.repeats)
        print(f"{source.name}, {source.stat().st_size / 1e6:.1f} MB")
        print(f"  conversion, interpreter start excluded: {seconds:.2f} s, peak {peak}")
        first_s = first_box_s(fused, sample_photo(), arguments.repeats)
        print(f"  start to first box with the finished model: {first_s:.2f} s")

        import xdet
        from xdet.inspection.coverage import integer_coverage

        xdet.convert(source, bare, head="none")
        coverage = integer_coverage(bare.read_bytes(), file=bare.name)
        share, macs = coverage.share or 0.0, coverage.macs_total
        print(f"  multiply-accumulates in integer kernels: {share:.2%} of {macs / 1e6:.0f} million")
        network, head = head_share(fused, bare, arguments.repeats)
        print(f"  network, 1 thread: {network:.2f} ms; fused head: {head:.1%} of the finished model's time")


if __name__ == "__main__":
    main()
