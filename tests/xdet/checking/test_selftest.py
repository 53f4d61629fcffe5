"""The self-test: honest files are exact on every CPU, and each planted fault is broken, with its distance."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import helper

from converters.convert import Conversion, convert_to_bytes
from converters.description.statements import SourceOptions
from converters.integer.golden import Agreement, RawCodes, make_vector, stored_codes
from converters.options import ConvertOptions
from converters.spec import METADATA_KEY, GoldenVector, ModelDocument
from tests.converters.sources.tflite.ssd_networks import ssd_with_postprocess
from tests.converters.sources.tflite.test_outputs import network
from tests.xdet.command import run_xdet
from tests.xdet.finished_models import finished_model
from tests.xdet.planted_faults import (
    another_slope,
    edited,
    one_scale,
    one_weight,
    one_zero_point,
    padding_on_the_other_side,
    red_and_blue_swapped,
    stripped_quantisation,
)
from xdet.checking.selftest import SelfTest, Verdict, judge, run_selftest, selftest_report, selftest_to_json
from xdet.errors import ModelError, RuntimeUnavailableError
from xdet.writing.terminal import report_text

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[3]
VALUES = 7 * 7 * 30


@pytest.fixture(scope="module")
def embedded(embedded_tflite: Path) -> Conversion:
    return convert_to_bytes(embedded_tflite, ConvertOptions())


@pytest.fixture(scope="module")
def golden(embedded: Conversion) -> GoldenVector:
    assert embedded.document.golden is not None
    return embedded.document.golden


def outcome(model: bytes, folder: Path) -> SelfTest:
    path = folder / "person.onnx"
    path.write_bytes(model)
    return run_selftest(path, threads=1)


def with_vector(conversion: Conversion, vector: GoldenVector | None) -> bytes:
    return with_document(conversion, replace(conversion.document, golden=vector))


def with_document(conversion: Conversion, document: ModelDocument) -> bytes:
    model = onnx.load_from_string(conversion.model)
    helper.set_model_props(model, {METADATA_KEY: document.to_json()})
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    "options",
    [
        ConvertOptions(),
        ConvertOptions(activations="int8"),
        ConvertOptions(target="cpu"),
        ConvertOptions(leaky_relu="float"),
        ConvertOptions(freeze_thresholds=True),
        ConvertOptions(batch="dynamic"),
        ConvertOptions(batch=3),
    ],
    ids=["uint8", "int8", "cpu", "float leaky relu", "frozen", "dynamic batch", "batch 3"],
)
def test_honest_conversions_are_exact(options: ConvertOptions, embedded_tflite: Path, tmp_path: Path) -> None:
    found = outcome(convert_to_bytes(embedded_tflite, options).model, tmp_path)
    assert found.verdict == "exact"
    assert found.passed
    assert found.runtime == "onnxruntime:cpu"
    assert found.agreement == Agreement(exact=True, differing=0, compared=VALUES, worst_lsb=0.0, off_lattice=0)
    assert found.bound_lsb == 0


def test_int8_codes_with_several_readers_are_exact_by_the_entry_that_the_report_names(tmp_path: Path) -> None:
    """The head has two outputs."""
    source = tmp_path / "ssd.tflite"
    source.write_bytes(ssd_with_postprocess())
    found = outcome(convert_to_bytes(source, ConvertOptions(activations="int8")).model, tmp_path)
    assert (found.verdict, found.exact_kernels) == ("exact", "session.qdqisint8allowed")
    lines = report_text(selftest_report(found), None).splitlines()
    assert "because this CPU's usual ones saturate, or compute in float32; without them: " in lines[1]
    assert lines[2] == "  in programs of your own, set the session entry session.qdqisint8allowed = 1"


@pytest.mark.shared
@pytest.mark.parametrize(
    ("model", "values"),
    [
        ("tiny_yolo_v2_person_192_int8", 1080),
        ("tiny_yolo_v2_person_224_per_tensor_int8", 1470),
        ("tiny_yolo_v2_person_416_int8", 5070),
    ],
)
def test_every_shared_detector_is_exact(model: str, values: int, shared_dir: Path, tmp_path: Path) -> None:
    source = shared_dir / "models" / f"{model}.tflite"
    found = outcome(convert_to_bytes(source, ConvertOptions()).model, tmp_path)
    assert (found.verdict, found.agreement.compared) == ("exact", values)


@pytest.mark.parametrize(
    "fault",
    [one_weight, one_scale, one_zero_point, padding_on_the_other_side, another_slope, red_and_blue_swapped],
    ids=lambda fault: fault.__name__,
)
def test_a_fault_in_the_file_is_broken(
    fault: Callable[[onnx.GraphProto], None], embedded: Conversion, tmp_path: Path
) -> None:
    found = outcome(edited(embedded.model, fault), tmp_path)
    assert found.verdict == "broken"
    assert not found.passed
    assert found.agreement.differing >= 10
    assert found.agreement.worst_lsb >= 1
    assert found.agreement.off_lattice == 0


def test_stripped_quantisation_is_broken_and_named(embedded: Conversion, tmp_path: Path) -> None:
    found = outcome(edited(embedded.model, stripped_quantisation), tmp_path)
    assert found.verdict == "broken"
    assert found.agreement.off_lattice > VALUES * 0.9
    assert "the quantisation was stripped or changed" in report_text(selftest_report(found), None)


@pytest.mark.parametrize(
    ("worst", "bound", "verdict"),
    [(1.0, 0, "broken"), (1.0, 1, "bounded"), (2.0, 1, "broken"), (0.0, 1, "bounded"), (np.inf, 9, "broken")],
)
def test_a_difference_is_bounded_up_to_the_bound(worst: float, bound: int, verdict: Verdict) -> None:
    assert judge(Agreement(exact=False, differing=1, compared=9, worst_lsb=worst, off_lattice=0), bound) == verdict


def test_a_model_whose_document_allows_a_code_is_bounded(
    embedded: Conversion, golden: GoldenVector, tmp_path: Path
) -> None:
    codes = stored_codes(golden).reshape(7, 7, 30).copy()
    codes[3, 3] += 1
    vector = make_vector(
        [RawCodes(codes, np.float32(golden.scale), golden.zero_point)],
        room_bytes=len(embedded.model),
        bound_lsb=1,
        other_kernels_lsb=6,
    )
    found = outcome(with_vector(embedded, vector), tmp_path)
    assert (found.verdict, found.passed, found.bound_lsb) == ("bounded", True, 1)
    assert (found.agreement.differing, found.agreement.worst_lsb) == (30, 1.0)
    assert "bounded: 30 of 1,470 head values differ, by up to 1 LSB (1 allowed)" in report_text(
        selftest_report(found), None
    )


def test_a_model_without_a_vector_is_refused(embedded: Conversion, tmp_path: Path) -> None:
    with pytest.raises(
        ModelError, match=r"holds no golden vector: an earlier version converted it; .* convert it again"
    ):
        outcome(with_vector(embedded, None), tmp_path)


def test_a_note_says_why_a_model_has_no_vector(embedded: Conversion, tmp_path: Path) -> None:
    note = "no golden vector for xdet selftest: the head is float"
    document = replace(embedded.document, golden=None, notes=(note,))
    told = "holds no golden vector: the head is float; compare it with its source: xdet check$"
    with pytest.raises(ModelError, match=told):
        outcome(with_document(embedded, document), tmp_path)


def test_a_vector_of_another_recipe_is_refused(embedded: Conversion, golden: GoldenVector, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a golden vector of recipe 2, this xdet makes the picture of recipe 1"):
        outcome(with_vector(embedded, replace(golden, generator=2)), tmp_path)


@pytest.mark.parametrize("codes", ["AAAA", "no base64!"])
def test_codes_that_do_not_fit_are_refused(
    codes: str, embedded: Conversion, golden: GoldenVector, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=r"its golden vector cannot be read: .* was the file edited"):
        outcome(with_vector(embedded, replace(golden, codes=codes)), tmp_path)


def test_every_output_of_several_is_tested(tmp_path: Path) -> None:
    source = tmp_path / "grids.tflite"
    source.write_bytes(network("grids"))
    conversion = convert_to_bytes(source, ConvertOptions(source=SourceOptions(head="none")))
    found = outcome(conversion.model, tmp_path)
    assert (found.verdict, found.agreement.compared) == ("exact", 48)  # every fifth of both grids' 240 values
    assert conversion.document.golden is not None
    (part,) = conversion.document.golden.further
    other = replace(conversion.document.golden, further=(replace(part, zero_point=part.zero_point + 1),))
    assert outcome(with_vector(conversion, other), tmp_path).verdict == "broken"


def test_a_source_file_is_refused(embedded_tflite: Path) -> None:
    with pytest.raises(ModelError, match="is no ONNX file; selftest takes finished models"):
        run_selftest(embedded_tflite)


def test_a_provider_that_is_not_here_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    path.write_bytes(finished_model())
    with pytest.raises(RuntimeUnavailableError, match="'qnn' is not available"):
        run_selftest(path, provider="qnn")


def test_the_json_names_its_schema_and_holds_no_folder(embedded: Conversion, tmp_path: Path) -> None:
    data = json.loads(selftest_to_json(outcome(embedded.model, tmp_path)))
    assert (data["schema"], data["version"], data["verdict"]) == ("xdet.selftest", 1, "exact")
    assert data["model"]["name"] == "person.onnx"
    assert len(data["model"]["sha256"]) == 64
    assert str(tmp_path) not in json.dumps(data)


def test_an_infinite_distance_is_null_in_json() -> None:
    worst = Agreement(exact=False, differing=1, compared=9, worst_lsb=np.inf, off_lattice=1)
    found = SelfTest("m.onnx", "0" * 64, "onnxruntime:cpu", "broken", worst, 0)
    assert json.loads(selftest_to_json(found))["agreement"]["worst_lsb"] is None


def test_the_command_exits_with_0_for_exact_and_1_for_broken(embedded: Conversion, tmp_path: Path) -> None:
    sound, broken = tmp_path / "sound.onnx", tmp_path / "broken.onnx"
    sound.write_bytes(embedded.model)
    broken.write_bytes(edited(embedded.model, another_slope))
    result = run_xdet("selftest", sound)
    assert result.returncode == 0
    assert result.stdout.splitlines()[0].endswith(": exact: all 1,470 head values have the golden bits")
    result = run_xdet("selftest", broken, "--json", "-")
    assert result.returncode == 1
    assert json.loads(result.stdout)["verdict"] == "broken"


def test_it_runs_without_onnx_and_without_any_conversion_code(embedded: Conversion, tmp_path: Path) -> None:
    path = tmp_path / "person.onnx"
    path.write_bytes(embedded.model)
    watched = ("onnx", "onnx_ir", "tensorflow", "ai_edge_litert", "converters.convert", "converters.integer.evaluate")
    code = (
        f"import sys; from pathlib import Path; from xdet.checking.selftest import run_selftest\n"
        f"print(run_selftest(Path({str(path)!r})).verdict, [m for m in {watched!r} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "exact []", done.stderr


@pytest.mark.emulator
def test_the_command_tells_on_haswell_what_other_programs_must_set(
    embedded: Conversion, tmp_path: Path, qemu_x86_64: str
) -> None:
    model = tmp_path / "person.onnx"
    model.write_bytes(embedded.model)
    command = [qemu_x86_64, "-cpu", "Haswell", sys.executable, "-m", "xdet", "selftest", str(model)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OPENBLAS_CORETYPE": "Nehalem"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert result.returncode == 0, result.stderr
    first, second, third = result.stdout.splitlines()
    assert first.endswith("exact: all 1,470 head values have the golden bits")
    assert "without them: 8" in second
    assert third == "  in programs of your own, set the session entry session.x64quantprecision = 1"
