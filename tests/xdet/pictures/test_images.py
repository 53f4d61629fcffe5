"""Finding, reading and resizing pictures."""

from __future__ import annotations

import io
import os
import struct
import threading
import time
import warnings
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import PIL
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from xdet.errors import DataError, ImageError
from xdet.pictures.images import _PixelBudget, find_images, read_image, resize_image

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

RNG_IMAGE = np.random.default_rng(0).integers(0, 256, (7, 5, 3), dtype=np.uint8)


def save(path: Path, image: Image.Image, **options: Any) -> Path:
    image.save(path, **options)
    return path


def png_16_bit(path: Path, pixels: NDArray[np.uint16]) -> Path:
    """Write a 16-bit PNG: gray for two axes, RGB for three (Pillow writes no 16-bit RGB)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return path


def test_an_rgb_picture_is_read_as_it_is(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(RNG_IMAGE))
    assert np.array_equal(read_image(path, honour_exif=False), RNG_IMAGE)


def test_a_path_with_spaces_and_unicode_is_read(tmp_path: Path) -> None:
    path = save(tmp_path / "ein Bild \u00e9\u732b.png", Image.fromarray(RNG_IMAGE))
    assert np.array_equal(read_image(path, honour_exif=True), RNG_IMAGE)


def test_the_suffix_does_not_matter(tmp_path: Path) -> None:
    path = save(tmp_path / "picture.dat", Image.fromarray(RNG_IMAGE), format="PNG")
    assert np.array_equal(read_image(path, honour_exif=False), RNG_IMAGE)


def test_one_pixel_is_a_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", Image.new("RGB", (1, 1), (1, 2, 3)))
    assert read_image(path, honour_exif=True).tolist() == [[[1, 2, 3]]]


@pytest.mark.parametrize(
    ("mode", "colour", "expected"),
    [
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("LA", (77, 10), (77, 77, 77)),
        ("RGBA", (10, 20, 30, 0), (10, 20, 30)),
    ],
    ids=["grayscale", "one bit", "grayscale, transparent", "RGBA, transparent: alpha is dropped"],
)
def test_png_modes_become_rgb(
    tmp_path: Path, mode: str, colour: int | tuple[int, ...], expected: tuple[int, int, int]
) -> None:
    path = save(tmp_path / "a.png", Image.new(mode, (3, 2), colour))
    image = read_image(path, honour_exif=False)
    assert image.shape == (2, 3, 3)
    assert (image == expected).all()


def test_a_palette_with_transparency_keeps_its_colours(tmp_path: Path) -> None:
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 10, 20, 30, 40, 50])
    palette.putpixel((1, 0), 1)
    path = save(tmp_path / "a.png", palette, transparency=b"\x00\x80")
    assert read_image(path, honour_exif=False).tolist() == [[[200, 10, 20], [30, 40, 50]]]


def test_a_cmyk_jpeg_becomes_rgb(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.new("CMYK", (16, 16), (0, 255, 255, 0)), quality=95)
    red, green, blue = read_image(path, honour_exif=False).mean(axis=(0, 1))
    assert red > 250
    assert max(green, blue) < 5


@pytest.mark.parametrize("shape", [(2, 2), (2, 2, 3)], ids=["gray", "RGB"])
def test_16_bit_png_keeps_the_high_byte(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = np.array([0, 0x7F80, 0x80FF, 0xFFFF], np.uint16).reshape(2, 2)
    pixels = np.broadcast_to(values[..., None], shape) if len(shape) == 3 else values
    image = read_image(png_16_bit(tmp_path / "a.png", pixels), honour_exif=False)
    assert image[..., 0].tolist() == [[0, 0x7F], [0x80, 0xFF]]
    assert (image == image[..., :1]).all()


@pytest.mark.parametrize("suffix", [".tif", ".pgm"])
def test_16_bit_tiff_and_pgm_keep_the_high_byte(tmp_path: Path, suffix: str) -> None:
    values = np.array([[0, 0x7F80], [0x80FF, 0xFFFF]], np.uint16)
    path = save(tmp_path / f"a{suffix}", Image.fromarray(values))
    assert read_image(path, honour_exif=False)[..., 1].tolist() == [[0, 0x7F], [0x80, 0xFF]]


def test_32_bit_pixels_without_a_known_white_are_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(np.ones((2, 2), np.float32)))
    with pytest.raises(ImageError, match=r"32-bit pixels that do not tell which value is white"):
        read_image(path, honour_exif=False)


@pytest.mark.parametrize("suffix", [".gif", ".png", ".webp", ".tif"])
def test_an_animation_gives_its_first_frame(tmp_path: Path, suffix: str) -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((255, 0, 0), (0, 0, 255))]
    path = save(tmp_path / f"a{suffix}", frames[0], save_all=True, append_images=frames[1:])
    red, _, blue = read_image(path, honour_exif=True).mean(axis=(0, 1))
    assert (red, blue) == pytest.approx((255, 0), abs=3)  # lossy WebP


def exif_with_orientation(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, RNG_IMAGE),
        (2, RNG_IMAGE[:, ::-1]),
        (3, RNG_IMAGE[::-1, ::-1]),
        (4, RNG_IMAGE[::-1]),
        (5, RNG_IMAGE.transpose(1, 0, 2)),
        (6, np.rot90(RNG_IMAGE, -1)),
        (7, np.rot90(RNG_IMAGE, 2).transpose(1, 0, 2)),
        (8, np.rot90(RNG_IMAGE)),
        (0, RNG_IMAGE),
        (99, RNG_IMAGE),
    ],
)
def test_exif_orientation_turns_the_picture_only_if_honoured(
    tmp_path: Path, orientation: int, upright: NDArray[np.uint8]
) -> None:
    path = save(tmp_path / "a.png", Image.fromarray(RNG_IMAGE), exif=exif_with_orientation(orientation))
    assert np.array_equal(read_image(path, honour_exif=True), upright)
    assert np.array_equal(read_image(path, honour_exif=False), RNG_IMAGE)


def test_tiff_orientation_is_applied_once(tmp_path: Path) -> None:
    path = save(tmp_path / "a.tif", Image.fromarray(RNG_IMAGE), exif=exif_with_orientation(6))
    assert np.array_equal(read_image(path, honour_exif=True), np.rot90(RNG_IMAGE, -1))


def test_damaged_exif_does_not_hide_the_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", Image.fromarray(RNG_IMAGE), exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff")
    assert read_image(path, honour_exif=True).shape == RNG_IMAGE.shape


def jpeg_bytes() -> bytes:
    encoded = io.BytesIO()
    Image.fromarray(np.tile(RNG_IMAGE, (9, 9, 1))).save(encoded, "JPEG")
    return encoded.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty (0 bytes)"),
        (b"not a picture", "is no readable image, or has no pixels; expected one of JPEG, PNG"),
        (b"P6 0 0 255\n", "is no readable image, or has no pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no readable image"),
        (jpeg_bytes()[:-200], "is damaged or truncated: image file is truncated"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, "is no readable image"),
    ],
    ids=["empty file", "text", "no pixels", "PostScript is never run", "truncated", "damaged PNG"],
)
def test_a_file_that_gives_no_pixels_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad picture.jpg"
    path.write_bytes(content)
    with pytest.raises(ImageError) as caught:
        read_image(path, honour_exif=True)
    assert f"'{path}' {message}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_truncation_of_a_png_is_a_picture_or_an_image_error(tmp_path: Path) -> None:
    encoded = io.BytesIO()
    Image.fromarray(RNG_IMAGE).save(encoded, "PNG", exif=exif_with_orientation(6))
    path = tmp_path / "a.png"
    outcomes = set()
    for length in range(len(encoded.getvalue())):
        path.write_bytes(encoded.getvalue()[:length])
        try:
            read_image(path, honour_exif=True)
            outcomes.add("picture")
        except ImageError:
            outcomes.add("error")
    assert "error" in outcomes


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "WEBP", "BMP", "PPM"])
def test_flipped_bytes_never_raise_anything_but_an_image_error(tmp_path: Path, kind: str) -> None:
    encoded = io.BytesIO()
    Image.fromarray(RNG_IMAGE).save(encoded, kind)
    rng = np.random.default_rng(1)
    path = tmp_path / "a"
    for _ in range(60):
        data = np.frombuffer(encoded.getvalue(), np.uint8).copy()
        data[rng.integers(0, min(len(data), 200), 3)] = rng.integers(0, 256, 3)
        path.write_bytes(data.tobytes())
        try:
            assert read_image(path, honour_exif=True).dtype == np.uint8
        except ImageError as error:
            assert str(path) in str(error)  # noqa: PT017  both outcomes are fine; only the message is asserted


def test_a_missing_file_says_so(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"cannot read '.*absent\.png': No such file"):
        read_image(tmp_path / "absent.png", honour_exif=True)


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="it is a folder, expected a file"):
        read_image(tmp_path, honour_exif=True)


def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    path = tmp_path / "bomb.ppm"
    path.write_bytes(b"P6 30000 30000 255\n")
    with pytest.raises(ImageError, match=r"has more than 100 million pixels: too large; scale it down first"):
        read_image(path, honour_exif=True)


def test_a_large_picture_below_the_limit_gives_no_warning(tmp_path: Path) -> None:
    path = tmp_path / "large.ppm"
    path.write_bytes(b"P6 10000 10000 255\n")  # 100 million pixels: Pillow would warn; the data is missing
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError, match="truncated"):
            read_image(path, honour_exif=False)


def test_pictures_that_are_decoded_at_the_same_time_share_one_budget() -> None:
    budget, order = _PixelBudget(100), []
    first_is_in, second_was_in = threading.Event(), threading.Event()

    def first() -> None:
        with budget.of(60):
            first_is_in.set()
            second_was_in.wait(120)
            time.sleep(0.1)
            order.append("first")

    worker = threading.Thread(target=first)
    worker.start()
    assert first_is_in.wait(120)
    with budget.of(30):
        order.append("fits beside it")
    second_was_in.set()
    with budget.of(60):
        order.append("waits for it")
    worker.join(120)
    assert order == ["fits beside it", "first", "waits for it"]


@pytest.mark.skipif(
    os.name == "nt", reason="needs a POSIX system, such as Linux or macOS: Windows has no pipes with names"
)
def test_a_pipe_is_no_picture_and_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(ImageError, match="it is a pipe, expected a file"):
        read_image(tmp_path / "pipe.png", honour_exif=True)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "CMYK", "I;16"])
def test_pictures_of_many_rows_are_converted_block_by_block_like_in_one_piece(tmp_path: Path, mode: str) -> None:
    codes = np.random.default_rng(3).integers(0, 256, (700, 9, 4), np.uint8)
    suffix = ".tif" if mode == "CMYK" else ".png"
    picture = Image.fromarray(codes if mode in ("RGBA", "CMYK") else codes[..., 0])
    if mode == "I;16":
        picture = Image.fromarray(codes[..., 0].astype(np.uint16) << 8 | codes[..., 1])
    elif mode == "CMYK":
        picture = Image.frombytes("CMYK", (9, 700), codes.tobytes())
    elif picture.mode != mode:
        picture = picture.convert(mode)
    picture.save(tmp_path / f"a{suffix}")
    expected = codes[..., :1].repeat(3, axis=2) if mode == "I;16" else np.array(picture.convert("RGB"))
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}", honour_exif=True), expected)


def test_folders_give_their_images_sorted_and_files_stay_as_given(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "deeper").mkdir(parents=True)
    for name in ("b.JPG", "a.png", "notes.txt", ".hidden.png", "c.WebP", "deeper/d.png"):
        (folder / name).write_bytes(b"")
    absent = tmp_path / "absent.xyz"
    found = find_images([absent, folder, folder / "b.JPG", absent])
    assert found == [absent, folder / "a.png", folder / "b.JPG", folder / "c.WebP"]


def test_a_folder_without_images_is_an_error_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no image in the folder '.*'; looked for .*\.jpeg .*, not in subfolders"
    ) as caught:
        find_images([tmp_path])
    assert str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("rule", ["nearest", "bilinear", "bilinear-antialias"])
def test_the_same_size_is_a_copy(rule: str) -> None:
    resized = resize_image(RNG_IMAGE, 7, 5, rule)  # type: ignore[arg-type]
    assert np.array_equal(resized, RNG_IMAGE)
    assert not np.shares_memory(resized, RNG_IMAGE)


@pytest.mark.parametrize("rule", ["nearest", "bilinear", "bilinear-antialias"])
@pytest.mark.parametrize("size", [(1, 1), (3, 50), (64, 2)])
def test_one_pixel_fills_any_size(rule: str, size: tuple[int, int]) -> None:
    one = np.array([[[9, 8, 7]]], np.uint8)
    resized = resize_image(one, *size, rule)  # type: ignore[arg-type]
    assert resized.shape == (*size, 3)
    assert (resized == one).all()


@pytest.mark.parametrize("size", [1, 192, 224, 416])
@pytest.mark.parametrize("source", [1, 5, 191, 480, 640, 1920, 4032])
def test_nearest_takes_the_pixel_that_float32_arithmetic_names(source: int, size: int) -> None:
    line = np.zeros((1, source, 3), np.uint8)
    line[0, :, 0], line[0, :, 1] = np.arange(source) % 256, np.arange(source) // 256
    resized = resize_image(line, 1, size, "nearest").astype(int)
    ratio = np.float32(source) / np.float32(size)
    expected = [min(int(np.floor((np.float32(i) + np.float32(0.5)) * ratio)), source - 1) for i in range(size)]
    assert (resized[0, :, 0] + 256 * resized[0, :, 1]).tolist() == expected


def test_nearest_1920_to_224_differs_from_dividing_last() -> None:
    ours = [int(np.floor(np.float32(i + 0.5) * np.float32(1920 / 224))) for i in range(224)]
    other = [int(np.floor(np.float32(i + 0.5) * np.float32(1920) / np.float32(224))) for i in range(224)]
    assert ours != other
    line = (np.arange(1920) % 251).astype(np.uint8)[None, :, None].repeat(3, axis=2)
    assert resize_image(line, 1, 224, "nearest")[0, :, 0].tolist() == [index % 251 for index in ours]


def bilinear_pixel(image: NDArray[np.uint8], size: tuple[int, int], y: int, x: int) -> float:
    """The definition in double precision, for one result pixel of channel 0."""
    weights = []
    for index, source, target in ((y, image.shape[0], size[0]), (x, image.shape[1], size[1])):
        centre = (index + 0.5) * source / target - 0.5
        low = int(np.floor(centre))
        clamped = [min(max(i, 0), source - 1) for i in (low, low + 1)]
        weights.append([(clamped[0], 1 - (centre - low)), (clamped[1], centre - low)])
    total: float = sum(float(image[i, j, 0]) * wi * wj for i, wi in weights[0] for j, wj in weights[1])
    return total


@given(
    image=hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
def test_bilinear_is_within_rounding_of_its_definition(image: NDArray[np.uint8], size: tuple[int, int]) -> None:
    resized = resize_image(image, *size, "bilinear")
    for y, x in ((0, 0), (size[0] - 1, size[1] - 1), (size[0] // 2, size[1] // 3)):
        # half a grey level of rounding, and float32 arithmetic on values up to 255
        assert abs(float(resized[y, x, 0]) - bilinear_pixel(image, size, y, x)) <= 0.5 + 1e-3


def test_bilinear_rounds_half_to_even() -> None:
    pair = np.array([[[0, 1, 2], [1, 2, 3]]], np.uint8)  # halving two pixels gives 0.5, 1.5 and 2.5
    assert resize_image(pair, 1, 1, "bilinear").tolist() == [[[0, 2, 2]]]


def test_bilinear_does_not_antialias() -> None:
    stripes = np.zeros((1, 9, 3), np.uint8)
    stripes[0, 1::3] = 255
    assert (resize_image(stripes, 1, 3, "bilinear") == 255).all()
    assert (resize_image(stripes, 1, 3, "bilinear-antialias") < 200).all()


@pytest.mark.parametrize(
    ("size_hw", "columns_first"),
    [((90, 40), True), ((71, 40), True), ((70, 40), False), ((40, 90), False), ((29, 12), False)],
    ids=str,
)
def test_antialiased_passes_come_in_the_order_of_pillow_13(size_hw: tuple[int, int], *, columns_first: bool) -> None:
    def along_rows(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.concatenate([resize_image(row[None], 1, 20, "bilinear-antialias") for row in picture])

    def along_columns(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        columns = [picture[:, x : x + 1] for x in range(picture.shape[1])]
        return np.concatenate([resize_image(c, 30, 1, "bilinear-antialias") for c in columns], axis=1)

    picture = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), np.uint8)
    expected = along_rows(along_columns(picture)) if columns_first else along_columns(along_rows(picture))
    resized = resize_image(picture, 30, 20, "bilinear-antialias")
    assert np.array_equal(resized, expected)
    if int(PIL.__version__.partition(".")[0]) >= 13:
        whole = Image.fromarray(picture).resize((20, 30), Image.Resampling.BILINEAR)
        assert np.array_equal(resized, np.asarray(whole))


@given(image=hnp.arrays(np.uint8, st.tuples(st.integers(1, 80), st.integers(1, 9), st.just(3))))
def test_bilinear_stays_between_the_darkest_and_the_brightest_pixel(image: NDArray[np.uint8]) -> None:
    resized = resize_image(image, 33, 5, "bilinear")
    assert image.min() <= resized.min()
    assert resized.max() <= image.max()


@pytest.mark.parametrize(
    "image",
    [np.zeros((2, 2), np.uint8), np.zeros((0, 2, 3), np.uint8), np.zeros((2, 2, 4), np.uint8)],
    ids=["gray", "no pixels", "four channels"],
)
def test_an_array_that_is_no_picture_is_refused(image: NDArray[np.uint8]) -> None:
    with pytest.raises(ImageError, match=r"must be uint8 \(height, width, 3\) with pixels, got uint8"):
        resize_image(image, 4, 4, "nearest")


def test_floats_are_not_pixels() -> None:
    with pytest.raises(ImageError, match="got float32"):
        resize_image(np.zeros((2, 2, 3), np.float32), 4, 4, "nearest")


def test_a_size_or_rule_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 x 1, got 0 x 4"):
        resize_image(RNG_IMAGE, 0, 4, "nearest")
    with pytest.raises(
        ValueError, match="must be one of nearest, bilinear, bilinear-antialias, letterbox, got 'cubic'"
    ):
        resize_image(RNG_IMAGE, 4, 4, "cubic")  # type: ignore[arg-type]
