"""Pages of checks as tests read them: what a browser would see, and words that must not become markup."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser

from xdet.bench.records import Machine
from xdet.checking.page import Surroundings

HOSTILE = "<script src='http://evil'>alert(1)</script>\"&\x1b"
COMMAND = "xdet check 'a & b.onnx' --report page.html"
MACHINE = Machine("A <CPU>", ("avx2", "avx_vnni"), 4, 2, "Linux x86_64", saturates=True, versions={"xdet": "1.2.3"})
WHERE = Surroundings(MACHINE, 2, COMMAND)


@dataclass
class Seen(HTMLParser):
    """What a browser would see of a page."""

    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    words: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag == "data":
            self.numbers.append(str(dict(attrs)["value"]))

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def read(page: str) -> Seen:
    seen = Seen()
    seen.feed(page)
    seen.close()
    return seen


def section(page: str, heading: str) -> str:
    (found,) = re.findall(rf"<section(?: class=alone)?><h2>{heading}</h2>(.*?)</section>", page, re.DOTALL)
    return str(found)
