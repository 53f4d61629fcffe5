"""Names from files are text in Markdown, whatever they look like."""

from __future__ import annotations

import doctest

import pytest

import xdet.writing.markdown
from xdet.writing.blocks import Code, Table, Text
from xdet.writing.markdown import block_markdown, code, escaped


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("person_224_int8 [1, 4] (x) #1", "person_224_int8 [1, 4] (x) #1"),
        ("<script>alert(1)</script>", "&lt;script>alert(1)&lt;/script>"),
        ("&lt;b&gt;", "&amp;lt;b&amp;gt;"),
        ("[x](javascript:alert)", r"[x\](javascript:alert)"),
        ("![x][y]", r"![x\][y]"),
        ("[x]: http://a", r"[x\]: http&#58;//a"),
        ("*a* _b_ ~c~ `d` $e$ f|g", r"\*a\* \_b\_ \~c\~ \`d\` \$e\$ f\|g"),
        ("\\", "\\\\"),
        ("www.a.b c@d.e", "www&#46;a.b c&#64;d.e"),
        ("a\n# b\x1b", r"a # b\\x1b"),
    ],
)
def test_nothing_in_a_name_is_markup(name: str, shown: str) -> None:
    assert escaped(name) == shown


def test_code_is_text_where_it_would_end_early() -> None:
    assert code("images") == "`images`"
    assert code("a`<b>") == r"a\`&lt;b>"
    assert code("") == ""


def test_a_table_survives_bars_and_line_breaks() -> None:
    table = Table(("a", "b"), (("x|y", "two\nlines"),))
    assert block_markdown(table) == "| a | b |\n| --- | --- |\n| x\\|y | two lines |"


def test_a_name_is_code_between_words_that_are_escaped() -> None:
    assert block_markdown(Text(("*a* (", Code("x_y"), "): ", 1234))) == r"\*a\* (`x_y`): 1,234"


def test_the_example_runs() -> None:
    assert doctest.testmod(xdet.writing.markdown).failed == 0
