"""A hook of mkdocs: README, changelog and what documents link to outside ``docs/`` become part of the site."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mkdocs.structure.files import File

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parent.parent
PAGES = {"README.md": "index.md", "CHANGELOG.md": "changelog.md"}  # in the repository -> in the site
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s:#]+)(#[^)\s]*)?\)")


def on_files(files: Any, config: Any) -> Any:
    """Add every file that some page links to, by and by."""
    todo = [*PAGES, *(f"docs/{file.src_uri}" for file in files.documentation_pages())]
    seen = set(todo)
    while todo:
        place = todo.pop()
        path = ROOT / place
        if not place.startswith("docs/") and path.is_file():
            files.append(File.generated(config, _in_site(place), abs_src_path=str(path)))
        if path.suffix == ".md" and path.is_file():
            new = set(_targets(place, path.read_text("utf-8"))) - seen
            seen |= new
            todo += sorted(new)
    return files


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:
    """Turn links within the repository into links within the site; one to a folder is left as its words."""
    here = next(
        (source for source, name in PAGES.items() if name == page.file.src_uri),
        page.file.src_uri if page.file.generated_by else f"docs/{page.file.src_uri}",
    )

    def moved(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(here), found[2]))
        if not (ROOT / target).is_file():
            return found[1] if (ROOT / target).is_dir() else found[0]
        relative = posixpath.relpath(_in_site(target), posixpath.dirname(page.file.src_uri) or ".")
        return f"[{found[1]}]({relative}{found[3] or ''})"

    return LINK.sub(moved, markdown)


def _in_site(place: str) -> str:
    return PAGES.get(place, place.removeprefix("docs/"))


def _targets(place: str, text: str) -> Iterator[str]:
    for found in LINK.finditer(text):
        target = posixpath.normpath(posixpath.join(posixpath.dirname(place), found[2]))
        if not target.startswith("..") and (ROOT / target).is_file():
            yield target
