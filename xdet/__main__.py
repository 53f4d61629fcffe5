"""``python -m xdet`` and the ``xdet`` command."""

from __future__ import annotations

from xdet.cli.app import main

if __name__ == "__main__":
    main()
