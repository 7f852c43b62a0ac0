"""``poseglass weights``: list, fetch, path, remove; and ``load`` by the name of what was fetched."""

import dataclasses
import hashlib
import io
import json
import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import poseglass as pg
from poseglass import cli
from poseglass.checkpoints import IMPORTERS
from poseglass.estimators import fetch
from poseglass.estimators.load import DEFAULT, DEFAULT_DETECTOR
from poseglass.estimators.weights_file import read_card, read_weights

ROOT = Path(__file__).parents[1]
file_server = SimpleNamespace(**runpy.run_path(str(ROOT / "file_server.py")))
layouts = SimpleNamespace(**runpy.run_path(str(ROOT / "checkpoints" / "layouts.py")))


def checkpoint(state: dict[str, torch.Tensor]) -> bytes:
    file = io.BytesIO()
    torch.save(state, file)
    return file.getvalue()


FILES = {
    "bear.pth": checkpoint(layouts.bearpaw(depth=1)),
    "three.pth": checkpoint(layouts.bearpaw(num_keypoints=3, depth=1)),
}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator:
    monkeypatch.setenv("POSEGLASS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("POSEGLASS_OFFLINE", raising=False)
    with file_server.serving(FILES) as running:
        yield running


@pytest.fixture
def manifest(server, tmp_path: Path) -> Path:
    """A list of six: good, without commercial use, of a layout that needs a skeleton, from a bad server, and faulty."""
    rows = {
        "bear": ("bear.pth", "whole", "yes", 'layout = "hourglass_bearpaw"\npublished = { "PCKh" = 0.9 }'),
        "bear-nc": ("bear.pth", "whole", "no", 'skeleton = "mpii16"'),
        "three": ("three.pth", "whole", "yes", ""),
        "bear-corrupt": ("bear.pth", "corrupt", "yes", ""),
        "bear-typo": ("bear.pth", "whole", "no", 'skeleton = "mpii61"'),
        "bear-other": ("bear.pth", "whole", "no", ""),
    }
    text = ""
    for name, (file, manner, commercial, more) in rows.items():
        text += (
            f'[{name}]\nnetwork = "stacked_hourglass"\nurls = ["{server.url(manner, file)}"]\nsecond_source = "none"\n'
            f'sha256 = "{hashlib.sha256(FILES[file]).hexdigest()}"\ncode_license = "GPL-3.0"\ndata = "a few people"\n'
            f'data_terms = "research"\ncommercial = "{commercial}"\ncommercial_reason = "as they say"\n'
            f"verified = false\n{more}\n"
        )
    path = tmp_path / "list.toml"
    start, _, end = text.partition("[bear-other]")
    path.write_text(f"{start}[bear-other]{end.replace('stacked_hourglass', 'hg2', 1)}")
    return path


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, manifest: Path, capsys: pytest.CaptureFixture[str]):
    def words(*given: str, own: bool = True) -> tuple[int, str, str]:
        more = ["--manifest", str(manifest)] if own and given[0] in ("list", "fetch") else []
        monkeypatch.setattr(sys, "argv", ["poseglass", "weights", *given, *more])
        status = 0
        try:
            cli.main()
        except SystemExit as end:
            status = int(end.code or 0)
        said = capsys.readouterr()
        return status, said.out, " ".join(said.err.split())

    return words


def test_fetched_weights_load_by_name_without_a_network(run, server, tmp_path: Path, monkeypatch) -> None:
    status, out, _ = run("fetch", "bear")
    assert status == 0
    file = tmp_path / "cache" / "weights" / "bear.safetensors"
    terms, where = out.index("commercial use: yes, as they say"), out.index(str(file))
    assert terms < out.index("URL not yet verified") < where
    server.shutdown()
    monkeypatch.setenv("POSEGLASS_OFFLINE", "1")
    estimate = pg.load("bear")
    assert estimate.skeleton.name == "mpii16"
    card = read_card(file)
    assert (card.name, card.data, card.source_url) == ("bear", "a few people", server.url("whole", "bear.pth"))
    assert card.sha256 == hashlib.sha256(FILES["bear.pth"]).hexdigest()
    assert card.license == "Code: GPL-3.0. Data: research. Commercial use: yes, as they say."
    assert "The publisher states: PCKh 0.9." in card.notes
    assert card.results == {}  # measured figures only
    assert run("path", "bear") == (0, f"{file}\n", "")
    assert sorted(path.name for path in file.parent.iterdir()) == [".bear.safetensors.lock", file.name, "downloads"]
    assert list((file.parent / "downloads").iterdir()) == []
    assert run("fetch", "bear")[0] == 0  # it is there: no network is needed
    assert len(server.asked) == 1


def test_the_weights_are_those_of_the_file(run, tmp_path: Path) -> None:
    run("fetch", "bear")
    state, _ = read_weights(tmp_path / "cache" / "weights" / "bear.safetensors")
    assert torch.equal(state["outputs.0.heatmap.weight"], layouts.bearpaw(depth=1)["score.0.weight"])


def test_the_list_with_terms(run) -> None:
    run("fetch", "bear")
    status, out, _ = run("list")
    assert status == 0
    for text in (
        f"{DEFAULT}  [ships",
        "bear  [fetched]",
        "bear-nc  [not fetched]",
        "commercial use: no; as they say (code GPL-3.0; data: research)",
        "the publisher states: PCKh 0.9",
        "measured: lspet/val PCK@0.2",
        "URL not yet verified",
    ):
        assert text in out
    rows = {row["name"]: row for row in json.loads(run("list", "--json")[1])}
    assert set(rows) == {
        DEFAULT,
        DEFAULT_DETECTOR,
        "people-pose",
        "people-quick",
        "lift-people",
        "bear",
        "bear-nc",
        "three",
        "bear-corrupt",
        "bear-typo",
        "bear-other",
    }
    assert rows["bear"]["file"].endswith("bear.safetensors")
    assert rows["bear-nc"]["file"] is None
    chosen = [row["name"] for row in json.loads(run("list", "--json", "--commercial-ok")[1])]
    assert chosen == ["bear", "three", "bear-corrupt"]


def test_the_list_that_ships(run) -> None:
    status, out, _ = run("list", own=False)
    assert status == 0
    assert "hg8-mpii-bearpaw  [not fetched]" in out
    assert "None of the listed weights" in run("list", "--commercial-ok", own=False)[1]


def test_unknown_and_shipped_names(run) -> None:
    status, _, err = run("fetch", "baer")
    assert status == 2
    assert "Unknown weights 'baer'. Did you mean 'bear'?" in err
    assert "is included in the package" in run("fetch", DEFAULT)[1]
    status, _, err = run("path", "hg8-mpii-bearpow")
    assert status == 2
    assert "Did you mean 'hg8-mpii-bearpaw'?" in err


def test_a_known_name_says_how_to_fetch_it(server) -> None:
    with pytest.raises(
        FileNotFoundError,
        match=r"'hg8-mpii-bearpaw' are known but not on this machine\. `poseglass weights fetch hg8-mpii-bearpaw` "
        r"downloads them from github\.com \(commercial use: no",
    ):
        pg.load("hg8-mpii-bearpaw")
    assert server.asked == []


def test_offline_says_what_to_put_where(run, server, tmp_path: Path) -> None:
    status, out, err = run("fetch", "bear", "--offline")
    assert status == 2
    assert "commercial use: yes" in out
    place = tmp_path / "cache" / "weights" / "downloads" / "bear" / "bear.pth"
    assert f"Offline: bear.pth is not on this machine. Download it from {server.url('whole', 'bear.pth')}" in err
    assert f"put it at {place} and try again" in err
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(FILES["bear.pth"])
    assert run("fetch", "bear", "--offline")[0] == 0
    assert pg.load("bear").card is not None
    assert server.asked == []


def test_damaged_bytes_never_become_weights(run, tmp_path: Path) -> None:
    status, _, err = run("fetch", "bear-corrupt")
    assert status == 2
    assert "bear.pth could not be downloaded: 127.0.0.1" in err
    assert "sent different content than expected" in err
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_a_file_that_cannot_be_imported_is_kept(run, server) -> None:
    for _ in range(2):
        status, _, err = run("fetch", "three")
        assert status == 2
        assert "three was fetched and its checksum is correct, but this version cannot import it:" in err
        assert "does not say which" in err
    assert len(server.asked) == 1
    assert run("remove", "three") == (0, "three: removed\n", "")
    assert run("fetch", "three")[0] == 2
    assert len(server.asked) == 2


def test_remove(run, tmp_path: Path) -> None:
    run("fetch", "bear", "bear-nc")
    assert run("remove", "bear") == (0, "bear: removed\n", "")
    assert [path.name for path in (tmp_path / "cache").rglob("*.safetensors")] == ["bear-nc.safetensors"]
    status, _, err = run("remove", "bear")
    assert status == 2
    assert "No weights 'bear' in " in err
    assert "Found: bear-nc." in err
    status, _, err = run("remove", DEFAULT)
    assert status == 2
    assert "is included in the package and cannot be removed" in err
    status, _, err = run("remove", "../../list.toml")
    assert status == 2
    assert (tmp_path / "list.toml").exists()
    status, _, err = run("remove", "bear-nc", "baer")
    assert status == 2
    assert "No weights 'baer' in " in err
    assert run("path", "bear-nc")[0] == 0  # nothing goes before all names are known


def test_remove_holds_the_lock_of_a_fetch(run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("fetch", "bear")
    held: list[tuple[str, bool]] = []

    @contextmanager
    def locked(path: Path) -> Iterator[None]:
        held.append((path.name, path.exists()))
        yield
        held.append((path.name, path.exists()))

    monkeypatch.setattr(fetch, "locked", locked)
    run("remove", "bear")
    assert held == [("bear.safetensors", True), ("bear.safetensors", False)]


def test_a_file_that_was_made_from_another_is_fetched_again(run, server, manifest: Path, tmp_path: Path) -> None:
    run("fetch", "bear")
    file = tmp_path / "cache" / "weights" / "bear.safetensors"
    before = read_card(file).sha256
    server.files["bear.pth"] = checkpoint(layouts.bearpaw(depth=1, seed=5))
    now = hashlib.sha256(server.files["bear.pth"]).hexdigest()
    manifest.write_text(manifest.read_text().replace(before, now))
    assert run("fetch", "bear")[0] == 0
    assert read_card(file).sha256 == now
    assert torch.equal(
        read_weights(file)[0]["outputs.0.heatmap.weight"], layouts.bearpaw(depth=1, seed=5)["score.0.weight"]
    )
    file.write_bytes(file.read_bytes()[:-9])  # as a disk might have left it
    assert run("fetch", "bear")[0] == 0
    read_weights(file)
    assert len(server.asked) == 3


def test_a_list_that_is_wrong_about_its_file(run, server, tmp_path: Path) -> None:
    status, _, err = run("fetch", "bear-typo")
    assert status == 2
    assert "Unknown skeleton 'mpii61'. Did you mean 'mpii16'?" in err
    assert server.asked == []
    status, _, err = run("fetch", "bear-other")
    assert status == 2
    assert "its network is 'stacked_hourglass', but the list says 'hg2'." in err
    assert not list((tmp_path / "cache").rglob("*.safetensors"))


def test_what_the_names_do_not_tell_is_printed(run, monkeypatch: pytest.MonkeyPatch) -> None:
    bear = dataclasses.replace(IMPORTERS["hourglass_bearpaw"], doubt="Read as a brown bear's.")
    monkeypatch.setitem(IMPORTERS, "hourglass_bearpaw", bear)
    assert "    Read as a brown bear's." in run("fetch", "bear")[1]


def test_the_list_has_what_else_lies_in_the_cache(run, tmp_path: Path) -> None:
    run("fetch", "bear")
    folder = tmp_path / "cache" / "weights"
    (folder / "bear.safetensors").rename(folder / "own-bear.safetensors")
    (folder / "broken.safetensors").write_bytes(b"no weights")
    _, out, _ = run("list")
    assert "own-bear  [fetched, " in out
    assert "Code: GPL-3.0. Data: research" in out
    assert "broken  [fetched, 0.0 MB]" in out
    assert "broken.safetensors is not a safetensors file" in out


def test_only_a_choice_can_be_empty(run, monkeypatch: pytest.MonkeyPatch, manifest: Path) -> None:
    manifest.write_text("")
    monkeypatch.setattr(sys.modules["poseglass.cli.weights"], "shipped", dict)
    monkeypatch.setattr(sys.modules["poseglass.cli.weights"], "shipped_lifters", dict)
    assert run("list") == (0, "", "")
    assert "None of the listed weights" in run("list", "--commercial-ok")[1]


def test_the_cache_is_looked_at_before_the_list(run, monkeypatch: pytest.MonkeyPatch) -> None:
    run("fetch", "bear")

    def unread() -> None:
        raise AssertionError

    monkeypatch.setattr("poseglass.estimators.manifest.read_manifest", unread)
    assert run("path", "bear")[0] == 0


@pytest.mark.parametrize("command", ["list", "fetch"])
def test_help_names_no_place_on_this_machine(run, command: str) -> None:
    status, out, _ = run(command, "--help", own=False)
    assert status == 0
    assert "--manifest" in out
    assert "default" not in out
