"""Fetching one file from good and bad servers: what is there afterwards, what was asked for, and what is said."""

import errno
import hashlib
import io
import os
import runpy
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from poseglass.estimators import fetch
from poseglass.estimators.fetch import FetchError, fetch_file, weights_folder

file_server = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "file_server.py")))

DATA = np.random.default_rng(0).bytes(300_000)
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("POSEGLASS_OFFLINE", raising=False)
    with file_server.serving({"file.pth": DATA}) as running:
        yield running


@pytest.fixture
def to(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "file.pth"


@pytest.mark.parametrize("digits", [64, 8])
def test_a_whole_file_with_its_progress(server, to: Path, digits: int) -> None:
    seen: list[tuple[int, int | None]] = []
    got = fetch_file([server.url("whole")], to, sha256=SHA256[:digits], progress=lambda *now: seen.append(now))
    assert got == to
    assert to.read_bytes() == DATA
    assert seen[-1] == (len(DATA), len(DATA))
    assert not to.with_name("file.pth.part").exists()
    fetch_file([server.url("whole")], to, sha256=SHA256)
    assert len(server.asked) == 1  # a good file is left alone


def test_a_file_that_breaks_off_goes_on_where_it_was(server, to: Path) -> None:
    fetch_file([server.url("breaks")], to, sha256=SHA256, num_bytes=len(DATA))
    assert to.read_bytes() == DATA
    assert [asked for _, asked in server.asked] == ["", "bytes=150000-"]


def test_a_later_fetch_goes_on_at_another_server(server, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "TRIES", 1)
    with pytest.raises(
        FetchError, match=r"file\.pth could not be downloaded: 127.* broke off after 150,000 of 300,000"
    ):
        fetch_file([server.url("breaks")], to, sha256=SHA256)
    assert not to.exists()
    fetch_file([server.url("whole")], to, sha256=SHA256)
    assert to.read_bytes() == DATA
    assert server.asked[-1] == ("/whole/file.pth", "bytes=150000-")


def test_a_server_that_cannot_go_on_in_the_middle(server, to: Path) -> None:
    to.parent.mkdir()
    to.with_name("file.pth.part").write_bytes(DATA[:1000])
    fetch_file([server.url("no_range")], to, sha256=SHA256)
    assert to.read_bytes() == DATA
    assert server.asked == [("/no_range/file.pth", "bytes=1000-")]


@pytest.mark.parametrize(
    ("begun", "connections"),
    [(b"wrong" * 100, 2), (DATA + b"more", 2), (DATA[:-1] + b"?", 2), (DATA, 0)],
    ids=["wrong start", "too long", "as long and wrong", "all there but the name"],
)
def test_what_lies_there_from_before(server, to: Path, begun: bytes, connections: int) -> None:
    to.parent.mkdir()
    to.with_name("file.pth.part").write_bytes(begun)
    fetch_file([server.url("whole")], to, sha256=SHA256)
    assert to.read_bytes() == DATA
    assert len(server.asked) == connections


@pytest.mark.slow
@pytest.mark.parametrize(
    ("manner", "says"),
    [
        ("corrupt", r"sent different content than expected \(sha256 [0-9a-f]{64} instead of " + SHA256),
        ("states_less", "offers 299,900 bytes, expected 300,000"),
        ("states_more", "offers 300,100 bytes, expected 300,000"),
        ("missing", "answered 404"),
        ("to_file", r"Redirection to url 'file:///etc/hostname' is not allowed"),
        ("to_ftp", r"redirects to ftp://a/b, which is not followed"),
        ("endless", "sent more than 300,000 bytes"),
        ("silent", "cannot be reached .*timed out"),
    ],
)
def test_a_bad_source_is_said_and_the_next_one_used(server, to: Path, manner: str, says: str) -> None:
    bad, good = server.url(manner), server.url("whole")
    with pytest.raises(
        FetchError, match=rf"file\.pth could not be downloaded: 127.*{says}.*Try again later.*put it at"
    ):
        fetch_file([bad], to, sha256=SHA256, num_bytes=len(DATA), timeout_s=0.3, wait_s=0)
    assert not to.exists()
    fetch_file([bad, good], to, sha256=SHA256, num_bytes=len(DATA), timeout_s=0.3, wait_s=0)
    assert to.read_bytes() == DATA


def test_both_failures_are_named(server, to: Path) -> None:
    with pytest.raises(FetchError, match=r"127\S+ answered 404 Not Found; 127\S+ sent different content"):
        fetch_file([server.url("missing"), server.url("corrupt")], to, sha256=SHA256)
    assert not to.with_name("file.pth.part").exists()  # other bytes are of no use


def test_a_server_that_is_not_there(server, to: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}/file.pth"
    with pytest.raises(FetchError, match=r"127\S+ cannot be reached \(.*refused"):
        fetch_file([dead], to, sha256=SHA256, wait_s=0)
    fetch_file([dead, server.url("whole")], to, sha256=SHA256, wait_s=0)
    assert to.read_bytes() == DATA


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_busy_server_is_asked_again_after_growing_waits(
    server, to: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(fetch.time, "sleep", waits.append)
    server.busy = [code, code]
    fetch_file([server.url("whole")], to, sha256=SHA256)
    assert to.read_bytes() == DATA
    assert waits == [1, 2]
    to.unlink()
    server.busy = [code] * 3
    with pytest.raises(FetchError, match=rf"127\S+ answered {code} .*\. Try again later, or download"):
        fetch_file([server.url("whole")], to, sha256=SHA256, wait_s=0.5)
    assert waits == [1, 2, 0.5, 1]
    server.busy = [404]
    with pytest.raises(FetchError, match="answered 404"):
        fetch_file([server.url("whole")], to, sha256=SHA256)
    assert len(waits) == 4  # what is not there will not be


def test_a_server_that_starts_anew_spoils_nothing(server, to: Path) -> None:
    """It cannot go on in the middle, and breaks off or sends other bytes: what others brought stays."""
    to.parent.mkdir()
    part = to.with_name("file.pth.part")
    part.write_bytes(DATA[:200_000])
    for manner, says in (
        (
            "no_range_breaks",
            r"broke off after 150,000 of 300,000 bytes\. Try again later \(the partial download is kept\)",
        ),
        (
            "no_range_corrupt",
            r"sent different content than expected .*\. Try again later \(the partial download is kept\)",
        ),
        ("no_range_endless", r"sent more than 300,000 bytes\. Try again later \(the partial download is kept\)"),
    ):
        with pytest.raises(FetchError, match=says):
            fetch_file([server.url(manner)], to, sha256=SHA256, num_bytes=len(DATA))
        assert part.read_bytes() == DATA[:200_000]
    server.asked.clear()
    fetch_file([server.url("no_range_breaks"), server.url("whole")], to, sha256=SHA256, num_bytes=len(DATA))
    assert server.asked[-1] == ("/whole/file.pth", "bytes=200000-")
    assert sorted(path.name for path in to.parent.iterdir()) == [".file.pth.lock", "file.pth"]


def test_a_cut_connection_that_told_no_length(server, to: Path) -> None:
    fetch_file([server.url("cut")], to, sha256=SHA256, num_bytes=len(DATA))
    assert to.read_bytes() == DATA
    assert [asked for _, asked in server.asked] == ["", "bytes=150000-"]


def test_what_is_too_long_is_not_kept(server, to: Path) -> None:
    with pytest.raises(FetchError, match=r"sent more than 300,000 bytes\. Try again later, or download"):
        fetch_file([server.url("endless")], to, sha256=SHA256, num_bytes=len(DATA))
    assert not to.with_name("file.pth.part").exists()


def test_a_full_disk_says_kept_of_what_is(server, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.open

    def full(path: Path, mode: str = "r", *more: object, **named: object) -> object:
        if path.suffix == ".part" and mode != "rb":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(path, mode, *more, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(FetchError, match=r"Free some and try again\. Or set"):
        fetch_file([server.url("whole")], to, sha256=SHA256)


def test_a_stated_length_that_is_too_large_does_no_harm(server, to: Path) -> None:
    fetch_file([server.url("states_more")], to, sha256=SHA256)
    assert to.read_bytes() == DATA
    assert len(server.asked) == 1


def test_a_stated_length_that_is_too_small(server, to: Path) -> None:
    with pytest.raises(FetchError, match="sent different content than expected"):
        fetch_file([server.url("states_less")], to, sha256=SHA256)


def test_another_part_than_was_asked_for(server, to: Path) -> None:
    to.parent.mkdir()
    to.with_name("file.pth.part").write_bytes(DATA[:1000])
    with pytest.raises(FetchError, match=r"sent a different part than requested \(bytes 0-299999/300000\)"):
        fetch_file([server.url("other_part")], to, sha256=SHA256)


def test_redirects_to_http_are_followed_with_the_range(server, to: Path) -> None:
    to.parent.mkdir()
    to.with_name("file.pth.part").write_bytes(DATA[:1000])
    fetch_file([server.url("moved")], to, sha256=SHA256)
    assert to.read_bytes() == DATA
    assert server.asked == [("/moved/file.pth", "bytes=1000-"), ("/whole/file.pth", "bytes=1000-")]


def test_https_never_leads_to_http() -> None:
    request, body = urllib.request.Request("https://a.example/file.pth"), io.BytesIO()
    follow = fetch._Redirects().redirect_request
    with pytest.raises(fetch._Refused, match=r"redirects to http://a\.example/x, which is not followed"):
        follow(request, body, 302, "Found", {}, "http://a.example/x")
    assert body.closed
    assert follow(request, io.BytesIO(), 302, "Found", {}, "https://b.example/x").full_url == "https://b.example/x"


@pytest.mark.parametrize("digits", ["", SHA256[:7], SHA256.upper(), SHA256 + "0"])
def test_nothing_is_fetched_unchecked(server, to: Path, digits: str) -> None:
    with pytest.raises(ValueError, match=f"8 to 64 lower-case hexadecimal digits, got '{digits}'"):
        fetch_file([server.url("whole")], to, sha256=digits)
    assert server.asked == []


def test_nothing_but_http_is_opened(to: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch.time, "sleep", lambda _: pytest.fail("asked again"))
    (tmp_path / "local").write_bytes(DATA)
    with pytest.raises(FetchError, match="unknown url type: file"):
        fetch_file([(tmp_path / "local").as_uri()], to, sha256=SHA256)


def test_a_size_beyond_all_bounds(server, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "MAX_BYTES", 1000)
    with pytest.raises(FetchError, match="offers 300,000 bytes, expected at most 1,000"):
        fetch_file([server.url("whole")], to, sha256=SHA256)


def test_offline(server, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.url("whole")
    for value in ("", "0"):
        monkeypatch.setenv("POSEGLASS_OFFLINE", value)
        assert not fetch.offline_by_environment()
    monkeypatch.setenv("POSEGLASS_OFFLINE", "1")
    says = (
        rf"Offline: file\.pth is not on this machine\. Download it from {url} .*starts with {SHA256[:8]}\), put it at "
    )
    with pytest.raises(FetchError, match=says):
        fetch_file([url], to, sha256=SHA256[:8])
    assert not to.parent.exists()
    to.parent.mkdir()
    to.write_bytes(b"something else")
    with pytest.raises(FetchError, match=r"Offline: file\.pth has different content"):
        fetch_file([url], to, sha256=SHA256)
    assert server.asked == []
    to.write_bytes(DATA)
    assert fetch_file([url], to, sha256=SHA256) == to
    to.write_bytes(b"something else")
    fetch_file([url], to, sha256=SHA256, offline=False)  # the argument goes before the environment
    assert to.read_bytes() == DATA


def test_a_full_disk_keeps_what_has_come(server, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(FetchError, match=r"No space left in .*cache\. Free some .*the partial download is kept"):
            fetch_file([server.url("breaks"), server.url("whole")], to, sha256=SHA256)
    assert len(server.asked) == 1  # another server would not help
    assert to.with_name("file.pth.part").read_bytes() == DATA[:150_000]
    fetch_file([server.url("whole")], to, sha256=SHA256)
    assert to.read_bytes() == DATA


def test_a_cache_that_cannot_be_written(server, to: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    to.parent.write_text("a file where the folder should be")
    with pytest.raises(FetchError, match=r"Cannot write to .*cache \(.*\)\. Set POSEGLASS_CACHE to a writable folder"):
        fetch_file([server.url("whole")], to, sha256=SHA256)
    to.parent.unlink()
    to.parent.mkdir()
    to.write_bytes(DATA)

    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "mkdir", read_only)
    assert fetch_file([server.url("whole")], to, sha256=SHA256) == to  # reading is enough for what is there
    with pytest.raises(FetchError, match=r"Cannot write to .*\(Read-only file system\)"):
        fetch_file([server.url("whole")], to.with_name("other.pth"), sha256=SHA256)
    assert server.asked == []


@pytest.mark.slow
def test_two_processes_fetch_it_once(server, to: Path) -> None:
    # From its file alone: the module needs nothing but the standard library, and starts at once.
    code = (
        "import runpy, sys; f = runpy.run_path(sys.argv[1])['fetch_file']; print('ready', flush=True); "
        "f([sys.argv[2]], sys.argv[3], sha256=sys.argv[4])"
    )
    words = [sys.executable, "-c", code, str(fetch.__file__), server.url("slow"), str(to), SHA256]
    pair = [subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for process in pair:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    time.sleep(0.5)  # both are at it: one within the file, the other waiting
    server.release.set()
    told = []
    for process in pair:
        _, said = process.communicate(timeout=60)
        assert process.returncode == 0, said
        told.append(said)
    assert sorted(told) == ["", "Waiting for another process that is using file.pth ...\n"]
    assert to.read_bytes() == DATA
    assert len(server.asked) == 1


def test_a_user_without_a_home_is_told_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POSEGLASS_CACHE", str(tmp_path))
    assert weights_folder() == tmp_path / "weights"
    monkeypatch.delenv("POSEGLASS_CACHE")
    monkeypatch.setattr("poseglass.core.folders.user_cache_path", lambda *_, **__: Path("~/.cache/poseglass"))
    with pytest.raises(FetchError, match=r"no home folder\. Set POSEGLASS_CACHE to a folder where .* keep weights"):
        weights_folder()
