import re
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from poseglass.core.instances import Instances
from poseglass.core.skeletons import LSP14
from poseglass.evaluation import report as module
from poseglass.evaluation.report import Example, Report, render_report, write_report

EVIL = '<script>alert("x")</script>\'&"\udcff\x00'


def example(caption: str = "im.jpg", figure: float = 0.5, size: int = 96) -> Example:
    rng = np.random.default_rng(int(1000 * figure) if figure == figure else 7)
    image = rng.integers(0, 256, (size, size, 3), dtype=np.uint8)
    truth = Instances.from_keypoints(LSP14, rng.uniform(5, size - 5, (1, 14, 2)))
    return Example(caption, image, truth, Instances.from_keypoints(LSP14, truth.xy + 3), figure)


def full(text: str = "plain", examples: int = 4) -> Report:
    thresholds = np.linspace(0, 0.5, 11)
    return Report(
        title=f"title {text}",
        skeleton=LSP14,
        headline={f"pck@0.2 {text}": 0.8034, "people": 500.0, "broken": float("nan")},
        curve=[{"epoch": float(e), f"loss {text}": 0.9**e, "val/pck": 0.1 * e} for e in range(5)],
        per_joint={
            **{n: {"count": 1234.0, f"pck {text}": 0.1, "median": float("inf")} for n in LSP14.keypoints},
            f"mean {text}": {f"pck {text}": 0.7},
        },
        pck_curve=(thresholds, thresholds * 2),
        joint_curves=np.tile(thresholds[:, None], (1, 14)),
        examples=[example(f"{i} {text}", i / max(examples - 1, 1)) for i in range(examples)],
        result_name=f"PCK {text}",
        errors={n: {"count": 9.0, "good": 0.5, "jitter": 0.49999, "miss": 0.00001} for n in LSP14.keypoints},
        recipe=f'name = "{text}"\nseed = 0\n',
        environment={f"torch {text}": f"2.13 {text}"},
        notes=[f"note {text}"],
    )


@cache
def page_of(text: str = "plain") -> str:
    return render_report(full(text))


class Reader(HTMLParser):
    """Collects tags with their attributes and the text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "source", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.words.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert reader.open == []
    return reader


@pytest.mark.slow
def test_nothing_of_what_it_is_given_becomes_markup():
    plain, evil = read(page_of()), read(page_of(EVIL))
    assert [tag for tag, _ in evil.tags] == [tag for tag, _ in plain.tags]
    assert [sorted(attributes) for _, attributes in evil.tags] == [sorted(attributes) for _, attributes in plain.tags]
    assert "".join(evil.words).count('<script>alert("x")</script>') >= 15
    assert not any(tag in ("script", "iframe", "object", "link", "form", "base") for tag, _ in evil.tags)


@pytest.mark.slow
def test_page_asks_for_nothing_outside_itself():
    page = page_of()
    reader = read(page)
    for tag, attributes in reader.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("src", "srcset"):
                assert value is not None
                assert value.startswith("data:image/")
            if name == "href":
                assert value is not None
                assert value.startswith("#"), tag
    without_data = re.sub(r"data:image/[a-z]+;base64,[A-Za-z0-9+/=]+", "", page)
    assert "://" not in without_data
    assert "url(" not in without_data
    assert "default-src 'none'" in page


def test_a_browser_chooses_between_two_colourings():
    """Only <picture> makes of a <source> a choice; <image> is another name of <img>."""
    tags = [tag for tag, _ in read(page_of()).tags]
    assert tags.count("picture") == tags.count("source") > 0
    assert "image" not in tags


def test_page_is_accessible():
    reader = read(page_of())
    images = [a for t, a in reader.tags if t == "img"]
    assert images
    assert all(len(a.get("alt") or "") > 15 and a.get("width") and a.get("height") for a in images)
    assert ("html", {"lang": "en"}) in reader.tags
    assert all(a.get("scope") in ("row", "col") for t, a in reader.tags if t == "th")
    assert [t for t, _ in reader.tags].count("caption") == [t for t, _ in reader.tags].count("table") >= 4
    ids = [a["id"] for _, a in reader.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"] for t, a in reader.tags if t == "a"} == {f"#{i}" for i in ids}
    text = page_of()
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_figures_are_written_as_people_read_them():
    words = read(page_of()).words
    assert "0.803" in words
    assert "500" in words
    assert "1,234" in words
    assert "not measured" in words
    assert "∞" in words
    assert "0.000" in words  # a share of errors, not 1e-05


def test_best_and_worst_are_in_order_and_bounded():
    page = render_report(Report("t", LSP14, examples=[example(f"n{i}", i / 40) for i in range(41)]))
    shown = [int(n) for n in re.findall(r"<span>n(\d+)</span>", page)]
    assert shown == [*range(40, 28, -1), *range(12)]
    assert "17 more are not shown" in page
    one = render_report(Report("t", LSP14, examples=[example("only", float("nan"))]))
    assert "<h3>Worst</h3>" in one
    assert "<h3>Best</h3>" not in one


def test_empty_parts_are_left_out():
    page = render_report(Report("nothing yet", LSP14))
    assert "<section" not in page
    read(page)
    only = render_report(Report("t", LSP14, recipe="a = 1", curve=[]))
    assert re.findall(r"<h2[^>]*>([^<]*)", only) == ["Recipe"]


@pytest.mark.slow
def test_report_stays_small_with_the_worst_images(tmp_path: Path):
    # Noise is what JPEG packs worst.
    path = tmp_path / "report.html"
    write_report(path, replace(full(), examples=[example(f"{i}", i / 23, size=288) for i in range(24)]))
    assert path.stat().st_size < 3 * 2**20
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_long_recipe_is_cut_and_says_so():
    page = render_report(Report("t", LSP14, recipe="x" * (module.MAX_TEXT + 1)))
    assert "Only the first 100,000 characters" in page
    assert len(page) < module.MAX_TEXT + 20_000


@pytest.mark.slow
def test_written_file_is_utf8_and_same_every_time(tmp_path: Path):
    report = replace(full("日本 " + EVIL), joint_curves=None, errors={}, curve=())
    write_report(tmp_path / "a.html", report)
    write_report(tmp_path / "b.html", report)
    data = (tmp_path / "a.html").read_bytes()
    assert data == (tmp_path / "b.html").read_bytes()
    assert "日本" in data.decode("utf-8")
    with pytest.raises(FileNotFoundError, match="Make it first"):
        write_report(tmp_path / "missing" / "a.html", report)


def test_report_checks_what_it_is_given():
    with pytest.raises(ValueError, match=r"thresholds \(T,\) and shares \(T,\), got \(3,\) and \(2,\)"):
        Report("t", LSP14, pck_curve=(np.zeros(3), np.zeros(2)))
    with pytest.raises(
        ValueError, match=r"joint_curves must be \(3, 14\) \(T thresholds, K=14 of 'lsp14'\), got \(3, 2\)"
    ):
        Report("t", LSP14, pck_curve=(np.zeros(3), np.zeros(3)), joint_curves=np.zeros((3, 2)))
    bad = example()._replace(image=np.zeros((4, 4)))
    with pytest.raises(ValueError, match=r"Report.examples\[0\].image must be \(H, W, 3\) uint8 RGB"):
        Report("t", LSP14, examples=[bad])


def test_examples_may_be_plain_tuples():
    assert "im.jpg" in render_report(Report("t", LSP14, examples=[tuple(example())]))  # type: ignore[list-item]


@pytest.mark.slow
def test_metric_tables_fit_as_they_come():
    from poseglass.metrics.errors import KeypointErrors
    from poseglass.metrics.pck import Pck

    rng = np.random.default_rng(0)
    truth = Instances.from_keypoints(LSP14, rng.uniform(0, 100, (3, 14, 2)))
    found = Instances.from_keypoints(LSP14, truth.xy + rng.normal(0, 10, truth.xy.shape))
    pck, errors = Pck(thresholds=(0.1, 0.2)), KeypointErrors()
    for metric in (pck, errors):
        metric.update(found, truth)
    thresholds, together, joints = pck.curve(0.5)
    page = render_report(
        Report("t", LSP14, headline=pck.compute(), per_joint=pck.table(), pck_curve=(thresholds, together),
               joint_curves=joints, errors=errors.table())
    )  # fmt: skip
    assert len(re.findall("<h2", page)) == 4
