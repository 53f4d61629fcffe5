"""The format of a model is told from its bytes, quickly and without the libraries that read it."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnx.helper
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.files import HDF5_SIGNATURE, ONNX_MAX_FIELDS
from converters.sources import FINISHED, SOURCES, sniff_format
from converters.spec import METADATA_KEY

if TYPE_CHECKING:
    from pathlib import Path


def zip_of(*members: str) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for member in members:
            archive.writestr(member, "{}")
    return stream.getvalue()


def onnx_model(**attributes: str | int) -> onnx.ModelProto:
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [1])],
    )
    return onnx.helper.make_model(graph, **attributes)


def finished_onnx() -> bytes:
    model = onnx_model()
    onnx.helper.set_model_props(model, {"other": "x", METADATA_KEY: "{}"})
    serialized: bytes = model.SerializeToString()
    return serialized


FILES: dict[str, tuple[bytes, str | None]] = {
    "tflite": (b"\x1c\0\0\0TFL3" + bytes(40), "tflite"),
    "tflite, cut behind the identifier": (b"\x1c\0\0\0TFL3", "tflite"),
    "h5": (HDF5_SIGNATURE + bytes(40), "h5"),
    "h5 behind a user block": (bytes(1024) + HDF5_SIGNATURE + bytes(8), "h5"),
    "h5 signature at a place that means nothing": (bytes(700) + HDF5_SIGNATURE + bytes(8), None),
    "keras": (zip_of("metadata.json", "config.json", "model.weights.h5"), "keras"),
    "keras, packed again in another order": (zip_of("config.json", "metadata.json"), "keras"),
    "keras, cut": (zip_of("metadata.json", "config.json", "model.weights.h5")[:60], "keras"),
    "another zip": (zip_of("word/document.xml", "config.json"), None),
    "onnx": (onnx_model().SerializeToString(), "onnx-source"),
    "onnx that xdet made": (finished_onnx(), "onnx"),
    "onnx with a long description": (onnx_model(doc_string="x" * 5000).SerializeToString(), "onnx-source"),
    "onnx with a negative model version": (onnx_model(model_version=-1).SerializeToString(), "onnx-source"),
    "onnx, cut inside the graph": (onnx_model().SerializeToString()[:20], "onnx"),
    "onnx without a graph": (onnx.ModelProto(ir_version=9, producer_name="p").SerializeToString(), None),
    "an onnx tensor": (onnx.numpy_helper.from_array(np.ones(3)).SerializeToString(), None),
    "protobuf with fields ModelProto does not have": (b"\x08\x09\x62\x01a\x3a\x01a", None),
    "protobuf with an impossible version": (b"\x08\x80\x80\x80\x80\x10\x3a\x01a", None),
    "nothing but versions": (b"\x08\x09" * (2 * ONNX_MAX_FIELDS), None),
    "jpeg": (b"\xff\xd8\xff\xe0" + bytes(40), None),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(40), None),
    "text": (b"a,b,c\n" * 10, None),
    "empty": (b"", None),
}


@pytest.mark.parametrize(("data", "expected"), FILES.values(), ids=FILES.keys())
def test_the_bytes_tell_the_format(data: bytes, expected: str | None) -> None:
    assert sniff_format(data) == expected


def test_the_embedded_model_is_tflite(embedded_tflite: Path) -> None:
    assert sniff_format(embedded_tflite.read_bytes()) == "tflite"


@given(st.binary(max_size=600), st.sampled_from([b"", b"\x08\x09", b"PK\x03\x04", b"\x08\x09\x12\xff\xff\xff\xff"]))
def test_any_bytes_have_an_answer(tail: bytes, head: bytes) -> None:
    assert sniff_format(head + tail) in {*SOURCES, FINISHED, None}


def test_sniffing_imports_neither_onnx_nor_a_schema() -> None:
    code = (
        "import sys; from converters.sources import sniff_format; "
        "print([m for m in ('onnx', 'onnx_ir', 'tflite', 'tensorflow') if m in sys.modules])"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
