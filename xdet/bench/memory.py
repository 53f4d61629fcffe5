"""Peak memory of one model on one runtime, in a process of its own: ``python -m xdet.bench.memory MODEL RUNTIME THREADS``.

Nothing that the benchmark itself has loaded counts. Linux keeps the peak of a process in ``/proc``; macOS and Windows tell it
by other names. Each figure is the resident set: pages of shared libraries count in full.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xdet.bench.records import Memory
from xdet.errors import MissingExtraError, RuntimeUnavailableError

if TYPE_CHECKING:
    from xdet.runtimes.choices import RuntimeChoices

LONGEST_S = 300.0
RUNS = 3
MODULE = "xdet.bench.memory"


def measure_memory(model: Path, choices: RuntimeChoices) -> Memory:
    """Open and run a model in a new process.

    Args:
        model: the file.
        choices: runtime, provider and threads, each of them named.

    Raises:
        MissingExtraError: psutil is not installed.
        RuntimeUnavailableError: the process failed.
    """
    require_psutil()
    runtime = f"{choices.runtime}:{choices.provider}" if choices.provider else str(choices.runtime)
    command = [sys.executable, "-m", MODULE, str(model.resolve()), runtime, str(choices.threads)]
    package = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(  # noqa: S603 - this very module
            command,
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
            timeout=LONGEST_S,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeUnavailableError(
            f"'{model}' on {runtime}: its process took over {LONGEST_S:.0f} s"
        ) from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise RuntimeUnavailableError(
            f"'{model}' on {runtime}: its process ended with {done.returncode}: {last}"
        )
    return Memory(**json.loads(done.stdout.splitlines()[-1]))


def require_psutil() -> Any:
    """The package that tells memory on every system.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import psutil
    except ImportError as error:
        raise MissingExtraError("psutil, which tells a process' memory,", "bench") from error
    return psutil


def peak_bytes(psutil: Any) -> int:
    """The highest resident set of this process so far."""
    status = Path("/proc/self/status")
    if status.is_file():  # not getrusage, which counts the process that started this one, too
        lines = status.read_text(encoding="ascii", errors="replace").splitlines()
        peaks = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
        if peaks:
            return peaks[0]
    memory = psutil.Process().memory_info()
    if hasattr(memory, "peak_wset"):
        return int(memory.peak_wset)
    import resource

    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)  # macOS counts bytes


def main() -> None:
    """Measure, and print one line of JSON."""
    import numpy as np

    from xdet.runtimes.opening import open_runtime, parse_runtimes

    psutil = require_psutil()
    model, runtime, threads = sys.argv[1:]
    (choices,) = parse_runtimes(runtime, threads=int(threads))
    before = int(psutil.Process().memory_info().rss)
    with open_runtime(Path(model), choices) as opened:
        size = opened.spec.image
        image = np.zeros((opened.batch or 1, size.height, size.width, 3), np.uint8)
        for _ in range(RUNS):
            opened.detect(image, opened.spec.thresholds)
        print(json.dumps({"before_bytes": before, "peak_bytes": peak_bytes(psutil)}))  # noqa: T201 - the answer


if __name__ == "__main__":
    main()
