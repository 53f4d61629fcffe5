"""A card of the embedded detector on its own photographs: what it says comes from the files, and it says no paths."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

import xdet
from xdet.bench import BenchOptions
from xdet.card import CardContent, CardRequest, card_text, make_card, split_notes
from xdet.errors import OutputError, UsageError

SHORT = BenchOptions(blocks=1, block_s=0.0, pictures_per_block=1, memory=False)
SECTIONS = [
    *("Network information", "Inputs and outputs", "Memory footprint", "Inference time", "Accuracy", "Pictures"),
    *("Limits", "Provenance", "How to reproduce"),
]


@dataclass(frozen=True)
class Made:
    """A card on disk, and what it was made of."""

    folder: Path
    content: CardContent

    @property
    def text(self) -> str:
        return (self.folder / "card.md").read_text("utf-8")

    def section(self, title: str) -> str:
        return self.text.split(f"## {title}\n")[1].split("\n## ")[0]


def annotate(folder: Path) -> Path:
    """One person over most of each photograph."""
    pictures = [
        {"id": number, "file_name": name, "width": 512, "height": 512}
        for number, name in enumerate(("astronaut.jpg", "camera.jpg"))
    ]
    boxes = [
        {"id": 1, "image_id": 0, "category_id": 1, "bbox": [20, 5, 380, 500], "area": 190000, "iscrowd": 0},
        {"id": 2, "image_id": 1, "category_id": 1, "bbox": [60, 50, 330, 450], "area": 148500, "iscrowd": 0},
    ]
    coco = {"images": pictures, "annotations": boxes, "categories": [{"id": 1, "name": "person"}]}
    path = folder / "boxes.json"
    path.write_text(json.dumps(coco), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def made(embedded_tflite: Path, sample_pictures: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Made:
    folder = tmp_path_factory.mktemp("my card")
    (folder / "photos").mkdir()
    for picture in sample_pictures:
        shutil.copy(picture, folder / "photos")
    xdet.convert(embedded_tflite, folder / "person.onnx", target="cpu")
    request = CardRequest(
        source=embedded_tflite,
        models=(folder / "person.onnx",),
        images=folder / "photos",
        annotations=annotate(folder),
        notes="Finds *people*.\n\n## Limits\n\nSmall.\n",
        runtimes="litert:xnnpack,onnxruntime:cpu",
        bench=SHORT,
    )
    return Made(folder, make_card(request, folder / "card.md"))


def test_the_card_has_its_sections_in_the_zoos_order_with_the_notes_around_them(made: Made) -> None:
    assert re.findall(r"^## (.*)$", made.text, re.MULTILINE) == SECTIONS
    assert made.text.startswith(
        "# Model card: tiny_yolo_v2_person_224_int8\n\nFinds *people*.\n\n## Network information\n"
    )
    assert made.section("Limits").strip() == "Small."


def test_network_and_memory_are_those_of_inspection(made: Made) -> None:
    network = made.section("Network information")
    assert "| parameters | 11,026,878 |" in network
    assert "| MACs per image | 774 M (773,864,448), 100.0 % on integer codes |" in network
    assert (
        "| tiny_yolo_v2_person_224_int8.tflite | 10775.98 KiB | 1568.00 KiB | 350.00 KiB | 11.1 MB |"
        in made.section("Memory footprint")
    )


def test_times_are_those_of_the_benchmark(made: Made) -> None:
    lines = [line for line in made.section("Inference time").splitlines() if "int8" in line or "person" in line]
    assert [line.split(" | ")[1] for line in lines] == ["litert:xnnpack", "onnxruntime:cpu"]
    ratio = made.content.benchmark.results[1].ratio
    assert ratio is not None
    assert lines[1].split(" | ")[6] == f"{ratio.value:.2f}"
    assert all(line.endswith("| 100.0 % |") for line in lines)


def test_accuracy_is_that_of_evaluation_and_equal_for_source_and_conversion(made: Made) -> None:
    accuracy = made.section("Accuracy")
    metrics = made.content.evaluation.results[0].score.metrics
    assert metrics["AP50"] is not None
    assert metrics["AP50"] > 0
    rows = [line for line in accuracy.splitlines() if line.startswith(("| tiny", "| person"))][:2]
    assert [row.split(" | ")[3:] for row in rows[:1]] == [row.split(" | ")[3:] for row in rows[1:]]
    assert f"| {metrics['AP50'] * 100:.1f} |" in rows[0]
    assert "Protocol coco: 2 photographs, 2 boxes of person;" in accuracy
    assert "| person.onnx | equal | equal |" in accuracy


def test_pictures_lie_beside_the_card_and_are_linked(made: Made) -> None:
    links = re.findall(r"\]\((.*?)\)", made.section("Pictures"))
    assert links == ["card-pictures/astronaut.jpg", "card-pictures/camera.jpg"]
    for link in links:
        assert (made.folder / link).stat().st_size > 10_000
    assert re.search(r"^astronaut\.jpg: person 0\.\d\d", made.section("Pictures"), re.MULTILINE)


def test_provenance_names_every_file_by_its_hash(made: Made) -> None:
    provenance = made.section("Provenance")
    for found in made.content.inspections:
        assert f"`{found.sha256}`" in provenance
    assert made.content.evaluation.annotations_sha256 in provenance
    assert "person.onnx was converted from tiny_yolo_v2_person_224_int8.tflite" in provenance
    assert f"xdet {xdet.__version__}" in provenance


def test_the_commands_are_those_that_made_it(made: Made) -> None:
    commands = made.section("How to reproduce").split("```")[1].splitlines()[1:]
    assert commands[0] == "xdet convert tiny_yolo_v2_person_224_int8.tflite -o person.onnx --target cpu"
    assert [command.split()[1] for command in commands] == ["convert", "inspect", "eval", "bench", "card"]
    assert commands[-1].endswith("--runtimes litert:xnnpack,onnxruntime:cpu --threads 1 --blocks 1")
    assert " --notes notes.md --protocol coco " in commands[-1]
    assert "--samples" not in commands[-1]


def test_the_command_names_the_samples_and_the_notes_that_were_given(made: Made) -> None:
    request = replace(made.content.request, samples=(Path("some") / "my pictures",), notes_name="limits.md")
    text = card_text(replace(made.content, request=request), made.folder)
    assert " --samples 'my pictures' --notes limits.md --protocol " in text
    without = replace(made.content, request=replace(request, samples=(), notes=""))
    assert "--notes" not in card_text(without, made.folder)


def test_the_command_names_how_a_file_was_quantised_and_that_it_takes_any_size(made: Made) -> None:
    source, finished = made.content.inspections
    assert finished.document is not None
    spec = replace(finished.document.spec, image=replace(finished.document.spec.image, any_size=True))
    floating = replace(source, quantization="float32")
    changed = replace(finished, document=replace(finished.document, spec=spec, quantization="int8 per-tensor"))
    text = card_text(replace(made.content, inspections=(floating, changed)), made.folder)
    assert " -o person.onnx --target cpu --quantize per-tensor --calibration DIR --any-size\n" in text


def test_the_card_tells_no_folder(made: Made, embedded_tflite: Path) -> None:
    assert str(made.folder) not in made.text
    assert str(embedded_tflite.parent) not in made.text


def test_the_same_content_gives_the_same_card(made: Made) -> None:
    assert card_text(made.content, made.folder) == made.text


def test_a_runtime_that_could_not_run_is_told(made: Made) -> None:
    content = replace(made.content, skipped=("onnxruntime:warp: no such device",))
    text = card_text(content, made.folder)
    assert "Not measured:\n\n- onnxruntime:warp: no such device\n" in text


def test_notes_are_split_at_their_first_heading() -> None:
    assert split_notes("About.\n\n# One\n\ntext\n") == ("About.", "# One\n\ntext")
    assert split_notes("only words, #no heading") == ("only words, #no heading", "")
    assert split_notes("") == ("", "")


def test_a_card_needs_a_model_beside_its_source(embedded_tflite: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least one finished model"):
        CardRequest(embedded_tflite, (), tmp_path, tmp_path / "boxes.json")


def test_a_card_that_cannot_be_written_is_refused_before_any_work(made: Made, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="nowhere"):
        make_card(made.content.request, tmp_path / "nowhere" / "card.md")
    assert list(tmp_path.iterdir()) == []
