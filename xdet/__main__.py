"""``python -m xdet`` and the ``xdet`` command."""

from __future__ import annotations

import os

# before numpy is loaded: its products here are small, and a second thread takes more time to wait than to help
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from xdet.cli.app import main

if __name__ == "__main__":
    main()
