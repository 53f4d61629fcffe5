"""Detecting in films: a line per frame, none lost, resumed after an interruption, and boxes in a video beside it."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from tests.xdet.films import write_film
from tests.xdet.rtsp import streaming
from tests.xdet.web import Site, serving
from xdet.detection.batch import FrameDetections, detect_film_to_file, detect_frames
from xdet.detection.parquet import open_results
from xdet.detection.results import results_header
from xdet.errors import ImageError
from xdet.pictures.addresses import Address
from xdet.pictures.video import Film, read_frames

if TYPE_CHECKING:
    from pathlib import Path

    from xdet.detection.detector import Detector

pytest.importorskip("av", reason='needs pip install "xdet[video]"')
REDS = [0, 250, 0, 200, 255, 10, 150] * 3


@pytest.fixture
def film(tmp_path: Path) -> Film:
    return Film.of_file(write_film(tmp_path / "f.mkv", REDS))


def write(detector: Detector, film: Film, path: Path, **options: Any) -> list[FrameDetections]:
    shown: list[FrameDetections] = []
    with open_results(path, results_header(detector, None)) as results:
        detect_film_to_file(detector, film, results, show=shown.append, **options)
    return shown


def entries(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()[1:]]


def test_every_frame_has_a_line_in_order(detector: Detector, film: Film, tmp_path: Path) -> None:
    write(detector, film, tmp_path / "out.jsonl")
    lines = entries(tmp_path / "out.jsonl")
    assert [line["frame"] for line in lines] == list(range(len(REDS)))
    assert [line["time_s"] for line in lines] == [round(number / 25, 6) for number in range(len(REDS))]
    assert [len(line["detections"]) for line in lines] == [4 * (red > 127) for red in REDS]
    assert [line["detections"][0]["score"] for line in lines[1:4:2]] == [0.98039216, 0.78431374]
    assert list(lines[0]) == ["image", "sha256", "frame", "time_s", "width", "height", "detections"]
    assert {(line["image"], line["width"], len(line["sha256"])) for line in lines} == {(film.name, 64, 64)}


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_an_interrupted_film_goes_on_to_the_same_file(
    detector: Detector, film: Film, tmp_path: Path, suffix: str
) -> None:
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    write(detector, film, whole)
    data = whole.read_bytes()
    start = len(b"".join(data.splitlines(keepends=True)[:2]))
    for end in range(start, len(data), 1201):
        cut.write_bytes(data[:end])
        write(detector, film, cut)
        assert cut.read_bytes() == data


def test_ctrl_c_keeps_the_frames_of_a_file_and_is_raised(detector: Detector, film: Film, tmp_path: Path) -> None:
    def interrupt(each: FrameDetections) -> None:
        if each.frame.number == 4:
            raise KeyboardInterrupt

    path = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        with_show(detector, film, path, interrupt)
    assert len(entries(path)) == 5
    assert [seen.frame.number for seen in write(detector, film, path)] == list(range(5, len(REDS)))


def with_show(detector: Detector, film: Film, path: Path, show: Any, **options: Any) -> Any:
    with open_results(path, results_header(detector, None)) as results:
        return detect_film_to_file(detector, film, results, show=show, **options)


def test_parquet_has_a_row_per_frame(detector: Detector, film: Film, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason='needs pip install "xdet[parquet]"')
    write(detector, film, tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet").to_pydict()
    assert table["frame"] == list(range(len(REDS)))
    assert [len(boxes) for boxes in table["detections"]] == [4 * (red > 127) for red in REDS]


def test_what_a_changed_film_had_is_left_out_of_parquet(detector: Detector, film: Film, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason='needs pip install "xdet[parquet]"')
    write(detector, film, tmp_path / "out.parquet")
    write_film(tmp_path / "f.mkv", [255, 255])
    write(detector, film, tmp_path / "out.parquet")
    assert parquet.read_table(tmp_path / "out.parquet")["frame"].to_pylist() == [0, 1]


def test_a_recording_shows_boxes_in_every_frame(detector: Detector, film: Film, tmp_path: Path) -> None:
    write(detector, film, tmp_path / "out.jsonl", recording=tmp_path / "boxes.mp4")
    drawn = list(read_frames(Film.of_file(tmp_path / "boxes.mp4")))
    plain = list(read_frames(film))
    assert [frame.time_s for frame in drawn] == [frame.time_s for frame in plain]
    greens = [int(frame.pixels[..., 1].max()) for frame in drawn]
    assert [green > 100 for green in greens] == [red > 127 for red in REDS]


def test_a_film_that_cannot_be_read_is_a_line_with_its_error(detector: Detector, tmp_path: Path) -> None:
    (tmp_path / "bad.mp4").write_bytes(b"no film")
    film = Film.of_file(tmp_path / "bad.mp4")
    write(detector, film, tmp_path / "out.jsonl")
    (line,) = entries(tmp_path / "out.jsonl")
    assert (line["image"], "frame" in line) == (film.name, False)
    assert "the data are damaged, or no video" in line["error"]
    with pytest.raises(ImageError, match="the data are damaged"):
        list(detect_frames(detector, film))
    with pytest.raises(ImageError, match="the data are damaged"):
        detect_film_to_file(detector, film, None)


def jpegs(count: int) -> list[bytes]:
    parts = []
    for number in range(count):
        file = io.BytesIO()
        Image.new("RGB", (64, 48), (130 + number, 0, 0)).save(file, "JPEG", quality=95)
        parts.append(file.getvalue())
    return parts


def test_a_stream_is_seen_until_it_ends_and_a_film_on_a_server_whole(
    detector: Detector, film: Film, tmp_path: Path
) -> None:
    assert film.path is not None
    files = {"/f.mkv": ("video/x-matroska", film.path.read_bytes())}
    with serving(Site(files=files, parts={"/live": jpegs(40)})) as site:
        with open_results(tmp_path / "whole.jsonl", results_header(detector, None)) as results:
            end = detect_film_to_file(detector, Film.of_address(Address(f"{site.address}/f.mkv")), results)
        assert (end.live, end.frames) == (False, len(REDS))
        with open_results(tmp_path / "live.jsonl", results_header(detector, None)) as results:
            end = detect_film_to_file(detector, Film.of_address(Address(f"{site.address}/live")), results)
    assert (end.live, end.stopped, end.frames + end.dropped) == (True, False, 40)
    *lines, last = entries(tmp_path / "live.jsonl")
    assert "/live' ended: " in last["error"]  # the server closed the connection
    numbers = [line["frame"] for line in lines]
    assert numbers == sorted(set(numbers))
    assert numbers[-1] == 39
    assert {line["sha256"] for line in lines} == {""}


def test_rtsp_is_a_live_stream(detector: Detector, tmp_path: Path) -> None:
    film = write_film(tmp_path / "f.ts", [200] * 30, codec="libx264", pixel_format="yuv420p")
    with streaming(film.read_bytes()) as address:
        end = detect_film_to_file(detector, Film.of_address(Address(address)), None)
    assert (end.live, end.stopped) == (True, False)
    assert end.frames >= 1
    assert end.frames + end.dropped >= 29  # a server that goes away keeps the last one


def test_ctrl_c_is_how_a_live_source_ends_and_all_is_kept(detector: Detector, tmp_path: Path) -> None:
    def interrupt(each: FrameDetections) -> None:
        if each.frame.number >= 3:
            raise KeyboardInterrupt

    recording = tmp_path / "boxes.mp4"
    with serving(Site(parts={"/live": jpegs(200)})) as site:
        live = Film.of_address(Address(f"{site.address}/live"))
        end = with_show(detector, live, tmp_path / "out.jsonl", interrupt, recording=recording)
    assert (end.live, end.stopped) == (True, True)
    assert len(entries(tmp_path / "out.jsonl")) == len(list(read_frames(Film.of_file(recording)))) == end.frames
