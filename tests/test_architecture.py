"""The rules of the architecture, tested instead of hoped for: who imports what, and what a file may be."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from xdet.runtimes.table import RUNTIMES

ROOT = Path(__file__).resolve().parent.parent
BACK_ENDS = (
    "PIL",
    "ai_edge_litert",
    "keras",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "openvino",
    "tensorflow",
    "tf2onnx",
    "tf_keras",
    "tflite",
)
CONVERSION = ("onnx", "onnx_ir", "tensorflow", "tf2onnx", "tflite")
SOURCES = sorted(path for package in ("xdet", "converters") for path in (ROOT / package).rglob("*.py"))
PROGRAMS = sorted([*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "examples").rglob("*.py")])
CONTRACTS = {
    "converters never import xdet",
    "inside converters, arrows point down",
    "inside xdet, arrows point down",
    "detecting with a finished model loads nothing heavy",
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )


def imported_by(code: str, watched: tuple[str, ...]) -> list[str]:
    """Those of ``watched`` that are loaded after ``code`` ran in a process of its own."""
    result = run_python(f"{code}\nimport sys\nprint('\\n' + ' '.join(m for m in {watched!r} if m in sys.modules))")
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()[-1].split()


def import_rules() -> list[dict[str, Any]]:
    """The contracts of import-linter, as pyproject.toml states them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    rules: list[dict[str, Any]] = settings["tool"]["importlinter"]["contracts"]
    return rules


@pytest.mark.parametrize(
    "module",
    [
        *(
            "xdet",
            "xdet.errors",
            "xdet.detections",
            "xdet.cli.app",
            "converters",
            "converters.errors",
            "converters.spec",
        ),
        "xdet.runtimes.subprocess_runtime",  # where the memory of a runtime is measured
    ],
)
def test_importing_this_module_loads_no_back_end(module: str) -> None:
    assert imported_by(f"import {module}", BACK_ENDS) == []


def test_the_help_of_the_program_needs_no_numpy() -> None:
    assert imported_by("from xdet.cli.app import build_app; build_app()", ("numpy", *BACK_ENDS)) == []


def test_a_command_is_loaded_alone() -> None:
    program = "import sys, contextlib\nfrom xdet.__main__ import main\nsys.argv = ['xdet', 'providers', '--help']"
    others = ("xdet.cli.detect", "xdet.cli.convert", "xdet.cli.measure")
    assert imported_by(f"{program}\nwith contextlib.suppress(SystemExit): main()", others) == []


def test_no_collection_looks_at_what_the_program_imported() -> None:
    result = run_python("import gc, xdet.__main__\nprint(gc.isenabled(), gc.get_freeze_count() > 10_000)")
    assert result.stdout.split() == ["True", "True"]


@pytest.mark.parametrize("module", ["converters.require", "converters.errors", "converters.files"])
def test_reading_a_file_needs_the_standard_library_only(module: str) -> None:
    assert imported_by(f"import {module}", ("numpy", *BACK_ENDS)) == []


def test_describing_a_model_with_its_head_needs_numpy_at_most() -> None:
    assert imported_by("import converters.spec, converters.heads", ("numpy", *BACK_ENDS)) == ["numpy"]


@pytest.mark.parametrize("module", ["converters.graph", "xdet.inspection.coverage", "xdet.model.surgery"])
def test_reading_a_graph_loads_no_sympy(module: str) -> None:
    assert imported_by(f"import {module}", ("sympy.core",)) == []


def test_what_every_detector_loads_is_light() -> None:
    """``importlib.metadata`` loads email, sockets and archives: 10 ms of each start."""
    heads = ("converters.heads.grids", "converters.heads.ssd")  # a head is loaded when a model has it
    heavy = (
        "importlib.metadata",
        "email",
        "socket",
        "csv",
        "multiprocessing",
        "concurrent.futures",
        "hashlib",
        "xdet.writing.files",
        "converters.sources",
        *heads,
    )
    assert imported_by("import xdet, xdet.runtimes.ort_session\nxdet.Detector", heavy) == []


def test_reading_a_jpeg_file_loads_no_other_decoder() -> None:
    """Pillow loads five for a file that it is handed open: 10 ms of each start."""
    code = "from pathlib import Path; from xdet.pictures.images import read_image\n"
    code += "read_image(Path('xdet/data/camera.jpg'), honour_exif=True)"
    assert imported_by(code, ("PIL.PngImagePlugin", "PIL.BmpImagePlugin", "PIL.JpegImagePlugin")) == [
        "PIL.JpegImagePlugin"
    ]


def test_the_library_names_its_public_objects_without_loading_them() -> None:
    code = "import xdet\nassert set(dir(xdet)) >= {'Detector', 'Detections', 'convert', 'XdetError'}"
    assert imported_by(code, BACK_ENDS) == []


def test_every_public_name_of_xdet_leads_to_an_object() -> None:
    result = run_python("import xdet\nfor name in xdet.__all__: getattr(xdet, name)")
    assert result.returncode == 0, result.stderr


def test_detecting_with_a_finished_model_loads_no_conversion_code(
    embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    import xdet

    xdet.convert(embedded_tflite, tmp_path / "m.onnx")
    arguments = ["detect", str(tmp_path / "m.onnx"), str(sample_pictures[0]), "--json", str(tmp_path / "d.json")]
    code = f"""
import sys
sys.argv = ["xdet", *{arguments!r}]
from xdet.__main__ import main
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""
    assert imported_by(code, (*CONVERSION, "yaml", "converters.convert", "converters.sources.tflite")) == []
    assert '"class_name": "person"' in (tmp_path / "d.json").read_text("utf-8")


def test_every_module_of_xdet_has_its_layer() -> None:
    """Exhaustive: import-linter refuses modules that no layer names, and this test layers that name no module."""
    (rule,) = [contract for contract in import_rules() if contract["name"] == "inside xdet, arrows point down"]
    assert rule["exhaustive"] is True
    assert rule["containers"] == ["xdet"]
    named = [name.strip() for layer in rule["layers"] for name in layer.split(":")]
    optional = {name.strip("()") for name in named if name.startswith("(")}
    modules = {path.relative_to(ROOT / "xdet").parts[0].removesuffix(".py") for path in (ROOT / "xdet").rglob("*.py")}
    assert len(named) == len(set(named))
    assert modules - {"__init__"} <= {name.strip("()") for name in named}
    assert set(named) - {f"({name})" for name in optional} <= modules


def test_conversion_runs_without_tensorflow_and_without_any_runtime(embedded_tflite: Path, tmp_path: Path) -> None:
    code = f"import xdet; xdet.convert({str(embedded_tflite)!r}, {str(tmp_path / 'm.onnx')!r})"
    watched = ("ai_edge_litert", "onnxruntime", "openvino", "tensorflow", "tf2onnx")
    assert imported_by(code, watched) == []


def test_a_missing_extra_gives_the_pip_line_to_type(embedded_tflite: Path, sample_pictures: list[Path]) -> None:
    hidden = "import sys\nsys.modules['ai_edge_litert'] = None\nsys.argv[0] = 'xdet'\n"
    run = "from xdet.__main__ import main\nsys.exit(main())"
    result = run_python(hidden + run, "detect", str(embedded_tflite), str(sample_pictures[0]))
    assert result.returncode == 3
    assert 'pip install "xdet[litert]"' in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1


def test_the_import_rules_are_written_down() -> None:
    assert {contract["name"] for contract in import_rules()} == CONTRACTS


@pytest.mark.parametrize("path", PROGRAMS, ids=name_of)
def test_a_file_is_one_idea_of_at_most_500_lines(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 500


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_a_module_is_named_after_its_idea(path: Path) -> None:
    assert not {"utils", "util", "common", "helpers", "core", "misc"} & {path.stem, *path.relative_to(ROOT).parts}


SKIPS = {"importorskip", "skipif", "skip", "xfail"}


def test_every_skip_says_what_is_missing() -> None:
    """``importorskip`` alone would say that a module cannot be imported, and not how to get it: "needs ..." says it."""
    silent = []
    for path in sorted((ROOT / "tests").rglob("*.py")):
        for call in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute):
                reasons = [keyword.value for keyword in call.keywords if keyword.arg == "reason"]
                reasons += call.args if call.func.attr == "skip" else []
                texts = [node.value for node in reasons if isinstance(node, ast.Constant)]
                unexplained = call.func.attr in {"importorskip", "skipif"} and not reasons
                if unexplained or (call.func.attr in SKIPS and any(not str(t).startswith("needs ") for t in texts)):
                    silent.append(f"{name_of(path)}:{call.lineno}")
    assert silent == []


LIMITS = ROOT / "converters" / "spec" / "contract.py"  # of finished files, by runtime; converters know no other row
ALSO_OPTIONS = {"keras", "litert"}  # values of --leaky-relu and --arithmetic, a format, an extra
NPM_PACKAGE = (ROOT / "xdet" / "page" / "__init__.py", "onnxruntime-web")  # which the page loads, on no runtime of xdet


def test_a_runtime_is_named_in_its_row_and_its_module_alone() -> None:
    """What the rest asks of a runtime is a field of its row, so that a new one needs a row and a module."""
    modules = tuple(row.module.rpartition(".")[2] for row in RUNTIMES.values())
    named = []
    for path in SOURCES:
        if path == LIMITS or (path.parent.name == "runtimes" and path.stem.startswith(("table", *modules))):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                name, colon, _ = node.value.partition(":")
                is_name = name in RUNTIMES and (node.value == name or (colon and " " not in node.value))
                if is_name and node.value not in ALSO_OPTIONS and (path, node.value) != NPM_PACKAGE:
                    named.append(f"{name_of(path)}:{node.lineno}: {node.value!r}")
    assert named == []


def test_both_packages_are_typed() -> None:
    assert all((ROOT / package / "py.typed").is_file() for package in ("xdet", "converters"))
