"""SSD heads whose priors come from the network, a file or a formula; what is missing or does not fit is refused."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime
import pytest

from converters.convert import convert
from converters.description.priors import PriorStatement, parse_variances, read_priors
from converters.description.statements import SourceOptions
from converters.errors import ConversionError, OptionError, SourceFileError
from converters.facts import SourceFacts, SourceOutput
from converters.heads.ssd import Ssd
from converters.options import ConvertOptions
from tests.converters.description.resolving import statements_of
from tests.converters.sources.tflite.ssd_networks import BOXES, CLASSES, SIZE, corners_xyxy, priors_yxhw, ssd_raw

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

YXHW = PriorStatement("coco-ssd", "yxhw", (0.1, 0.1, 0.2, 0.2))
OF_COCO = 1083 + 834


def facts(*outputs: SourceOutput, **more: Any) -> SourceFacts:
    return SourceFacts("net.tflite", 300, 300, outputs, "uint8", None, **more)


def output(columns: int, *activations: str, boxes: int = OF_COCO, **more: Any) -> SourceOutput:
    return SourceOutput(f"out_{columns}", (boxes, columns), activations, **more)


OFFSETS, SCORES = output(4), output(91, "LOGISTIC")


def build(found: SourceFacts, priors: PriorStatement, names: tuple[str, ...] | None = None) -> Ssd:
    return Ssd.from_statements(statements_of(found, SourceOptions(priors=priors, class_names=names)))


def save(folder: Path, name: str, rows: NDArray[Any], **more: Any) -> Path:
    path = folder / name
    if path.suffix == ".npy":
        np.save(path, rows)
    elif path.suffix == ".csv":
        path.write_text("\n".join(",".join(map(str, row)) for row in rows.tolist()))
    else:
        path.write_text(json.dumps({"priors": rows.tolist(), **more} if more else rows.tolist()))
    return path


def decode_independently(
    scores: NDArray[np.float32], offsets: NDArray[np.float32]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Boxes of the zoo's definition, for one image: a corner moves by its offset times the prior's size."""
    priors = corners_xyxy().astype(np.float64)
    sizes = np.tile(priors[:, 2:] - priors[:, :2], 2)
    corners = offsets * sizes + priors
    corners[:, 2:] = np.maximum(corners[:, :2], corners[:, 2:])  # a second corner before the first is an empty box
    return np.clip(corners, 0, 1), scores[:, 1:].astype(np.float64)


def run(model: bytes) -> list[NDArray[Any]]:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    picture = np.random.default_rng(4).integers(0, 256, (1, SIZE, SIZE, 3), np.uint8)
    return list(session.run(None, {"image": picture}))


@pytest.mark.parametrize("ends_in", ["constant", "computed", "joined"])
def test_priors_of_the_network_itself_decode_as_the_zoo_says(tmp_path: Path, ends_in: str) -> None:
    source = tmp_path / "net.tflite"
    source.write_bytes(ssd_raw(ends_in))
    said = SourceOptions(
        head="ssd" if ends_in == "joined" else "auto", score_threshold=0.02, max_detections=400, iou_threshold=1.0
    )
    conversion = convert(source, tmp_path / "net.onnx", ConvertOptions(source=said))
    head = conversion.document.spec.head
    assert isinstance(head, Ssd)
    assert (head.coding, head.scales, head.priors is None) == ("corners", (1, 1, 1, 1), ends_in != "constant")
    raw_source = tmp_path / "raw.tflite"
    raw_source.write_bytes(ssd_raw())
    raw = run(convert(raw_source, tmp_path / "raw.onnx", ConvertOptions(source=SourceOptions(head="none"))).model)
    boxes, scores = decode_independently(raw[0][0], raw[1][0])
    count, found, found_scores, classes, anchors = run(conversion.model)
    assert count[0] > 50
    for row in range(count[0]):
        box, kind = anchors[0, row], classes[0, row]
        assert found_scores[0, row] == scores[box, kind]
        np.testing.assert_allclose(found[0, row], boxes[box], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["p.npy", "p.csv", "p.json"])
def test_priors_of_a_file_are_those_of_the_network(tmp_path: Path, name: str) -> None:
    source = tmp_path / "net.tflite"
    source.write_bytes(ssd_raw())
    path = save(tmp_path, name, priors_yxhw())
    statement = PriorStatement(str(path), "yxhw", (0.1, 0.1, 0.2, 0.2))
    said = SourceOptions(priors=statement, class_names=tuple("abcd"))
    head = convert(source, tmp_path / "net.onnx", ConvertOptions(source=said)).document.spec.head
    assert isinstance(head, Ssd)
    assert (head.num_boxes, head.num_classes, head.coding, head.yx_first) == (BOXES, CLASSES, "centers", True)
    assert head.scales == (10.0, 10.0, 5.0, 5.0)
    np.testing.assert_array_equal(np.array(head.priors, np.float32), priors_yxhw())
    sidecar = {"head": "ssd", "priors": name, "prior_format": "yxhw", "variances": [0.1, 0.1, 0.2, 0.2]}
    source.with_suffix(".xdet.json").write_text(json.dumps(sidecar))
    again = convert(source, tmp_path / "again.onnx", ConvertOptions(source=SourceOptions(class_names=tuple("abcd"))))
    assert again.document.spec.head == head


def test_a_file_may_hold_variances_and_format(tmp_path: Path) -> None:
    rows = np.concatenate([priors_yxhw(), np.tile([0.1, 0.1, 0.2, 0.2], (BOXES, 1))], axis=1)
    assert read_priors(str(save(tmp_path, "p.npy", rows)), (1, 1)).variances == (0.1, 0.1, 0.2, 0.2)
    told = save(tmp_path, "p.json", priors_yxhw(), format="xywh", variances=[1, 1, 1, 1])
    found = read_priors(str(told), (1, 1))
    assert (found.format, found.variances, found.rows.shape) == ("xywh", (1, 1, 1, 1), (BOXES, 4))


def test_generated_priors_are_those_of_the_published_detectors() -> None:
    priors = read_priors("coco-ssd", (300, 300)).rows
    assert priors.shape == (OF_COCO, 4)
    half = 0.5 / 19
    np.testing.assert_allclose(priors[0], [half, half, 0.1, 0.1])
    np.testing.assert_allclose(priors[1], [half, half, 0.2 / np.sqrt(2), 0.2 * np.sqrt(2)])
    np.testing.assert_allclose(priors[3 * 361], [0.05, 0.05, 0.35, 0.35])
    np.testing.assert_allclose(priors[-1], [0.5, 0.5, np.sqrt(0.95), np.sqrt(0.95)])
    wide = read_priors("coco-ssd:layers=2,min=0.2,max=0.4", (400, 200)).rows
    np.testing.assert_allclose(wide[0, 2:] * [200, 400], [20, 20])


def test_generated_priors_of_a_feature_pyramid_are_those_of_the_published_detectors() -> None:
    pixels = read_priors("coco-ssd-fpn", (320, 320)).rows * 320
    assert pixels.shape == (6 * (40 * 40 + 20 * 20 + 10 * 10 + 5 * 5 + 3 * 3), 4)
    root = np.sqrt(2)
    np.testing.assert_allclose(pixels[:3], [(4, 4, 32, 32), (4, 4, 32 * root, 32 * root), (4, 4, 32 / root, 32 * root)])
    np.testing.assert_allclose(pixels[6], [4, 12, 32, 32])
    np.testing.assert_allclose(pixels[-6], [256, 256, 512, 512])  # 128 does not divide 320: from 0, by whole strides
    wide = read_priors("coco-ssd-fpn:first=4,last=4,octaves=1", (64, 32)).rows * [32, 64, 32, 64]
    assert wide.shape == (3 * 4 * 2, 4)
    np.testing.assert_allclose(wide[-3], [24, 56, 64, 64])


def test_what_the_scores_need_and_which_column_is_the_background_follow_from_facts_and_names() -> None:
    def built(scores: SourceOutput, names: tuple[str, ...] | None = None, activation: Any = None) -> Ssd:
        return build(facts(OFFSETS, scores), PriorStatement("coco-ssd", activation=activation), names)

    assert built(SCORES).parts == ("offsets", "scores")
    unknown = facts(output(91, "SOFTMAX"), OFFSETS, OFFSETS)
    assert build(unknown, PriorStatement()).parts == ("scores", "offsets", "priors")
    assert "cannot be told here: --head ssd takes" in (Ssd.misfit(unknown, by_name=False) or "")
    assert Ssd.misfit(unknown, by_name=True) is None
    assert (built(SCORES).num_classes, built(SCORES).background, built(SCORES).activation) == (90, True, "none")
    assert built(output(3, "LOGISTIC"), tuple("abc")).background is False
    assert built(output(3, "SOFTMAX"), tuple("ab")).background is True
    assert built(output(1, "LOGISTIC")).background is False
    assert built(output(91), activation="sigmoid").activation == "sigmoid"
    assert built(output(91, smallest=0.0, largest=0.996)).activation == "none"
    assert built(output(4, "SOFTMAX")).num_classes == 3  # told from the offsets by what stands in front


REFUSED: dict[str, tuple[SourceFacts, PriorStatement, tuple[str, ...] | None, str]] = {
    "no priors": (
        facts(OFFSETS, SCORES),
        PriorStatement(),
        None,
        r"\(1917 boxes\) needs priors, .* give --priors FILE",
    ),
    "other count": (facts(output(4, boxes=9), output(2, "SOFTMAX", boxes=9)), YXHW, None, "1917 priors, expected 9"),
    "names": (facts(OFFSETS, SCORES), YXHW, ("a", "b"), "91 columns, 91 classes or a background and 90; 2 are named"),
    "raw scores": (facts(OFFSETS, output(91)), YXHW, None, "its scores are raw numbers; .*--score-activation softmax"),
    "twice": (
        facts(OFFSETS, SCORES),
        PriorStatement("coco-ssd", activation="softmax"),
        None,
        r"are probabilities already \(LOGISTIC\); leave",
    ),
    "two sources of priors": (
        facts(output(4, from_picture=True), SCORES, output(4, from_picture=False)),
        YXHW,
        None,
        "gives its priors itself: leave --priors out",
    ),
    "centres of the network": (
        facts(output(4, from_picture=True), SCORES, output(4, from_picture=False)),
        PriorStatement(format="xywh"),
        None,
        r"its own priors \(xywh\) have no variances",
    ),
    "centres read as corners": (
        facts(output(4, boxes=1), output(2, "SOFTMAX", boxes=1), priors=((0.5, 0.5, 0.2, 0.2),)),
        PriorStatement(),
        None,
        "its own priors, read as xyxy: prior 0 has no size above 0.*check --prior-format",
    ),
}


@pytest.mark.parametrize(("found", "said", "names", "told"), REFUSED.values(), ids=REFUSED)
def test_what_is_missing_or_does_not_fit_is_refused(
    found: SourceFacts, said: PriorStatement, names: tuple[str, ...] | None, told: str
) -> None:
    assert Ssd.misfit(found, by_name=False) is None
    with pytest.raises(OptionError, match=told):
        build(found, said, names)


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (facts(output(4), output(4)), "cannot be told"),
        (facts(output(3), output(5)), "cannot be told"),
        (facts(*(output(n, from_picture=True) for n in (4, 91, 91))), "found 3 and 0"),
        (facts(OFFSETS, output(9, boxes=7)), "an SSD head is offsets"),
        (facts(SourceOutput("grid", (7, 7, 30))), "an SSD head is offsets"),
        (facts(output(13)), "only where --head ssd says so"),
    ],
)
def test_outputs_of_another_head_are_none(found: SourceFacts, told: str) -> None:
    assert told in (Ssd.misfit(found, by_name=False) or "")


NPY = b"\x93NUMPY\x01\x00\x76\x00"
HEADER = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 4), }"
FILES: dict[str, tuple[str, bytes, str]] = {
    "pickle": ("p.npy", b"\x80\x04]q\x00.", "p.npy"),
    "header beyond the file": ("p.npy", NPY + HEADER.ljust(117) + b"\n", "p.npy"),
    "header cut in two": ("p.npy", NPY + b"{'descr': (".ljust(117) + b"\n", "header is damaged"),
    "text in csv": ("p.csv", b"0.1,0.2,a,0.3", "could not convert string to float: 'a'"),
    "ragged": ("p.csv", b"0.1,0.2,0.3,0.3\n0.1", "p.csv"),
    "three": ("p.json", b"[[0.1,0.2,0.3]]", r"found an array \[1, 3\]"),
    "pixels": ("p.json", b"[[150,150,30,30]]", "expected fractions of the picture, found 150"),
    "NaN": ("p.json", b"[[NaN,1,1,1]]", "expected fractions of the picture, found nan"),
    "variances that differ": ("p.csv", b"0,0,1,1,1,1,1,1\n0,0,1,1,1,1,1,2", "expected the same variances"),
    "deep": ("p.json", b"[" * 100_000, "p.json"),
    "unknown key": ("p.json", b'{"boxes": []}', "unknown keys 'boxes'; known are priors, format, variances"),
    "no rows": ("p.json", b"{}", "found an array"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "data", "told"), FILES.values(), ids=FILES)
def test_files_that_hold_no_priors_are_refused(tmp_path: Path, name: str, data: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceFileError, match=told):
        read_priors(str(tmp_path / name), (1, 1))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("priors.txt", "expected coco-ssd, coco-ssd-fpn, or a file that ends in .npy, .csv, .json"),
        ("coco-ssd:layers=1", "expected 2 to 16 layers"),
        ("coco-ssd-fpn:last=2", "expected 1 <= first <= last <= 10"),
        ("coco-ssd-fpn:octaves=two", "expected first, last, scale, octaves as in first=3"),
        ("coco-ssd:size=3", "expected layers, min, max as in"),
        ("missing.npy", "cannot be read"),
    ],
)
def test_other_words_are_refused(text: str, told: str) -> None:
    with pytest.raises(ConversionError, match=told):
        read_priors(text, (300, 300))


def test_variances_are_four_numbers() -> None:
    assert parse_variances("0.1,0.1,0.2,0.2") == (0.1, 0.1, 0.2, 0.2)
    for text in ("0.1,0.2", "a,b,c,d", "0,1,1,1", "inf,1,1,1", ""):
        with pytest.raises(OptionError, match="write them like"):
            parse_variances(text)


def test_a_refusal_leaves_nothing_behind(tmp_path: Path) -> None:
    source, target = tmp_path / "net.tflite", tmp_path / "net.onnx"
    source.write_bytes(ssd_raw())
    buffer = io.BytesIO()
    np.save(buffer, priors_yxhw()[:5])
    (tmp_path / "p.npy").write_bytes(buffer.getvalue())
    said = SourceOptions(priors=PriorStatement(str(tmp_path / "p.npy"), "yxhw", (0.1, 0.1, 0.2, 0.2)))
    with pytest.raises(OptionError, match="5 priors, expected 240"):
        convert(source, target, ConvertOptions(source=said))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.tflite", "p.npy"]
