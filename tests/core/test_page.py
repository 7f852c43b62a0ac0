"""Whatever is filled into a page stays text."""

import re
from html.parser import HTMLParser
from pathlib import Path

import jinja2
import pytest

import poseglass
from poseglass.core import page
from poseglass.core.page import render_page

HOSTILE = "</title></style><script>alert('1')</script>' onload='x\" onerror=\"y {{ 7 * 7 }} {% raw %}"
TEMPLATES = Path(poseglass.__file__).parent / "templates"


def audit_values(text: str) -> dict[str, object]:
    figure = {"source": "data:,", "error": "", "where": text, "sure": text, "text": text}
    line = {"kind": "k", "words": text, "found": True, "count": text, "share": text, "power": text}
    broken = {**figure, "source": "", "error": text}
    kind = {"kind": "k", "words": text, "shown": text, "figures": [figure, broken]}
    return {"title": text, "scope": text, "lines": [line], "notes": [text], "nothing": False, "kinds": [kind]}


class Tags(HTMLParser):
    """Collects tags with the names of their attributes, and the text outside the style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, list[str]]] = []
        self.words = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, [name for name, _ in attrs]))

    def handle_data(self, data: str) -> None:
        self.words += data


def test_a_hostile_name_stays_a_name_everywhere_in_the_audit() -> None:
    plain, hostile = (
        Tags(render_page("audit.html", audit_values("x"))),
        Tags(render_page("audit.html", audit_values(HOSTILE))),
    )
    assert hostile.tags == plain.tags
    assert hostile.words.count(HOSTILE) == 17


def test_what_cannot_be_shown_is_replaced_and_lines_stay() -> None:
    text = render_page("audit.html", audit_values("a\udcff\x00b\nc\td"))
    assert "a?\ufffdb\nc\td" in text
    text.encode()


def test_a_missing_name_is_an_error() -> None:
    values = audit_values("x")
    del values["scope"]
    with pytest.raises(jinja2.UndefinedError, match="'scope' is undefined"):
        render_page("audit.html", values)


def test_no_template_lets_a_value_through_unescaped() -> None:
    templates = sorted(TEMPLATES.iterdir())
    assert {path.name for path in templates} >= {"audit.html", "audit.css", "report.html", "report.css"}
    for path in templates:
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe", text), path
        assert "autoescape" not in text, path
    assert page._environment().autoescape is True
