"""``poseglass codecs``, and the page that shows what it prints."""

import io
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from poseglass.cli.codecs import codecs, codecs_of_one_instance, other, print_table

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "codecs.md"


@pytest.fixture(autouse=True)
def _no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORCE_COLOR", raising=False)


@pytest.mark.slow
def test_the_page_shows_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    codecs()
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    shown = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert shown[: len(printed)][:2] == printed[:2]
    for ours, theirs in zip(shown, printed, strict=False):
        assert ours.split("|")[1] == theirs.split("|")[1]
        for a, b in zip(_figures(ours), _figures(theirs), strict=True):
            assert a == pytest.approx(b, abs=0.02)


def _figures(line: str) -> list[float]:
    words = line.replace("/", " ").replace("|", " ").split()
    return [float(word) for word in words if word.replace(".", "").isdigit()]


@pytest.mark.slow
def test_on_a_terminal_it_fits_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    printed = io.StringIO()
    ours = codecs_of_one_instance()
    print_table(ours, Console(file=printed, width=80))
    lines = printed.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in printed.getvalue()
    assert [line.split()[0] for line in lines if line.split()[1:2] == ["median"]] == list(ours)
    row = next(i for i, line in enumerate(lines) if line.split()[:1] == ["heatmap"])
    assert float(lines[row].split()[2]) == pytest.approx(0.82, abs=0.02)
    assert [line.split()[-1] for line in lines[row : row + 2]] == ["0.78", "1.00"]
    monkeypatch.setenv("FORCE_COLOR", "1")  # as Rich knows a terminal
    monkeypatch.setattr(sys, "stdout", terminal := io.StringIO())
    codecs()
    assert "largest" in terminal.getvalue()
    assert "|" not in terminal.getvalue()


class Rounded:
    """A codec of another library: whole pixels, no flip."""

    def encode(self, xy, size_wh):
        return {"xy": np.round(xy)}

    def decode(self, output):
        return output["xy"], np.full(output["xy"].shape[:2], 0.5)


def test_another_librarys_codec_is_measured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = types.ModuleType("elsewhere")
    module.Rounded, module.nothing = Rounded, object()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "elsewhere", module)
    codecs("elsewhere:Rounded")
    row = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")][-1]
    # the middle distance from a uniform point to the centre of its unit square is 0.399, the largest 0.707
    assert row.startswith("| elsewhere:Rounded | 0.40 / 0.60 / 0.70 |")
    assert row.endswith("| - | 0.50 to 0.50 |")
    with pytest.raises(ValueError, match=r"elsewhere:nothing has no encode and no decode\. Expected encode"):
        other("elsewhere:nothing")
