"""Checks of files for any size: the fixed file inside is judged, the file itself gets photographs."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from converters.convert import convert_to_bytes
from converters.options import ConvertOptions
from tests.converters.sources.tflite.networks import HEAD_CHANNELS, SAID, NetworkBuilder
from xdet.checking.check import check

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from xdet.checking.result import CheckResult

pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
LETTERBOX = replace(SAID, resize="letterbox")
PHOTOGRAPHS = [np.random.default_rng(side).integers(0, 256, (side, 90, 3), np.uint8) for side in (40, 64, 201)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A source of 8 x 8 cells, and what becomes of it."""
    folder = tmp_path_factory.mktemp("any")
    source, model = folder / "small.tflite", folder / "small.onnx"
    network = NetworkBuilder(64, seed=3, gain=8.0).conv(16, stride=2, activation="RELU").max_pool()
    source.write_bytes(network.conv(32, activation="RELU").max_pool().conv(HEAD_CHANNELS, 1).build())
    model.write_bytes(convert_to_bytes(source, ConvertOptions(source=LETTERBOX, any_size=True)).model)
    return source, model


def checked(model: Path, source: Path, *, layers: bool = False) -> CheckResult:
    return check(
        model, source, PHOTOGRAPHS, runtimes="onnxruntime:cpu,litert:xnnpack", source_options=LETTERBOX, layers=layers
    )


def edited(model: Path, folder: Path, old: NDArray[Any], new: int) -> Path:
    """The file with other numbers in the place of a constant of what surrounds the network."""
    proto = onnx.load_from_string(model.read_bytes())
    (constant,) = [
        tensor
        for tensor in proto.graph.initializer
        if tensor.name.startswith("any_size/")
        and numpy_helper.to_array(tensor).dtype == old.dtype
        and np.array_equal(numpy_helper.to_array(tensor), old)
    ]
    constant.CopyFrom(numpy_helper.from_array(np.full_like(old, new), constant.name))
    path = folder / "edited.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def test_an_honest_file_passes_and_says_what_it_made_of_photographs(files: tuple[Path, Path]) -> None:
    source, model = files
    result = checked(model, source, layers=True)
    assert {part.part: part.status for part in result.parts if part.findings} == {}
    assert result.layers is not None
    (line,) = result.runs
    assert line.notes == (
        "made the prepared picture of 3 photographs as decoded: 0 of 36,864 values differ; head and boxes, too",
    )
    assert result.model == "small.onnx"


BARS = r"onnxruntime:cpu: the picture inside the file differs from xdet's in .* by up to 114 of 255, expected none"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        pytest.param(np.array(114, np.uint8), 0, BARS, id="bars"),
        pytest.param(
            np.array([64.0, 64.0]), 60, r"image 1, 90 x 40: a box is 0\.\d+ of the photograph away", id="boxes"
        ),
    ],
)
def test_a_file_with_another_rule_around_the_network_fails(
    files: tuple[Path, Path], tmp_path: Path, old: NDArray[Any], new: int, message: str
) -> None:
    source, model = files
    result = checked(edited(model, tmp_path, old, new), source)
    (finding,) = [finding for part in result.parts for finding in part.findings]
    assert (finding.part, finding.cause, finding.runtime) == ("head", "resize", "onnxruntime:cpu")
    assert re.search(message, finding.message)
