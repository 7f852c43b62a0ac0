"""The documentation builds as a site, strictly, and asks no other host for anything."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted((ROOT / "docs").rglob("*.md"))


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip("needs the extra 'docs'")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_document_is_a_page(site):
    for page in PAGES:
        assert (site / page.relative_to(ROOT / "docs").with_suffix(".html")).is_file(), page


@pytest.mark.slow
def test_the_reference_describes_the_public_api(site):
    import poseglass as pg

    found = set()
    for page in (site / "reference" / "python").glob("*.html"):
        found |= set(re.findall(r'id="(poseglass\.[\w.]+)"', page.read_text()))
    public = {name for name in dir(pg) if not name.startswith("_") and callable(getattr(pg, name))}
    missing = {name for name in public if f"poseglass.{name}" not in found}
    assert public
    assert not missing


@pytest.mark.slow
def test_pages_ask_no_other_host_for_anything(site):
    asked = re.compile(r"""<(?:link|script|img|iframe|source)\b[^>]*?(?:href|src)=["']?((?:https?:)?//[^"'\s>]+)""")
    for page in site.rglob("*.html"):
        text = re.sub(r'<link rel="canonical"[^>]*>', "", page.read_text())
        assert not asked.findall(text), page.relative_to(site)
    for style in site.rglob("*.css"):
        assert not re.search(r"url\(\s*[\"']?(?:https?:)?//", style.read_text()), style.relative_to(site)


@pytest.mark.slow
def test_links_of_the_site_lead_to_files(site):
    for page in site.rglob("*.html"):
        if page.name == "404.html":
            continue  # its links start from the root of a server
        for target in re.findall(r'<a\b[^>]*?href="([^"#:]+)(?:#[^"]*)?"', page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(site)} links to {target}"


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_lists_and_tables_stand_apart(page):
    """A list or a table straight after a line of text is one on the repository's host, and none in the site."""
    inside, before = False, ""
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if line.startswith("```"):
            inside = not inside
        starts = re.match(r"(- |\d+\. |\|)", line)
        if not inside and starts and before.strip() and not re.match(r"(- |\d+\. |\||  )", before):
            raise AssertionError(f"{page.name}:{number}: put an empty line before {line!r}")
        before = line
