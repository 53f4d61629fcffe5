"""The programs of examples/ that measure: like with like, and what they print."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from converters.convert import convert_to_bytes
from converters.heads import HEADS as KNOWN_HEADS
from converters.options import ConvertOptions
from xdet.conversion import convert

if TYPE_CHECKING:
    from types import ModuleType

EXAMPLES = Path(__file__).parent.parent / "examples"


def run_example(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXAMPLES / program), *map(str, arguments)]
    return subprocess.run(command, cwd=EXAMPLES.parent, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def variants() -> ModuleType:
    """``examples/kernel_variants.py`` as a module."""
    spec = importlib.util.spec_from_file_location("kernel_variants", EXAMPLES / "kernel_variants.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def codes(shape: list[int]) -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize(
    ("stage", "count", "size"),
    [("first", 5, 16), ("first", 5, 52), ("second", 2, 16), ("second", 2, 52), ("deep", 6, 96), ("leaky", 4, 16)],
)
def test_all_forms_of_a_stage_give_the_same_codes(variants: ModuleType, stage: str, count: int, size: int) -> None:
    forms = variants.STAGES[stage][1](size)
    assert len(forms) == count
    assert sum(form.chosen for form in forms) == 1
    variants.require_equal(forms, variants.codes_for(forms[0]))


def test_a_form_with_other_codes_ends_the_program(variants: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    table, total, *_ = variants.leaky_forms(16)
    with monkeypatch.context() as patch:
        patch.setattr(variants, "OUT", (0.019, 20))
        other = variants.leaky_forms(16)[1]
    variants.require_equal([table, total], codes([1, 8, 8, 16]))
    with pytest.raises(SystemExit, match="'Max, QLinearAdd' gives other codes than 'QLinearLeakyRelu, a table'"):
        variants.require_equal([table, other], codes([1, 8, 8, 16]))


@pytest.mark.parametrize(
    ("command", "rows"),
    [
        (["kernel_variants.py", "--sizes", "16", "--stages", "leaky"], 4),
        pytest.param(["session_variants.py"], 16, marks=pytest.mark.slow),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_table_of_positive_times_is_printed(command: list[str], rows: int, tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / command[0], *command[1:], "--blocks", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    lines = [line for line in result.stdout.splitlines() if line.startswith("|")]
    assert len(lines) == 2 + rows
    for line in lines[2:]:
        times = [float(cell.strip(" *")) for cell in line.split("|")[2:-1]]
        assert len(times) == lines[0].count("|") - 2
        assert min(times) > 0


def test_a_folder_and_a_video_are_measured_next_to_a_plain_loop(
    embedded_tflite: Path, sample_pictures: list[Path]
) -> None:
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    pytest.importorskip("av", reason='needs pip install "xdet[video]"')
    files = (embedded_tflite, "--images", sample_pictures[0].parent, "--video", "--blocks", "1")
    done = run_example("folder_against_litert.py", *files)
    assert done.returncode == 0, done.stderr
    folder, video = done.stdout.splitlines()
    assert re.fullmatch(r"\S+\.tflite: 2 files to JSON, plain loop .* images/s, ratio \d+\.\d\d", folder)
    assert re.fullmatch(r"\S+\.tflite: 20 frames to JSON, plain loop .* images/s, ratio \d+\.\d\d", video)


def test_networks_of_other_makers_sizes_are_written_with_their_sidecars(tmp_path: Path) -> None:
    done = run_example("field_networks.py", tmp_path / "field")
    assert done.returncode == 0, done.stderr
    networks = sorted((tmp_path / "field").glob("*.tflite"))
    assert len(networks) == len(done.stdout.splitlines()) == 5
    assert all(path.with_suffix(".xdet.json").is_file() for path in networks)


def test_the_matrix_has_a_row_per_dialect_and_runtime(
    embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    header = "| source | dialect | runtime | head | boxes | ms |"
    page = tmp_path / "page.md"
    before = f"# Runtimes\n\n{header}\n| of | another |\n\n## These\n\n"
    page.write_text(f"{before}{header}\n| old | row |\n\nBehind.\n", "utf-8")
    done = run_example(
        "runtime_matrix.py",
        *("--into", page, "--under", "## These"),
        *(embedded_tflite, "--images", sample_pictures[0], "--dialects", "portable,int8", "--repeats", 1),
        *("--runtimes", "onnxruntime-unfused,iree"),
    )
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()]
    assert [(row[1], row[2]) for row in rows[2:]] == [
        (dialect, runtime)
        for dialect in ("portable", "int8")
        for runtime in ("onnxruntime:cpu", "onnxruntime-unfused:cpu", "iree:llvm-cpu")
    ]
    assert rows[2][3] == "the reference"
    assert rows[3][4] == "equal"
    assert page.read_text("utf-8") == f"{before}{done.stdout}\nBehind.\n"


def test_a_dialect_that_there_is_not_is_told(embedded_tflite: Path) -> None:
    done = run_example("runtime_matrix.py", embedded_tflite, "--images", embedded_tflite, "--dialects", "latin")
    assert done.returncode == 2
    assert done.stderr.startswith("there is no dialect 'latin'; choose among portable, cpu, int8, float leaky, ")


def test_the_block_holds_versions_placement_and_the_check(
    embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    convert(embedded_tflite, tmp_path / "m.onnx")
    files = (tmp_path / "m.onnx", "--source", embedded_tflite, "--images", sample_pictures[0])
    done = run_example("report_accelerator.py", *files, "--provider", "cpu")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == lines[-1] == "```"
    for told in ("xdet ", "provider CPUExecutionProvider; devices: ", "nodes on cpu: ", "time on cpu: "):
        assert sum(line.startswith(told) for line in lines) == 1
    assert any(line.startswith("onnxruntime:cpu ") for line in lines)
    absent = run_example("report_accelerator.py", *files, "--provider", "warp")
    assert absent.returncode == 2
    assert "execution provider 'warp' is not available" in absent.stderr


def test_each_head_has_a_network_whose_file_and_sidecar_say_all(tmp_path: Path) -> None:
    """What the matrix measures with ``--look-alikes``."""
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    from tests.every_head import HEADS, write_look_alikes

    assert set(HEADS) == {head.kind for head in KNOWN_HEADS.values()}
    for path in write_look_alikes(tmp_path):
        head = convert_to_bytes(path, ConvertOptions()).document.spec.head
        assert head is not None
        assert head.kind == path.stem
