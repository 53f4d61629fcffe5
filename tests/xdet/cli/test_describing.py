"""What describes a source, on every command that opens one, and what is told where nobody states it."""

from __future__ import annotations

import json
import shutil
from dataclasses import fields
from inspect import signature
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import numpy as np
import pytest
import typer
from PIL import Image

import xdet
from converters.description.priors import PriorFormat, ScoreActivation
from converters.description.statements import SourceOptions
from converters.description.values import StatedUnit
from converters.errors import ConversionError, IncompleteError, OptionError
from converters.options import CHOICES
from converters.spec import Color, ResizeRule
from tests.converters.sources.tflite.networks import NetworkBuilder
from tests.converters.sources.tflite.ssd_networks import ssd_raw
from tests.xdet.command import run_xdet
from xdet import convert, describe, describing_options
from xdet.cli.app import build_app, main
from xdet.cli.convert import Converting
from xdet.cli.options import Describing
from xdet.errors import UsageError
from xdet.inspection import inspect

if TYPE_CHECKING:
    import subprocess

SAID: dict[str, Any] = {
    "anchors": ((1.0, 2.0), (3.0, 4.0)),
    "anchor_unit": "cell",
    "classes": ("cup",),
    "resize": "letterbox",
    "color": "bgr",
}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A YOLO v2 detector that says nothing about itself, and a photograph."""
    folder = tmp_path_factory.mktemp("network")
    net = NetworkBuilder(32).conv(8, stride=4, activation="RELU6").conv(8, stride=2, activation="RELU6")
    (folder / "net.tflite").write_bytes(net.conv(12, 1).build())
    noise = np.random.default_rng(3).integers(0, 256, (50, 90, 3), np.uint8)
    Image.fromarray(noise).save(folder / "photo.png")
    return folder


def test_every_command_that_opens_a_source_takes_all_of_them() -> None:
    commands = typer.main.get_command(build_app()).commands  # type: ignore[attr-defined]  # a group
    for name in ("convert", "describe", "detect", "check", "eval", "bench", "inspect", "card"):
        options = {option for parameter in commands[name].params for option in parameter.opts}
        expected = {f"--{field.name.replace('_', '-')}" for field in fields(Describing)} - {"--classes"} | {
            "--class-names"
        }
        assert expected <= options, name


def test_options_are_as_good_as_a_sidecar(network: Path, tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')
    source_options = describing_options(**SAID)
    sidecar = tmp_path / "net.xdet.json"
    found = describe(network / "net.tflite", source_options=source_options, output=sidecar)
    assert found.stated_by["anchors"] == "--anchors"
    assert [fact for fact in found.facts if fact[0] not in ("output", "rescaling")] == [
        ("input", "32 x 32 x 3, uint8", "the file"),
        ("head", "yolo_v2", "its outputs"),
        ("anchors", [[1.0, 2.0], [3.0, 4.0]], "--anchors"),
        ("anchor_unit", "cell", "--anchor-unit"),
        ("class_names", ["cup"], "--classes"),
        ("resize", "letterbox", "--resize"),
        ("color", "bgr", "--color"),
    ]
    assert json.loads(sidecar.read_text("utf-8")) == {
        "head": "yolo_v2",
        "anchors": [[1.0, 2.0], [3.0, 4.0]],
        "anchor_unit": "cell",
        "class_names": ["cup"],
        "resize": "letterbox",
        "color": "bgr",
    }
    shutil.copy(network / "net.tflite", tmp_path)
    by_sidecar, by_options = tmp_path / "net.tflite", network / "net.tflite"
    with (
        xdet.Detector(by_sidecar, score_threshold=0.1) as one,
        xdet.Detector(by_options, score_threshold=0.1, source_options=source_options) as other,
    ):
        assert one.spec == other.spec
        first, second = one(network / "photo.png"), other(network / "photo.png")
    assert len(first)
    assert first.to_dict()["detections"] == second.to_dict()["detections"]
    assert inspect(by_options, source_options=source_options).spec == one.spec
    models = [tmp_path / "one.onnx", tmp_path / "other.onnx"]
    xdet.convert(by_sidecar, models[0])
    xdet.convert(by_options, models[1], **SAID)
    assert models[0].read_bytes() == models[1].read_bytes()


def test_nothing_assumed_is_written_and_no_sidecar_replaced_unasked(network: Path, tmp_path: Path) -> None:
    source = shutil.copy(network / "net.tflite", tmp_path)
    sidecar = tmp_path / "net.xdet.json"
    described = describe(source, source_options=SourceOptions(head="none"), output=sidecar)
    assert json.loads(sidecar.read_text("utf-8")) == {"head": "none"}
    assert described.spec.assumed == ("resize",)
    with pytest.raises(ConversionError, match="exists"):
        describe(source, output=sidecar)
    describe(source, source_options=describing_options(color="bgr"), output=sidecar, force=True)
    assert json.loads(sidecar.read_text("utf-8")) == {"head": "none", "color": "bgr"}
    with pytest.raises(ConversionError, match="a file that this command reads"):
        describe(source, output=source, force=True)


def test_a_finished_model_describes_itself(network: Path, tmp_path: Path) -> None:
    model = tmp_path / "net.onnx"
    xdet.convert(network / "net.tflite", model, **SAID)
    source_options = describing_options(resize="nearest")
    for call in (
        lambda: xdet.Detector(model, source_options=source_options),
        lambda: inspect(model, source_options=source_options),
        lambda: xdet.run_benchmark([model], source_options=source_options),
        lambda: xdet.evaluate(model, tmp_path, tmp_path / "none.json", source_options=source_options),
    ):
        with pytest.raises(UsageError, match="a finished model describes itself"):
            call()


def test_a_rescaling_that_cannot_be_meant_is_refused_as_a_pair_as_well_as_in_words() -> None:
    for rescaling in ((0.0, 1.0), "0,1"):
        with pytest.raises(OptionError, match="rescaling scale must be above 0, got 0"):
            describing_options(rescaling=rescaling)


def test_options_survive_the_way_into_a_subprocess() -> None:
    source_options = describing_options(
        **SAID, rescaling="1/255,0", head="yolo_v2", variances="0.1,0.1,0.2,0.2", prior_format="yxhw"
    )
    assert SourceOptions.from_dict(json.loads(json.dumps(source_options.to_dict()))) == source_options


def test_what_is_known_is_told_where_facts_are_missing_and_nothing_is_written(
    network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = tmp_path / "net.xdet.json"
    words = ["--classes", "cup", "--color", "bgr", "-o", str(written)]
    monkeypatch.setattr("sys.argv", ["xdet", "describe", str(network / "net.tflite"), *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3
    out, err = capsys.readouterr()
    rows = [line.split("  ") for line in out.splitlines()]
    told = {row[0]: (row[-1].strip(), "".join(row[1:-1]).strip()) for row in rows}
    assert told["head"] == ("its outputs", "yolo_v2")
    assert told["input"] == ("the file", "32 x 32 x 3, uint8")
    assert told["class_names"] == ("--classes", '["cup"]')
    assert told["color"] == ("--color", "bgr")
    assert told["resize"] == ("assumed", "nearest")
    assert told["anchors"][0] == told["anchor_unit"][0] == "missing"
    assert "needs anchors, and no one states them" in err
    assert not written.exists()


def test_a_description_without_a_head_or_priors_says_so(tmp_path: Path) -> None:
    source = tmp_path / "ssd.tflite"
    source.write_bytes(ssd_raw())
    with pytest.raises(IncompleteError, match="needs priors, and no one states them") as raised:
        describe(source)
    facts = {name: (value, who) for name, value, who in raised.value.known}
    assert facts["head"] == ("ssd", "its outputs")
    assert facts["priors"] == (None, "missing")
    source.write_bytes(NetworkBuilder(32).conv(3, 1).build())
    with pytest.raises(IncompleteError, match="no head fits its output") as raised:
        describe(source)
    facts = {name: (value, who) for name, value, who in raised.value.known}
    assert facts["head"] == (None, "missing")
    assert facts["rescaling"] == ("of the codes", "the input's quantisation")
    assert not list(tmp_path.glob("*.json"))


NOTES = ["note: class names class_0 are assumed", "note: resize nearest is assumed"]


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    result = run_xdet(*arguments)
    assert result.returncode == 0, result.stderr
    return result


def notes(result: subprocess.CompletedProcess[str]) -> list[str]:
    return [line.partition(",")[0] for line in result.stderr.splitlines() if line.startswith("note: ")]


@pytest.fixture(scope="module")
def source(embedded_tflite: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded detector, of which only the anchors are stated."""
    sidecar = json.loads(embedded_tflite.with_name(f"{embedded_tflite.stem}.xdet.json").read_text("utf-8"))
    folder = tmp_path_factory.mktemp("assumed")
    kept = {key: sidecar[key] for key in ("anchors", "anchor_unit")}
    (folder / "bare.xdet.json").write_text(json.dumps(kept), "utf-8")
    return Path(shutil.copy(embedded_tflite, folder / "bare.tflite"))


def test_convert_detect_and_inspect_tell_what_they_assume(source: Path, sample_pictures: list[Path]) -> None:
    converted = source.with_suffix(".onnx")
    assert notes(run("convert", source, "-o", converted)) == NOTES
    for model in (source, converted):
        assert notes(run("detect", model, sample_pictures[0], "--json", "-")) == NOTES
        shown = run("inspect", model).stdout.splitlines()
        assert [line.split(maxsplit=1)[1] for line in shown if line.startswith(("Resize", "Classes"))] == [
            "nearest  (assumed: nobody states it)",
            "class_0  (assumed: nobody states it)",
        ]
        assert json.loads(run("inspect", model, "--json", "-").stdout)["spec"]["assumed"] == ["class_names", "resize"]


def test_what_is_stated_needs_no_note(embedded_tflite: Path, sample_pictures: list[Path]) -> None:
    assert notes(run("detect", embedded_tflite, sample_pictures[0], "--json", "-")) == []
    assert "assumed" not in run("inspect", embedded_tflite).stdout


def test_commands_and_library_calls_declare_the_same_options() -> None:
    library, conversion = signature(describing_options).parameters, signature(convert).parameters
    assert {name: conversion[name] for name in library} == library
    defaults = {name: parameter.default for name, parameter in library.items()}
    assert {field.name: field.default for field in fields(Describing)} == defaults
    assert {field.name for field in fields(Converting)} <= conversion.keys()


@pytest.mark.parametrize(
    ("declaration", "choices"),
    [
        (
            Describing,
            {
                "anchor_unit": StatedUnit,
                "resize": ResizeRule,
                "color": Color,
                "prior_format": PriorFormat,
                "score_activation": ScoreActivation,
            },
        ),
        (Converting, CHOICES),
    ],
    ids=["describing", "converting"],
)
def test_options_take_the_choices_that_the_library_takes(declaration: type, choices: dict[str, Any]) -> None:
    types = get_type_hints(declaration)
    offered = {name: get_args(types[name]) for name in choices}
    # of an option without a default, ``Literal[...] | None``
    flat = {name: get_args(args[0]) if args[-1] is type(None) else args for name, args in offered.items()}
    assert flat == {name: get_args(literal) for name, literal in choices.items()}
