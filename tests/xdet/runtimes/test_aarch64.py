"""64-bit Arm, emulated: ONNX Runtime and LiteRT give the bits that they give here."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pytest

from converters.convert import convert_to_bytes
from converters.description.statements import SourceOptions
from converters.options import ConvertOptions
from converters.spec import ResizeRule
from xdet.checking.other_cpus import emulate_arm
from xdet.pictures.preparation import Preparation, prepare
from xdet.runtimes.table import open_runtime

if TYPE_CHECKING:
    from numpy.typing import NDArray

pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
pytestmark = [
    pytest.mark.emulator,
    pytest.mark.skipif(
        shutil.which("qemu-aarch64") is None or shutil.which("apt-get") is None,
        reason="needs Debian or Ubuntu with qemu-aarch64: apt-get install qemu-user",
    ),
]
ROOT = Path(__file__).resolve().parents[3]
DIALECTS: dict[str, dict[str, Any]] = {"portable": {}, "cpu": {"target": "cpu"}, "int8": {"activations": "int8"}}
PROGRAM = """
import sys
from importlib.util import find_spec
from pathlib import Path
import numpy as np
from xdet.runtimes.table import open_runtime
pixels, folder, *models = sys.argv[1:]
for model in models:
    with open_runtime(Path(model)) as runtime:
        np.save(Path(folder) / (Path(model).name + ".npy"), runtime.head(np.load(pixels)))
"""


def emulate(arm: Path, *arguments: str | Path, cpu: str = "cortex-a72") -> str:
    program = ROOT / "examples" / "emulate_aarch64.py"
    command = [sys.executable, program, arm, "--cpu", cpu, "--", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def convert_all(source: Path, folder: Path) -> dict[str, Path]:
    """The source and its conversions in every dialect."""
    models = {"litert": folder / source.name}
    shutil.copy(source, folder)
    shutil.copy(source.with_suffix(".xdet.json"), folder)
    for name, options in DIALECTS.items():
        models[name] = folder / f"{name}.onnx"
        models[name].write_bytes(convert_to_bytes(source, ConvertOptions(**options)).model)
    return models


def heads_here(models: dict[str, Path], pictures: list[Path]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Pixels, and the head that every model gives for them here."""
    with open_runtime(models["portable"]) as runtime:
        how = Preparation(runtime.spec.image)
        pixels = np.stack([prepare(picture, how).pixels for picture in pictures])
        return pixels, runtime.head(pixels)


# LiteRT's kernels for SME give another head under qemu 7.2; whether they or the emulator err is not known.
@pytest.mark.parametrize("cpu", ["cortex-a53", "cortex-a72", "neoverse-n1", "max,sme=off"])
def test_the_embedded_detector_gives_the_same_bits(
    cpu: str, arm: Path, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    models = convert_all(embedded_tflite, tmp_path)
    pixels, expected = heads_here(models, sample_pictures)
    np.save(tmp_path / "pixels.npy", pixels)
    emulate(arm, "-c", PROGRAM, tmp_path / "pixels.npy", tmp_path, *models.values(), cpu=cpu)
    for name, model in models.items():
        found = np.load(tmp_path / f"{model.name}.npy")
        assert int((found != expected).sum()) == 0, name


@pytest.mark.parametrize("rule", get_args(ResizeRule))
def test_a_photograph_of_any_size_gives_the_same_bits(
    rule: ResizeRule, arm: Path, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    model = tmp_path / "any.onnx"
    options = ConvertOptions(source=SourceOptions(resize=rule), any_size=True)
    model.write_bytes(convert_to_bytes(embedded_tflite, options).model)
    with open_runtime(model) as runtime:
        pixels = prepare(sample_pictures[0], Preparation(runtime.spec.image)).pixels[None]
        expected = runtime.head(pixels)
    np.save(tmp_path / "pixels.npy", pixels)
    emulate(arm, "-c", PROGRAM, tmp_path / "pixels.npy", tmp_path, model)
    assert int((np.load(tmp_path / "any.onnx.npy") != expected).sum()) == 0


def test_the_selftest_is_exact(arm: Path, embedded_tflite: Path, tmp_path: Path) -> None:
    models = convert_all(embedded_tflite, tmp_path)
    for name in DIALECTS:
        assert "exact" in emulate(arm, "-m", "xdet", "selftest", models[name])


@pytest.mark.shared
@pytest.mark.parametrize("name", ["192_int8", "224_per_tensor_int8", "416_int8"])
def test_every_shared_detector_gives_the_same_bits(
    name: str, arm: Path, shared_dir: Path, photographs: list[Path], tmp_path: Path
) -> None:
    models = convert_all(shared_dir / "models" / f"tiny_yolo_v2_person_{name}.tflite", tmp_path)
    pixels, expected = heads_here(models, photographs[:3])
    np.save(tmp_path / "pixels.npy", pixels)
    emulate(arm, "-c", PROGRAM, tmp_path / "pixels.npy", tmp_path, *models.values())
    for dialect, model in models.items():
        found = np.load(tmp_path / f"{model.name}.npy")
        assert int((found != expected).sum()) == 0, dialect


def emulated_pip(arm: Path, site: Path, what: str) -> None:
    """Let an emulated pip choose and unpack wheels, into a folder in place of a virtual environment's."""
    found = find_spec("pip")
    assert found is not None
    program = Path(str(found.origin)).parent
    emulate(arm, program, "install", "-q", "--no-compile", "--only-binary=:all:", "--target", site, what)


def test_the_raspberry_pi_page_s_commands_run(
    arm: Path, embedded_tflite: Path, sample_pictures: list[Path], tmp_path: Path
) -> None:
    """All but the virtual environment, whose Python would be started without the emulator."""
    page = (ROOT / "docs" / "raspberry-pi.md").read_text("utf-8")
    block = re.search(r"^```sh\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    assert block is not None
    virtual, install, *programs = block[1].splitlines()
    assert virtual == "python3 -m venv xdet-env && . xdet-env/bin/activate"
    extras = re.fullmatch(r'pip install "\.(\[.*\])"', install)
    assert extras is not None
    build = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(ROOT)]  # pure Python
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    emulated_pip(arm, tmp_path / "site", f"{wheel}{extras[1]}")

    work = tmp_path / "work"
    work.mkdir()
    shutil.copy(embedded_tflite, work / "detector.tflite")
    shutil.copy(embedded_tflite.with_suffix(".xdet.json"), work / "detector.xdet.json")
    shutil.copy(sample_pictures[0], work / "photo.jpg")
    programs_folder = tmp_path / "programs"
    programs_folder.mkdir()
    python = emulate_arm("cortex-a72", arm, programs_folder).python
    path = os.pathsep.join(map(str, (arm / "startup", tmp_path / "site")))
    environment = {**os.environ, "PYTHONPATH": path, "EMULATED_PYTHON": python, "PYTHONDONTWRITEBYTECODE": "1"}
    printed = []
    for line in programs:
        program, *arguments = shlex.split(line)
        assert program == "xdet"
        command = [python, "-m", "xdet", *arguments]
        done = subprocess.run(command, cwd=work, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
        printed.append(done.stdout)
    assert len(printed) == 3
    assert "person" in printed[1]
    assert ": exact: all 1,470 head values have the golden bits" in printed[2]
    here = convert_to_bytes(work / "detector.tflite", ConvertOptions()).model
    assert (work / "detector.onnx").read_bytes() == here
