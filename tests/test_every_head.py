"""A small network of every head: what the matrix of runtimes measures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from converters.convert import convert_to_bytes
from converters.heads import HEADS as KNOWN
from converters.options import ConvertOptions

if TYPE_CHECKING:
    from pathlib import Path

pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')


def test_each_head_has_a_network_whose_file_and_sidecar_say_all(tmp_path: Path) -> None:
    from tests.every_head import HEADS, write_look_alikes

    assert set(HEADS) == set(KNOWN)
    for path in write_look_alikes(tmp_path):
        head = convert_to_bytes(path, ConvertOptions()).document.spec.head
        assert head is not None
        assert head.kind == path.stem
