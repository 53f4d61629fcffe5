"""What docs/hosts.md says of ONNX Runtime's own format, by its own command."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest

from converters.convert import convert_to_bytes
from converters.options import ConvertOptions
from xdet.errors import ModelError
from xdet.model.file import read_document
from xdet.pictures.preparation import Preparation, prepare
from xdet.runtimes.table import open_runtime

ROOT = Path(__file__).resolve().parent.parent


def test_the_fixed_style_keeps_bits_thresholds_and_metadata(
    embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "models").mkdir()
    model = tmp_path / "models" / "detector.onnx"
    model.write_bytes(convert_to_bytes(embedded_tflite, ConvertOptions()).model)
    line = re.search(r"^python (-m onnxruntime\.tools\..*)$", (ROOT / "docs" / "hosts.md").read_text("utf-8"), re.M)
    assert line is not None
    command = [sys.executable, *shlex.split(line[1])]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    options = ort.SessionOptions()
    options.log_severity_level = 3
    sessions = [
        ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for path in (model, model.with_suffix(".ort"))
    ]
    told = [session.get_modelmeta().custom_metadata_map for session in sessions]
    assert told[0] == told[1]
    how = Preparation(read_document(model.read_bytes(), file="detector.onnx").spec.image)
    for picture in sample_pictures:
        image = prepare(picture, how).pixels[None]
        for threshold in (0.5, 0.05):
            fed = {"image": image, "score_threshold": np.array(threshold, np.float32)}
            onnx, own = (session.run(None, fed) for session in sessions)
            assert onnx[0] > 0
            assert all(np.array_equal(a, b) for a, b in zip(onnx, own, strict=True))


def test_xdet_refuses_the_format_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "detector.ort"
    path.write_bytes(b"\x18\x00\x00\x00ORTM" + bytes(64))
    with pytest.raises(ModelError, match=r"detector\.ort' is "):
        open_runtime(path)
