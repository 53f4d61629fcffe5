"""Writes ONNX: turns a detector as its maker left it into one finished graph, through ``xdet.convert``."""

from __future__ import annotations

from converters.errors import ConversionError

__all__ = ["ConversionError"]
