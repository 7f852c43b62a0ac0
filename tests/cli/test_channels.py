"""``poseglass channels``: a table, JSON, a drawing, and what is refused."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from torch import nn

from poseglass.cli.channels import channels
from poseglass.core.image import read_image

MINE = """
from torch import nn

from poseglass.layers.channel_local import ChannelLocalBlock
from poseglass.layers.conv_norm import ConvNorm


def mine():
    grouped = nn.Sequential(ConvNorm(16, 16, groups=16), ConvNorm(16, 16, 1, groups=4))
    return nn.Sequential(ConvNorm(3, 16), grouped, ChannelLocalBlock(16, 8), nn.Conv2d(8, 2, 1))


def wide():
    return nn.Sequential(ConvNorm(3, 96), ChannelLocalBlock(96, 96))


def plain():
    return nn.Conv2d(3, 8, 3)


def nothing():
    return None
"""


@pytest.fixture(autouse=True)
def _mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    (tmp_path / "mine_channels.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    yield
    sys.modules.pop("mine_channels", None)


def run(name: str | None, **options: object) -> None:
    given = {"block": None, "size": 16, "draw": None, "output": 0, "costs": False, "json": False} | options
    channels(name, **given)  # type: ignore[arg-type]


def test_every_block_is_listed_and_those_that_do_not_see_all_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    run("mine_channels:mine")
    words = capsys.readouterr().out.split("\n")
    (grouped,) = [line.split() for line in words if line.startswith(" 1 ")]
    (local,) = [line.split() for line in words if line.startswith(" 2 ")]
    assert grouped == ["1", "Sequential", "16", "to", "16", "4", "no"]
    assert local == ["2", "ChannelLocalBlock", "16", "to", "8", "16", "yes"]
    said = " ".join(" ".join(words).split())
    assert "In 1 of 2 blocks, outputs do not see all channels of the block's input: 1." in said


def test_a_built_in_backbone_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    run("mobilenet_v3_small", size=32, json=True)
    found = json.loads(capsys.readouterr().out)
    assert len(found["blocks"]) == 11
    assert all(block["full"] for block in found["blocks"])
    assert found["blocks"][0] == {
        "name": "blocks.0", "kind": "InvertedResidual", "in_channels": 16, "out_channels": 16,
        "smallest_field": 16, "largest_field": 16, "full": True,
    }  # fmt: skip
    assert found["skipped"] == {}
    run("mobilenet_v3_small", size=32)
    assert "Every output of 11 blocks sees all channels" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "block"), [("mine", "2"), ("mine", "1"), ("wide", "1"), ("mine", "0")])
def test_a_block_is_drawn(name: str, block: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "new" / "graph.png"
    run(f"mine_channels:{name}", block=block, draw=path)
    assert str(path) in capsys.readouterr().out
    image = read_image(path)
    assert min(image.shape[:2]) > 100
    assert image.std() > 5


def test_costs_of_groups_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    run(None, costs=True)
    (row,) = [line for line in capsys.readouterr().out.split("\n") if line.strip().startswith("512")]
    assert row.split() == ["512", "(64,", "8)", "69,632", "69,511", "140,288", "266,752", "2,359,296"]
    run(None, costs=True, json=True)
    rows = json.loads(capsys.readouterr().out)
    assert (rows[-1]["width"], rows[-1]["groups"], rows[-1]["cheapest"]) == (1024, [128, 8], 204_800)


def test_a_network_without_blocks_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    run("mine_channels:plain")
    assert "No blocks: nothing with two convolutions or more is repeated." in capsys.readouterr().out
    run("mine_channels:plain", block="")
    assert "(whole)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("os:path", {}, ValueError, "os:path is a module; expected a class or function that returns a network"),
        ("clcnet_c", {}, LookupError, r"Unknown network or backbone 'clcnet_c'\. Did you mean 'clcnet_[ab]'"),
        ("composed", {}, ValueError, "composed cannot be built without backbone, neck"),
        ("mine_channels:nothing", {}, ValueError, r"made a NoneType; a torch\.nn\.Module is needed"),
        ("mine_channels:mine", {"draw": Path("x.png")}, ValueError, "--draw needs --block"),
        ("mine_channels:mine", {"draw": Path("x.svg"), "block": "1"}, ValueError, "--draw writes a PNG file"),
        (
            "mine_channels:mine",
            {"draw": Path("x.png"), "block": "2", "output": 8},
            ValueError,
            "output channels 0 to 7",
        ),
        (None, {}, ValueError, "Give the NAME of a network or backbone such as clcnet_a, or --costs"),
        ("clcnet_a", {"costs": True}, ValueError, "--costs is a table of block widths, not of a network: leave"),
        ("mine_channels:mine", {"block": "9"}, LookupError, "no module '9'"),
    ],
)
def test_what_cannot_be_is_said(name, options, error, message, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        run(name, **options)
    assert not list(tmp_path.glob("x.*"))


def test_a_network_is_built_with_its_keypoints() -> None:
    from poseglass.cli.channels import built

    assert isinstance(built("hg1_light"), nn.Module)
