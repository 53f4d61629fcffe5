"""Pictures by address: fetched within bounds, never a file of this machine, and no password in what is shown."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from converters.spec import ImageInput, Rescaling
from tests.xdet.web import Site, serving
from xdet.errors import ImageError, UsageError
from xdet.pictures import download
from xdet.pictures.addresses import Address
from xdet.pictures.download import fetch, is_film
from xdet.pictures.preparation import Preparation, Prepared, prepare, read_picture

if TYPE_CHECKING:
    from collections.abc import Iterator


def png(red: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 4), (red, 0, 0)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    site = Site(
        files={
            "/a.png": ("image/png", png(200)),
            "/text": ("text/html", b"<html>not found, but 200</html>"),
            "/cut.png": ("image/png", png(1)),
            "/slow.png": ("image/png", png(1)),
            "/film": ("video/mp4", b""),
        },
        moved={"/moved": "/a.png", "/passwd": "file:///etc/passwd", "/ftp": "ftp://127.0.0.1/a.png", "/loop": "/loop"},
    )
    with serving(site):
        yield site


def read_and_prepare(address: str) -> Prepared:
    name, photograph = read_picture(address)
    return prepare(photograph, Preparation(ImageInput(4, 4, Rescaling(1.0, 0.0))), name=name)


def test_a_picture_is_fetched_and_redirections_followed(site: Site) -> None:
    for path in ("/a.png", "/moved"):
        assert fetch(Address(site.address + path)) == png(200)
    prepared = read_and_prepare(f"{site.address}/a.png")
    assert prepared.name == f"{site.address}/a.png"
    assert prepared.pixels[0, 0].tolist() == [200, 0, 0]


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/gone.png", "cannot fetch 'http://.*/gone.png': the server answers 404 Not Found"),
        ("/passwd", "cannot fetch 'http://.*/passwd': the server answers 302 .*'file:///etc/passwd'"),
        ("/ftp", "cannot fetch 'http://.*/ftp': the server answers 302 and sends on to 'ftp://127.0.0.1/a.png', which"),
        ("/loop", "cannot fetch 'http://.*/loop': .*redirect"),
        ("/cut.png", "cannot fetch 'http://.*/cut.png': the connection ended 99 bytes too early"),
        ("/text", "'http://.*/text' is no readable image"),
    ],
)
def test_what_gives_no_picture_is_told(site: Site, path: str, words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        read_and_prepare(site.address + path)
    assert "\n" not in str(caught.value)


def test_too_many_bytes_and_too_much_time_are_refused(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, words in (
        ("LARGEST_DOWNLOAD", 10, "has more than 0 MiB: too large"),
        ("LONGEST_DOWNLOAD_S", -1.0, "takes longer than -1 s"),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(download, name, value)
            with pytest.raises(ImageError, match=words):
                fetch(Address(f"{site.address}/a.png"))
    monkeypatch.setattr(download, "SILENCE_S", 0.2)
    with pytest.raises(ImageError, match=r"slow\.png': no answer for 0 s|slow\.png': timed out"):
        fetch(Address(f"{site.address}/slow.png"))


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(ImageError, match=r"cannot fetch 'http://127\.0\.0\.1:9/a\.png': Connection refused"):
        fetch(Address("http://127.0.0.1:9/a.png"))


def test_a_password_goes_to_the_server_and_nowhere_else(site: Site) -> None:
    address = Address(site.address.replace("//", "//me:se%40cret@") + "/gone.png")
    with pytest.raises(ImageError) as caught:
        fetch(address)
    assert "cret" not in str(caught.value)
    assert site.asked[-1] == ("/gone.png", "Basic bWU6c2VAY3JldA==")


def test_the_server_says_what_is_a_film(site: Site) -> None:
    assert is_film(Address(f"{site.address}/film"))
    assert not is_film(Address(f"{site.address}/a.png"))
    assert not is_film(Address(f"{site.address}/gone"))


@pytest.mark.parametrize("text", ["ftp://host/a.png", "file:///etc/passwd", "http://", "http://[", "http:/a"])
def test_other_addresses_are_refused_with_those_that_are_read(text: str) -> None:
    with pytest.raises(
        UsageError, match=r"is no address that xdet reads; expected http://, https://, rtsp://, rtsps://"
    ):
        Address(text)


def test_a_store_is_told_with_the_engine_that_reads_it() -> None:
    with pytest.raises(UsageError, match=r"'s3://bucket/a\.png' lies in a store; add `engine` ray"):
        Address("s3://bucket/a.png")
