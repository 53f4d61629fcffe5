"""What reports of checks are made of and read as: columns of other processors, pages, words that must not be markup."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

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


RUNTIMES = "onnxruntime:cpu,onnxruntime-unfused:cpu,litert:xnnpack,litert:builtin"
PLAIN = {"exact": False, "differing": 882, "compared": 1470, "worst_lsb": 11.0, "off_lattice": 0}
SEGFAULT = "ended by signal SIGSEGV: uncaught target signal 11"


def put(document: Any, member: str, value: Any) -> None:
    """Set ``0.cpu`` and the like."""
    *way, last = [int(step) if step.isdecimal() else step for step in member.split(".")]
    for step in way:
        document = document[step]
    document[last] = value


def breaking_haswell(columns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Haswell without exact kernels: a broken self-test, and a part that failed."""
    put(columns, "0.selftest.verdict", "broken")
    put(columns, "0.selftest.agreement", PLAIN)
    finding = {"part": "exact", "cause": "layer", "message": "866 values differ", "runtime": None, "layer": None}
    put(columns, "0.check.parts.1.status", "failed")
    put(columns, "0.check.parts.1.findings", [finding])
    return columns


def crashing_nehalem(columns: list[dict[str, Any]]) -> list[dict[str, Any]]:
    put(columns, "1.check", None)
    put(columns, "1.check_problem", SEGFAULT)
    return columns
