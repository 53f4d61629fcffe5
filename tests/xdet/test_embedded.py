"""The embedded model is converted once, cached for all processes, and made again when damaged."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from tests.xdet.finished_models import SPEC, finished_model
from xdet import embedded
from xdet.detector import Detector
from xdet.embedded import cache_path, open_embedded
from xdet.errors import RuntimeUnavailableError

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """An empty cache, and the sources converted since, by a converter that takes no time."""
    done: list[Path] = []

    def convert(source: Path) -> bytes:
        done.append(source)
        return finished_model()

    monkeypatch.setenv(embedded.CACHE_VARIABLE, str(tmp_path / "cache" / "xdet"))
    monkeypatch.setattr(embedded, "_convert", convert)
    return done


def test_the_first_call_converts_and_the_second_reads_the_cache(conversions: list[Path]) -> None:
    for _ in range(2):
        runtime = open_embedded(threads=1)
        assert runtime.spec == SPEC
        assert runtime.file == str(cache_path())
    assert conversions == [embedded.SOURCE]
    assert [path.name for path in cache_path().parent.iterdir()] == [cache_path().name]


def test_the_caches_name_holds_source_hash_and_version(
    conversions: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first = cache_path()
    monkeypatch.setattr(embedded, "__version__", "99.0")
    second = cache_path()
    other = tmp_path / embedded.SOURCE.name
    other.write_bytes(b"another source")
    monkeypatch.setattr(embedded, "SOURCE", other)
    assert len({first, second, cache_path()}) == 3
    assert second.name.endswith("-99.0.onnx")
    assert conversions == []


def test_without_the_variable_the_cache_is_the_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(embedded.CACHE_VARIABLE)
    assert "xdet" in cache_path().parent.parts


@pytest.mark.parametrize(
    "damage", [b"", b"\x08\x09", finished_model()[:300]], ids=["empty", "no-graph", "truncated"]
)
def test_a_damaged_cache_is_made_again(damage: bytes, conversions: list[Path]) -> None:
    cache_path().parent.mkdir(parents=True)
    cache_path().write_bytes(damage)
    assert open_embedded(threads=1).spec == SPEC
    assert cache_path().read_bytes() == finished_model()
    assert len(conversions) == 1


def test_a_cache_that_cannot_be_written_leaves_the_model_in_memory(
    conversions: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocker = tmp_path / "a file"
    blocker.touch()
    monkeypatch.setenv(embedded.CACHE_VARIABLE, str(blocker / "xdet"))
    runtime = open_embedded(threads=1)
    assert runtime.spec == SPEC
    assert runtime.file == cache_path().name
    assert len(conversions) == 1


def test_callers_that_start_together_all_get_the_whole_model(conversions: list[Path]) -> None:
    found: list[object] = []
    threads = [threading.Thread(target=lambda: found.append(open_embedded(threads=1).spec)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [SPEC] * 6
    assert 1 <= len(conversions) <= 6
    assert [path.name for path in cache_path().parent.iterdir()] == [cache_path().name]


def test_a_provider_that_is_not_there_is_found_before_the_conversion(conversions: list[Path]) -> None:
    with pytest.raises(RuntimeUnavailableError, match="warp-drive"):
        open_embedded(provider="warp-drive")
    assert conversions == []


def test_a_detector_without_a_model_is_the_embedded_one(conversions: list[Path]) -> None:
    assert Detector(threads=1).spec == SPEC
    assert len(conversions) == 1
