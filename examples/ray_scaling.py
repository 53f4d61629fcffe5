"""How fast ``xdet detect --engine ray`` is beside plain ``xdet detect``, and what many photographs cost.

    python ray_scaling.py detector.onnx photos --photographs 20000 --workers 1 2 --kill --price 0.10

makes links to the photographs until there are as many as asked, and detects in them in turn: plainly and on Ray, with
each number of workers. ``--kill`` kills one of Ray's workers in every run; the lines must still be those of the plain
run. The cost is arithmetic on the last column: photographs / (images per second and worker) / 3600 x price.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path

import ray  # noqa: TID253 - what this program is about

from xdet import Detector, detect_to_file, open_results
from xdet.detection.results import results_header
from xdet.pictures.images import find_images
from xdet.ray import detect_to_file as detect_on_ray


@dataclass
class Timing:
    """Seconds to the first result, and images per second behind it."""

    first_s: float
    per_s: float


class Clock:
    """Called with the number of images that are done since the last call."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.ticks: list[tuple[float, int]] = []

    def __call__(self, done: int) -> None:
        """Note the time of some images."""
        if done:
            self.ticks.append((time.perf_counter() - self.started, done))

    def timing(self) -> Timing:
        """Without the images of the first report, whose work began before it."""
        (first_s, first), (last_s, _) = self.ticks[0], self.ticks[-1]
        rest = sum(done for _, done in self.ticks) - first
        return Timing(first_s, rest / (last_s - first_s))


def run(model: Path, images: list[Path], target: Path, workers: int, *, on_ray: bool) -> Timing:
    """Detect in all of them."""
    clock = Clock()
    with (
        Detector(model, threads=1, workers=1 if on_ray else workers) as detector,
        open_results(target, results_header(detector, None), anew=True) as results,
    ):
        if on_ray:
            detect_on_ray(detector, images, results, concurrency=workers, progress=clock)
        else:
            detect_to_file(detector, images, results, progress=clock)
    return clock.timing()


def kill_one(target: Path, lines: int) -> None:
    """Kill the first of Ray's workers that is found once ``target`` has so many lines (Linux)."""
    while not target.exists() or target.stat().st_size < 200 * lines:
        time.sleep(0.05)
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and (process / "cmdline").read_bytes().startswith(b"ray::MapWorker"):
            os.kill(int(process.name), signal.SIGKILL)
            print(f"    killed worker {process.name}", flush=True)
            return


def main() -> int:
    """Print a line per run; exit code 1 where lines differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--photographs", type=int, default=2000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--kill", action="store_true", help="kill a worker in every run on Ray")
    parser.add_argument("--price", type=float, help="of a processor and hour")
    asked = parser.parse_args()
    code = 0
    with tempfile.TemporaryDirectory(prefix="xdet-ray-") as name:
        folder = Path(name)
        images = []
        for number, photo in enumerate(islice(cycle(find_images([asked.photos])), asked.photographs)):
            images.append(folder / f"{number:07}{photo.suffix}")
            images[-1].symlink_to(photo.resolve())
        ray.init(num_cpus=max(asked.workers), logging_level=logging.ERROR, log_to_driver=False, include_dashboard=False)
        print("workers  engine  first s  images/s  per worker  against plain", flush=True)
        for workers in asked.workers:
            plain = run(asked.model, images, folder / "plain.jsonl", workers, on_ray=False)
            killer = threading.Thread(target=kill_one, args=(folder / "ray.jsonl", len(images) // 3), daemon=True)
            (folder / "ray.jsonl").unlink(missing_ok=True)
            if asked.kill:
                killer.start()
            there = run(asked.model, images, folder / "ray.jsonl", workers, on_ray=True)
            for engine, found in (("plain", plain), ("ray", there)):
                columns = f"{found.first_s:7.1f}  {found.per_s:8.1f}  {found.per_s / workers:10.1f}"
                print(f"{workers:7}  {engine:6}  {columns}  {plain.per_s / found.per_s - 1:+13.1%}", flush=True)
            same = (folder / "ray.jsonl").read_bytes() == (folder / "plain.jsonl").read_bytes()
            print(f"    lines of both: {'equal' if same else 'DIFFERENT'}", flush=True)
            code |= not same
            if asked.price is not None:
                hours = 1e7 / (there.per_s / workers) / 3600
                print(
                    f"    10,000,000 photographs: {hours:.0f} processor hours x {asked.price:g} = "
                    f"{hours * asked.price:.2f}"
                )
    return code


if __name__ == "__main__":
    sys.exit(main())
