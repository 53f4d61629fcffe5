"""``python -m xdet`` and the ``xdet`` command."""

from __future__ import annotations

import atexit
import gc
import os

# before numpy is loaded: its products here are small, and a second thread takes more time to wait than to help
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
gc.disable()

from xdet.cli.app import main  # noqa: E402 - no collection while it is loaded

# what was imported lives until the end, and most of the rest, too: collections that look at it are 50 ms of a start
gc.freeze()
gc.enable()
atexit.register(gc.freeze)

if __name__ == "__main__":
    main()
