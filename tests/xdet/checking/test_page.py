"""The page of a check: what it shows, that its numbers are the JSON's, and that it is safe and needs nothing else."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from tests.xdet.checking import faults
from tests.xdet.checking.reports import COMMAND, HOSTILE, WHERE, read, section
from xdet.checking.check import check
from xdet.checking.heads.spread import histogram
from xdet.checking.page import LONGEST_SIDE, check_to_html
from xdet.checking.report import TITLES, check_to_json
from xdet.checking.result import DetectionChange, Finding, MissingRuntime
from xdet.checking.runs import Run
from xdet.writing.blocks import Bars, Table
from xdet.writing.html import STYLE, block_html, inline, shown

if TYPE_CHECKING:
    from pathlib import Path

    from xdet.checking.result import CheckResult

pytest.importorskip("ai_edge_litert", reason='needs pip install "xdet[litert]"')


@pytest.fixture(scope="module")
def failed(
    person_model: bytes, embedded_tflite: Path, sample_pictures: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> CheckResult:
    """A model with a planted zero-point, checked with its layers."""
    model = tmp_path_factory.mktemp("page") / "person.onnx"
    model.write_bytes(faults.planted(person_model, faults.zero_point_off_by_one))
    runtimes = "onnxruntime:cpu,onnxruntime-unfused:cpu,litert:xnnpack,litert:builtin"
    return check(model, embedded_tflite, sample_pictures, runtimes=runtimes, layers=True)


@pytest.fixture(scope="module")
def page(failed: CheckResult, sample_pictures: list[Path]) -> str:
    return check_to_html(failed, sample_pictures, WHERE)


@pytest.fixture(scope="module")
def document(failed: CheckResult) -> dict[str, Any]:
    parsed: dict[str, Any] = json.loads(check_to_json(failed))
    return parsed


def a_change(image: str, kind: str) -> DetectionChange:
    boxes = (0.1, 0.1, 0.5, 0.6), (0.2, 0.1, 0.5, 0.6)
    return DetectionChange(image, "onnxruntime:cpu", kind, 7, 0, 0.51, 0.49, *boxes, "score", HOSTILE)  # type: ignore[arg-type]


def test_the_page_has_all_four_parts_with_their_verdicts_and_findings(page: str, failed: CheckResult) -> None:
    text = read(section(page, "Verdict in four parts")).text
    assert [part.part for part in failed.parts] == ["static", "exact", "spread", "head"]
    for part in failed.parts:
        assert f"{part.status} {part.part}: {TITLES[part.part]}" in text
        assert part.summary in text
        assert all(f"{finding.cause}: {finding.message}" in text for finding in part.findings)
    assert "FAILED: zero-point, layer" in read(page).text


def test_the_summary_names_the_first_photographs(page: str, failed: CheckResult, sample_pictures: list[Path]) -> None:
    assert "Photographs2: astronaut.jpg, camera.jpg" in read(page).text
    many = replace(failed, images=tuple(f"{n}.jpg" for n in range(6)), changes=())
    assert (
        "Photographs6: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, ..."
        in read(check_to_html(many, sample_pictures * 3, WHERE)).text
    )


def test_the_numbers_of_every_runtime_are_those_of_the_json(page: str, document: dict[str, Any]) -> None:
    keys = ("differing", "max_steps", "mean_steps")
    expected: list[float] = []
    for run in document["runs"]:
        expected += [run["nearest"][key] for key in keys]
        expected += [] if run["must_be_exact"] else [document["allowed_max"]]
    expected += [document["yardstick"][key] for key in keys]
    assert [json.loads(value) for value in read(section(page, "Runtimes")).numbers] == expected
    assert document["runs"][0]["nearest"]["differing"] > 1000


def test_the_numbers_of_every_layer_are_those_of_the_json(page: str, document: dict[str, Any]) -> None:
    layers = document["layers"]["layers"]
    expected = [
        value
        for i, layer in enumerate(layers)
        for value in (
            *(i + 1, layer["accumulated"]["worst_lsb"], layer["accumulated"]["differing"]),
            *(layer["local"]["worst_lsb"], layer["local_bound_lsb"]),
            *(layer["kernel"]["worst_lsb"], layer["kernel_bound_lsb"]),
        )
    ]
    fused = document["layers"]["fused_differs"]
    assert [json.loads(value) for value in read(section(page, "Layers")).numbers] == [*[fused] * (fused > 0), *expected]


def test_the_strip_chart_has_three_cells_per_layer_and_one_fault(page: str, document: dict[str, Any]) -> None:
    seen = read(section(page, "Layers"))
    cells = [attrs["class"] for tag, attrs in seen.tags if tag == "rect"]
    assert len(cells) == 3 * len(document["layers"]["layers"])
    assert cells.count("cell fault") == 1
    assert document["layers"]["first_fault"] == faults.CONV3
    assert f"the first at fault is {faults.CONV3!r}" in seen.text


def test_each_runtime_has_a_histogram_of_all_its_head_values(page: str, document: dict[str, Any]) -> None:
    content = section(page, "Differences of the head")
    assert content.count("<svg") == len(document["runs"]) == 2
    for run in document["runs"]:
        bars = run["histogram"]
        assert sum(bar["values"] for bar in bars) == run["nearest"]["values"]
        assert bars[0] == {"up_to": 0.0, "values": run["nearest"]["values"] - run["nearest"]["differing"]}
        assert all(f">{bar['values']:,}</text>" in content for bar in bars if bar["values"])


def test_the_page_loads_nothing_and_runs_nothing(failed: CheckResult, sample_pictures: list[Path]) -> None:
    result = replace(failed, changes=(a_change(failed.images[0], "lost"),))
    seen = read(check_to_html(result, sample_pictures, WHERE))
    forbidden = {"script", "link", "iframe", "object", "embed", "base", "form", "a", "use", "image"}
    assert not forbidden & {tag for tag, _ in seen.tags}
    sources = [attrs["src"] for _, attrs in seen.tags if "src" in attrs]
    assert len(sources) == 2
    assert all(str(source).startswith("data:image/jpeg;base64,") for source in sources)
    assert not any(name.startswith("on") or name in {"href", "srcset"} for _, attrs in seen.tags for name in attrs)
    assert "url(" not in STYLE.read_text("utf-8")
    assert "@import" not in STYLE.read_text("utf-8")


def test_whatever_comes_from_files_is_text_and_never_markup(failed: CheckResult, sample_pictures: list[Path]) -> None:
    layers = failed.layers
    assert layers is not None
    first = replace(layers.layers[0], tensor=HOSTILE, operator=HOSTILE)
    static = replace(failed.parts[0], summary=HOSTILE, findings=(Finding("static", "weight", HOSTILE),))
    result = replace(
        failed,
        model=HOSTILE,
        source=HOSTILE,
        images=(HOSTILE, *failed.images[1:]),
        parts=(static, *failed.parts[1:]),
        runs=(replace(failed.runs[0], name=HOSTILE, notes=(HOSTILE,)), *failed.runs[1:]),
        changes=(a_change(HOSTILE, "new"),),
        missing=(MissingRuntime(HOSTILE, HOSTILE, asked=True),),
        proven=tuple(replace(proven, tensor=HOSTILE, proof=HOSTILE) for proven in failed.proven),
        layers=replace(layers, layers=(first, *layers.layers[1:]), absent={HOSTILE: HOSTILE}),
    )
    written = check_to_html(result, sample_pictures, replace(WHERE, command=HOSTILE))
    seen = read(written)
    assert not any(tag == "script" for tag, _ in seen.tags)
    assert "<script" not in written
    assert "\x1b" not in written
    assert seen.text.count("alert(1)") >= 15
    assert {attrs["src"][:5] for _, attrs in seen.tags if attrs.get("src")} == {"data:"}  # type: ignore[index]


def test_pictures_show_a_lost_box_on_the_sources_side_alone(failed: CheckResult, sample_pictures: list[Path]) -> None:
    result = replace(failed, changes=(a_change(failed.images[0], "lost"),))
    content = section(check_to_html(result, sample_pictures, WHERE), "Detections that differ")
    pictures = [attrs for tag, attrs in read(content).tags if tag == "img"]
    assert [str(picture["alt"]).split(": ")[1] for picture in pictures] == [
        "1 of the boxes that differ, the source",
        "none of the boxes that differ, onnxruntime:cpu",
    ]
    assert pictures[0]["src"] != pictures[1]["src"]
    assert max(int(str(picture["width"])) for picture in pictures) <= LONGEST_SIDE


def test_no_more_than_six_photographs_are_shown_and_the_rest_is_counted(failed: CheckResult) -> None:
    names = tuple(f"{i}.jpg" for i in range(8))
    result = replace(failed, images=names, changes=tuple(a_change(name, "moved") for name in names))
    picture = np.zeros((8, 8, 3), np.uint8)
    content = section(check_to_html(result, [picture] * 8, WHERE), "Detections that differ")
    assert content.count("<img") == 12
    assert "2 more pairs of photograph and runtime have changes" in content


def test_the_gravest_photographs_are_shown_first(failed: CheckResult) -> None:
    names = tuple(f"{i}.jpg" for i in range(9))
    changes = [a_change(name, "moved") for name in names]
    changes += [a_change("8.jpg", "lost"), a_change("5.jpg", "moved"), a_change("7.jpg", "new")]
    changes.append(replace(a_change("6.jpg", "moved"), cause="layer"))
    result = replace(failed, images=names, changes=tuple(changes))
    content = section(check_to_html(result, [np.zeros((8, 8, 3), np.uint8)] * 9, WHERE), "Detections that differ")
    shown = re.findall(r"<h3>(\d)\.jpg", content)
    assert shown == ["6", "7", "8", "5", "0", "1"]


def test_the_surroundings_and_the_command_are_told(page: str, failed: CheckResult) -> None:
    text = read(page).text
    assert "A <CPU>, 2 of 4 usable" in text
    assert "avx2 avx_vnni" in text
    assert "saturate here" in text
    assert f"onnxruntime {failed.versions['onnxruntime']}" in text
    assert f"SHA-256 {failed.model_sha256}" in text
    assert read(section(page, "Repeat it")).text == COMMAND


def test_equal_results_give_an_equal_page(page: str, failed: CheckResult, sample_pictures: list[Path]) -> None:
    assert check_to_html(failed, sample_pictures, WHERE) == page


def test_a_check_without_layers_or_results_is_a_page_too(failed: CheckResult) -> None:
    empty = replace(failed, runs=(), layers=None, coverage=(), yardstick=None, changes=(), proven=())
    page = check_to_html(empty, [], WHERE)
    assert "No runtime of the model gave a result." in page
    assert "<h2>Layers</h2>" not in page
    problem = replace(empty, layers_problem="'x.h5' is no TFLite file")
    assert "layers were not compared: &#x27;x.h5&#x27; is no TFLite file" in check_to_html(problem, [], WHERE)


def test_a_histogram_has_every_value_in_one_bar_and_bars_end_where_they_say() -> None:
    source = Run("litert:xnnpack", exact=False, heads=np.zeros((1, 1, 1, 6), np.float32))
    steps = np.array([0, 1, 1, 2.5, 12, 33], np.float32).reshape(1, 1, 1, 6)
    bars = histogram(Run("x", exact=False, heads=steps * np.float32(0.25)), source, 0.25)
    assert {bar.up_to: bar.values for bar in bars if bar.values} == {0: 1, 1: 2, 3: 1, 12: 1, math.inf: 1}


def test_a_histogram_ends_with_the_last_bar_that_holds_a_value() -> None:
    bars = (("equal", 99), ("≤ 1", 9), ("≤ 2", 0), ("> 2", 0))
    seen = read(block_html(Bars("a <b>", bars)))
    widths = [float(str(attrs["width"])) for tag, attrs in seen.tags if tag == "rect"]
    assert widths == [162.0, 81.0]  # log10(100) and log10(10)
    assert seen.text == "equal99≤ 19bars: logarithmic scale; counts: exacta <b>"


@pytest.mark.parametrize(
    ("value", "markup"),
    [
        pytest.param(1234567, '<data value="1234567">1,234,567</data>', id="count"),
        pytest.param(0.054166, '<data value="0.054166">0.0542</data>', id="distance"),
        pytest.param(math.inf, '<data value="null">inf</data>', id="infinite, as in JSON"),
        pytest.param(None, "", id="nothing"),
    ],
)
def test_a_number_is_told_to_people_and_kept_exact(value: float | None, markup: str) -> None:
    assert inline(value) == markup


def test_a_cell_wraps_by_the_length_of_its_words_and_not_of_its_markup() -> None:
    limit = ("<= ", 6.0, " (mean ", 0.5421768, ")")
    assert len(inline(limit)) > 60
    cells = block_html(Table(("must be", "boxes"), ((limit, "x" * 61),)))
    assert f'<td data-title="must be">{inline(limit)}</td><td class=wide data-title="boxes">{"x" * 61}</td>' in cells


def test_text_is_escaped_and_made_visible() -> None:
    assert shown("<b a='\"'>&\u202e") == "&lt;b a=&#x27;&quot;&#x27;&gt;&amp;\\u202e"
