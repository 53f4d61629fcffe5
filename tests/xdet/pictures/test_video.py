"""Frames of films: all of them, at their times, upright, and every trouble in a sentence behind what could be read."""

from __future__ import annotations

import sys
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from tests.xdet.films import turn_clockwise, write_film
from tests.xdet.web import Site, serving
from xdet.errors import ImageError, MissingExtraError, UsageError
from xdet.pictures import video
from xdet.pictures.addresses import Address
from xdet.pictures.video import Film, Frame, Recording, frames_expected, newest_frames, read_frames, recording_paths

pytest.importorskip("av", reason='needs pip install "xdet[video]"')


def reds(frames: list[Frame]) -> list[int]:
    return [int(frame.pixels[0, 0, 0]) for frame in frames]


def read(path: Path) -> tuple[list[Frame], str]:
    """The frames, and the error behind them."""
    frames: list[Frame] = []
    try:
        for frame in read_frames(Film.of_file(path)):
            frames.append(frame)  # noqa: PERF402 - those before an error count
    except ImageError as error:
        return frames, str(error)
    return frames, ""


def test_every_frame_comes_with_its_number_and_its_own_time(tmp_path: Path) -> None:
    times = [Fraction(1), Fraction(11, 10), Fraction(3, 2), Fraction(4)]  # of a telephone: at no fixed rate
    path = write_film(tmp_path / "ü [1].mkv", [10, 20, 30, 250], times=times)
    frames, error = read(path)
    assert error == ""
    assert [(frame.number, frame.time_s) for frame in frames] == [(0, 0), (1, 0.1), (2, 0.5), (3, 3)]
    assert reds(frames) == [10, 20, 30, 250]
    assert frames[0].pixels.shape == (48, 64, 3)
    assert frames[0].pixels[..., 1:].max() == 0


def test_how_many_frames_a_film_says_that_it_has(tmp_path: Path) -> None:
    with_index = write_film(tmp_path / "f.mp4", range(7), codec="libx264", pixel_format="yuv420p")
    assert frames_expected(Film.of_file(with_index)) == 7
    by_length = frames_expected(Film.of_file(write_film(tmp_path / "f.mkv", range(50))))
    assert by_length == pytest.approx(50, abs=2)


def test_a_turned_film_is_upright(tmp_path: Path) -> None:
    path = write_film(tmp_path / "f.mp4", [200] * 3, codec="libx264", pixel_format="yuv420p")
    before, _ = read(path)
    turn_clockwise(path)
    after, error = read(path)
    assert error == ""
    for turned, plain in zip(after, before, strict=True):
        assert np.array_equal(turned.pixels, np.rot90(plain.pixels, -1))


@pytest.mark.parametrize("name", ["f.mp4", "f.mov", "f.mkv"])
def test_a_recording_has_every_frame_at_its_time(tmp_path: Path, name: str) -> None:
    moments = [0.0, 0.04, 0.5, 0.54, 2.0]
    with Recording(tmp_path / name) as recording:
        for number, moment in enumerate(moments):
            recording.add(np.full((47, 63, 3), 50 * number, np.uint8), moment)
    frames, error = read(tmp_path / name)
    assert error == ""
    assert [frame.time_s for frame in frames] == pytest.approx(moments, abs=0.001)  # Matroska counts milliseconds
    assert [frame.pixels.shape for frame in frames] == [(48, 64, 3)] * 5
    assert reds(frames) == pytest.approx([0, 50, 100, 150, 200], abs=3)


def test_a_recording_that_was_never_finished_can_be_played(tmp_path: Path) -> None:
    recording = Recording(tmp_path / "f.mp4")
    for number in range(600):
        recording.add(np.full((48, 64, 3), number % 200, np.uint8), number / 25)
    (tmp_path / "killed.mp4").write_bytes((tmp_path / "f.mp4").read_bytes())
    recording.close()
    frames, _ = read(tmp_path / "killed.mp4")
    assert len(frames) >= 200
    assert len(read(tmp_path / "f.mp4")[0]) == 600


def test_recordings_keep_name_and_container() -> None:
    names = ["a/x.mov", "b/X.mov", "c.avi", "rtsp://host/live", "camera 0", "http://host/"]
    expected = ["x.mov", "X-2.mov", "c.avi.mp4", "live.mp4", "camera 0.mp4", "host.mp4"]
    assert [path.name for path in recording_paths(names, Path("out"))] == expected


def test_a_film_that_was_cut_off_gives_what_it_has_and_says_so(tmp_path: Path) -> None:
    whole = write_film(tmp_path / "f.mp4", range(60), codec="mpeg4", pixel_format="yuv420p")
    import av

    with (
        av.open(str(whole)) as film,
        av.open(str(tmp_path / "fast.mp4"), "w", options={"movflags": "faststart"}) as fast,
    ):
        stream = fast.add_stream_from_template(film.streams.video[0])
        for packet in film.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                fast.mux(packet)
    data = (tmp_path / "fast.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 3 // 4])
    frames, error = read(tmp_path / "cut.mp4")
    assert 10 < len(frames) < 60
    assert f"cut.mp4': {len(frames)} of 60 frames can be read: " in error


def test_a_damaged_packet_is_told_and_the_rest_is_read(tmp_path: Path) -> None:
    path = write_film(tmp_path / "f.mkv", [40 * number for number in range(6)])
    import av

    with av.open(str(path)) as film:
        packets = [bytes(packet) for packet in film.demux(video=0) if packet.size]
    data = path.read_bytes()
    assert data.count(packets[3]) == 1
    path.write_bytes(data.replace(packets[3], b"\xff" * len(packets[3])))
    frames, error = read(path)
    assert {0, 40, 80, 160, 200} <= set(reds(frames))
    assert "damaged pieces" in error


def test_a_frame_that_claims_to_be_huge_is_not_decoded(tmp_path: Path) -> None:
    path = write_film(tmp_path / "f.mkv", range(4), codec="libvpx", pixel_format="yuv420p")
    data = bytearray(path.read_bytes())
    start = data.index(b"\x9d\x01\x2a") + 3  # of a VP8 key frame: width and height follow
    data[start : start + 4] = b"\xff\x3f\xff\x3f"
    path.write_bytes(data)
    _, error = read(path)
    assert "damaged, or more than 36 million pixels" in error


HLS = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nf.mkv\n#EXT-X-ENDLIST\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\3\4 an archive", "cannot open '.*x.mp4': the data are damaged, or no video"),
        (b"", "cannot open '.*x.mp4': "),
        (b"ffconcat version 1.0\nfile f.mkv\n", "cannot open '.*x.mp4': it is no video of a kind that xdet reads"),
        (HLS.encode(), "cannot open '.*x.mp4': "),
    ],
    ids=["zip", "empty", "concat", "hls"],
)
def test_what_is_no_film_is_refused_and_opens_no_other_file(tmp_path: Path, content: bytes, words: str) -> None:
    write_film(tmp_path / "f.mkv", [1])
    path = tmp_path / "x.mp4"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=words):
        next(read_frames(Film.of_file(path)))


def test_a_codec_that_is_missing_is_told(tmp_path: Path) -> None:
    path = write_film(tmp_path / "f.mp4", [1, 2], codec="libx264", pixel_format="yuv420p")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(ImageError, match=r"f\.mp4' is of a codec that this FFmpeg cannot decode; convert it"):
        next(read_frames(Film.of_file(path)))


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    import av

    with av.open(str(tmp_path / "f.mkv"), "w") as film:
        sound = film.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), layout="mono")
        frame.sample_rate = 8000
        film.mux(sound.encode(frame))
    with pytest.raises(ImageError, match=r"f\.mkv' holds no video"):
        next(read_frames(Film.of_file(tmp_path / "f.mkv")))


def test_a_camera_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "linux":
        with pytest.raises(ImageError, match=r"cannot open 'camera 99' \(/dev/video99\): No such file or directory"):
            next(read_frames(Film.of_camera("99")))
    monkeypatch.setattr(sys, "platform", "plan9")
    with pytest.raises(UsageError, match="xdet opens no cameras on plan9"):
        Film.of_camera("0")


def test_a_stream_whose_server_is_not_there_is_told_without_its_password() -> None:
    with pytest.raises(ImageError, match=r"cannot open 'rtsp://127\.0\.0\.1:9/x': Connection refused"):
        next(read_frames(Film.of_address(Address("rtsp://me:secret@127.0.0.1:9/x"))))


def test_a_playlist_on_a_server_opens_no_file_of_this_machine(tmp_path: Path) -> None:
    film = write_film(tmp_path / "f.ts", [200] * 30, codec="libx264", pixel_format="yuv420p")
    kind = "application/vnd.apple.mpegurl"
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\n{}\n#EXT-X-ENDLIST\n"
    files = {
        "/own.m3u8": (kind, playlist.format("f.ts").encode()),
        "/file.m3u8": (kind, playlist.format(film.as_uri()).encode()),
        "/f.ts": ("video/mp2t", film.read_bytes()),
    }
    with serving(Site(files=files, moved={"/moved.mp4": film.as_uri()})) as site:
        assert len(list(read_frames(Film.of_address(Address(f"{site.address}/own.m3u8"))))) == 30
        for path in ("/file.m3u8", "/moved.mp4"):
            with pytest.raises(ImageError, match=f"cannot open 'http://.*{path}'"):
                next(read_frames(Film.of_address(Address(site.address + path))))


def test_without_pyav_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtraError, match=r'pip install "xdet\[video\]"'):
        next(read_frames(Film.of_file(tmp_path / "f.mp4")))


def live(monkeypatch: pytest.MonkeyPatch, count: int, error: Exception | None = None) -> threading.Event:
    """A camera of ``count`` frames that come as fast as they can; the event is set when all have come."""
    done = threading.Event()

    def frames(_: Film) -> object:
        for number in range(count):
            yield Frame(number, number / 25, np.zeros((1, 1, 3), np.uint8))
        done.set()
        if error is not None:
            raise error

    monkeypatch.setattr(video, "read_frames", frames)
    return done


def test_of_a_live_source_the_newest_frame_is_given_and_the_others_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    done = live(monkeypatch, 100)
    dropped: list[int] = []
    seen: list[int] = []
    for frame in newest_frames(Film("camera", ""), dropped.append):
        done.wait(120)
        seen.append(frame.number)
    assert seen[-1] == 99
    assert seen == sorted(set(seen))
    assert len(seen) <= 2
    assert dropped == [100 - len(seen)]


def test_a_live_source_that_fails_is_told_behind_its_last_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    live(monkeypatch, 1, ImageError("'camera' ended: Input/output error"))
    frames = newest_frames(Film("camera", ""))
    assert next(frames).number == 0
    with pytest.raises(ImageError, match="'camera' ended"):
        next(frames)


def test_leaving_a_live_source_ends_its_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    live(monkeypatch, 1 << 40)
    frames = newest_frames(Film("camera", ""))
    next(frames)
    frames.close()
    deadline = time.monotonic() + 120
    while any(thread.name == "xdet-camera" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
