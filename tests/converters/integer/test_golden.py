"""Golden vectors: one picture everywhere, exact codes, and a vector tells how far a head is from it."""

from __future__ import annotations

import doctest
import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from converters.convert import Conversion, convert_to_bytes
from converters.description.statements import SourceOptions
from converters.integer import golden as golden_module
from converters.integer.golden import RawCodes, compare_head, golden_image, make_vector, random_words, stored_codes
from converters.options import ConvertOptions
from converters.spec import GoldenPart, GoldenVector, ModelDocument

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

EMBEDDED_CODES = "3fbbc444a01ee2502c553479c74fbace445745d3168b876e82f1cc1cdc23a0b4"


def vector_of(codes: NDArray[np.uint8], scale: float = 0.1, zero_point: int = 120, room: int = 10**6) -> GoldenVector:
    return make_vector(
        [RawCodes(codes, np.float32(scale), zero_point)], room_bytes=room, bound_lsb=0, other_kernels_lsb=4
    )


def head_of(codes: NDArray[np.uint8], vector: GoldenVector) -> NDArray[np.float32]:
    return (codes.astype(np.int32) - vector.zero_point).astype(np.float32) * np.float32(vector.scale)


def random_codes(shape: tuple[int, ...] = (3, 4, 5), seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


CODES = random_codes()
VECTOR = vector_of(CODES)


def two_outputs() -> GoldenVector:
    outputs = [RawCodes(CODES, np.float32(0.1), 120), RawCodes(random_codes((2, 7), seed=1), np.float32(0.25), 3)]
    return make_vector(outputs, room_bytes=10**6, bound_lsb=0, other_kernels_lsb=4)


def head_of_two() -> NDArray[np.float32]:
    """Both outputs, flattened side by side."""
    one = head_of(CODES.reshape(-1), VECTOR)
    two = (random_codes((14,), seed=1).astype(np.int32) - 3).astype(np.float32) * np.float32(0.25)
    return np.concatenate([one, two])


def test_several_outputs_have_one_vector_and_each_its_own_codes() -> None:
    head, vector = head_of_two(), two_outputs()
    assert [(part.start, part.scale, part.zero_point) for part in vector.further] == [(60, 0.25, 3)]
    found = compare_head(head, vector)
    assert (found.exact, found.compared, found.off_lattice) == (True, 74, 0)
    head[-1] += 2 * np.float32(0.25)
    found = compare_head(head, vector)
    assert (found.exact, found.differing, found.worst_lsb, found.off_lattice) == (False, 1, 2.0, 0)
    with pytest.raises(ValueError, match="do not fit a head of 60 values"):
        compare_head(head[:60], vector)


def test_a_selection_of_several_outputs_holds_every_channel_of_each() -> None:
    outputs = [RawCodes(random_codes((40, n)), np.float32(0.1), 0) for n in (6, 35)]
    vector = make_vector(outputs, room_bytes=1, bound_lsb=0, other_kernels_lsb=4)
    picked = np.arange(40 * 41)[:: vector.stride]
    assert vector.stride > 1
    assert set(picked[picked < 240] % 6) == set(range(6))


def test_the_document_keeps_the_parts_of_a_vector(golden: GoldenVector, embedded: Conversion) -> None:
    assert "further" not in embedded.document.to_json()
    document = replace(embedded.document, golden=two_outputs())
    assert ModelDocument.from_json(document.to_json()) == document
    for starts in ((5, 5), (9, 4)):
        parts = tuple(GoldenPart(start, 0.1, 0) for start in starts)
        with pytest.raises(ValueError, match="must begin one behind the other"):
            replace(golden, further=parts)


@pytest.fixture(scope="module")
def embedded(embedded_tflite: Path) -> Conversion:
    return convert_to_bytes(embedded_tflite, ConvertOptions())


@pytest.fixture(scope="module")
def golden(embedded: Conversion) -> GoldenVector:
    assert embedded.document.golden is not None
    return embedded.document.golden


def test_the_words_are_those_of_splitmix64() -> None:
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert random_words(4, 1234567).tolist() == expected


def test_the_example_in_the_docstring_runs() -> None:
    assert doctest.testmod(golden_module) == (0, 1)


def test_a_word_depends_on_its_position_alone() -> None:
    assert random_words(1000, 7)[:10].tolist() == random_words(10, 7).tolist()


@pytest.mark.parametrize(
    ("size", "digest"),
    [
        ((192, 192), "00d09544ab8851b269f8b49fca7262f04d7590e0ec640de70466fc8f2173ef0d"),
        ((224, 224), "ce6997b3cd68be1ed7e8348cbb31c4853224d446b28ec1aa470423c39c98c98f"),
        ((416, 416), "3203806fbcbb739f1cb55abbe66de0148a24587a15c6d7a1c913f7c0be1ac520"),
        ((33, 70), "eec315f6cfd610675f98a86c6298441ee8ac2e897d7f1faa8f659ba9aea2b116"),
    ],
    ids=str,
)
def test_the_picture_is_the_same_bytes_everywhere(size: tuple[int, int], digest: str) -> None:
    picture = golden_image(*size)
    assert picture.shape == (1, *size, 3)
    assert picture.dtype == np.uint8
    assert hashlib.sha256(picture.tobytes()).hexdigest() == digest


def test_the_picture_is_smooth_on_the_left_black_and_white_at_the_top_right_and_noise_below() -> None:
    (picture,) = golden_image(192, 192).astype(np.int16)
    steps = np.abs(np.diff(picture, axis=1))
    assert np.median(steps[:, :95]) <= 4
    assert set(np.unique(picture[:96, 96:])) == {0, 255}
    assert len(np.unique(picture[96:, 96:])) == 256
    assert (picture[:, :96] == 0).any()
    assert (picture[:, :96] == 255).any()


@pytest.mark.parametrize("seed", [0, 2**31 - 1])
def test_another_seed_is_another_picture(seed: int) -> None:
    assert (golden_image(64, 64, seed) != golden_image(64, 64)).mean() > 0.5


def test_the_embedded_detectors_codes_are_these_whatever_is_installed(golden: GoldenVector) -> None:
    assert golden.sha256 == EMBEDDED_CODES == hashlib.sha256(stored_codes(golden).tobytes()).hexdigest()
    assert (golden.stride, golden.bound_lsb, golden.other_kernels_lsb) == (1, 0, 6)
    assert stored_codes(golden).size == 7 * 7 * 30


@pytest.mark.parametrize(
    "options",
    [
        ConvertOptions(activations="int8"),
        ConvertOptions(target="cpu"),
        ConvertOptions(batch="dynamic", source=SourceOptions(head="none")),
    ],
    ids=["int8", "cpu", "raw head in batches"],
)
def test_every_dialect_of_a_source_holds_the_same_vector(options: ConvertOptions, embedded_tflite: Path) -> None:
    plain = convert_to_bytes(embedded_tflite, ConvertOptions()).document.golden
    assert convert_to_bytes(embedded_tflite, options).document.golden == plain


def test_the_real_leaky_relu_gives_other_codes(embedded_tflite: Path) -> None:
    real = convert_to_bytes(embedded_tflite, ConvertOptions(leaky_relu="float")).document.golden
    assert real is not None
    assert real.sha256 != EMBEDDED_CODES


def test_a_vector_takes_at_most_two_percent_of_the_file(embedded: Conversion, golden: GoldenVector) -> None:
    assert len(golden.codes) == 1960 < 0.02 * len(embedded.model)


def test_the_vector_survives_the_document(embedded: Conversion) -> None:
    document = embedded.document
    assert ModelDocument.from_json(document.to_json()) == document
    assert "golden" not in replace(document, golden=None).to_json()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stride": 0}, "golden stride must"),
        ({"sha256": "abc"}, "golden sha256 must be 64 hex digits, got 'abc'"),
        ({"scale": 0.0}, "golden scale must be above 0, got 0.0"),
        ({"scale": float("nan")}, "golden scale must be a finite number"),
        ({"zero_point": 256}, "golden zero_point must"),
        ({"bound_lsb": -1}, "golden bound_lsb must"),
        ({"codes": 5}, "golden codes must be text"),
    ],
    ids=str,
)
def test_a_malformed_vector_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(VECTOR, **change)  # type: ignore[arg-type]  # wrong on purpose


@given(seed=st.integers(0, 2**32), scale=st.floats(2.0**-20, 1024, width=32), zero_point=st.integers(0, 255))
def test_dequantised_codes_agree_to_the_bit_at_any_scale(seed: int, scale: float, zero_point: int) -> None:
    codes = random_codes(seed=seed)
    vector = vector_of(codes, scale, zero_point)
    found = compare_head(head_of(codes, vector), vector)
    assert (found.exact, found.differing, found.worst_lsb, found.off_lattice) == (True, 0, 0.0, 0)


@given(place=st.integers(0, 59), step=st.integers(-255, 255).filter(bool))
def test_one_other_code_is_found_with_its_distance(place: int, step: int) -> None:
    moved = CODES.astype(np.int16).reshape(-1)
    moved[place] = np.clip(moved[place] + step, 0, 255)
    distance = abs(int(moved[place]) - int(CODES.reshape(-1)[place]))
    found = compare_head(head_of(moved.astype(np.uint8).reshape(CODES.shape), VECTOR), VECTOR)
    assert (found.exact, found.differing, found.worst_lsb) == (distance == 0, int(distance > 0), float(distance))


def test_a_head_between_the_codes_is_off_the_lattice() -> None:
    found = compare_head(head_of(CODES, VECTOR) + np.float32(0.025), VECTOR)
    assert not found.exact
    assert found.differing == found.off_lattice == CODES.size
    assert found.worst_lsb == pytest.approx(0.25, abs=1e-4)  # float32 reals at a scale of 0.1


def test_the_last_bit_of_a_float_counts() -> None:
    head = head_of(CODES, VECTOR)
    head[0, 0, 0] = np.nextafter(head[0, 0, 0], np.float32(np.inf))
    found = compare_head(head, VECTOR)
    assert (found.exact, found.differing, found.off_lattice) == (False, 1, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_a_value_that_is_no_number_is_infinitely_far(value: float) -> None:
    head = head_of(CODES, VECTOR)
    head[1, 2, 3] = value
    found = compare_head(head, VECTOR)
    assert (found.exact, found.differing, found.worst_lsb) == (False, 1, np.inf)


def test_a_small_file_stores_a_selection_with_every_channel_and_the_digest_covers_the_rest() -> None:
    codes = random_codes((12, 12, 30))
    vector = vector_of(codes, room=100_000)
    assert vector.stride == 7  # 4320 codes, room for 1500: every third, but 3 divides the 30 channels, as do 5 and 6
    assert len(vector.codes) <= 0.02 * 100_000
    assert {place % 30 for place in range(0, codes.size, vector.stride)} == set(range(30))
    moved = codes.copy()
    moved[0, 0, 1] ^= 1  # not selected
    found = compare_head(head_of(moved, vector), vector)
    assert (found.exact, found.differing, found.compared, found.worst_lsb) == (False, 1, 618, 0.0)


def test_a_head_of_another_size_is_told() -> None:
    with pytest.raises(ValueError, match="60 golden codes, every 1th, do not fit a head of 61 values"):
        compare_head(np.zeros(61, np.float32), VECTOR)
