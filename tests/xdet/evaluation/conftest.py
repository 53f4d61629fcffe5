"""The scene and the model that tests of evaluations share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.xdet.labelled_scenes import Scene, two_people, write_model

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return two_people(tmp_path)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_model(tmp_path / "identity.onnx")
