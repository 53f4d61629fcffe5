"""The open detector of tests of results, for one photograph at a time and for several."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.xdet.finished_models import finished_model
from xdet.detection.detector import Detector

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=[1, 3], ids="workers-{}".format)
def detector(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Detector]:
    (tmp_path / "m.onnx").write_bytes(finished_model())
    with Detector(tmp_path / "m.onnx", threads=1, workers=request.param) as detector:
        yield detector
