"""What a finished model promises, checked on the finished graph before anything is written: one function per promise."""

from __future__ import annotations

from converters.verify.contract import require_contract

__all__ = ["require_contract"]
