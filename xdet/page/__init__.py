"""A finished model as a web page: a folder of static files that any server hands out, and that works without a network."""

from __future__ import annotations

from xdet.page.site import ONNXRUNTIME_WEB, make_page

__all__ = ["ONNXRUNTIME_WEB", "make_page"]
