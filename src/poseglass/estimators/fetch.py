"""Bring one file from the first of several addresses that has it: resumed, checked as it streams, never half in place.

Nothing but the standard library talks to servers. What they send is not trusted: it is written aside, bounded in size,
and takes its name only once its SHA-256 is the expected one. A checksum of which only eight digits are known notices
damage but not malice, so whoever opens the file must still treat it as a stranger's (``poseglass.checkpoints`` runs no
code in it).
"""

import errno
import hashlib
import http.client
import os
import re
import ssl
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import FileLock, Timeout

from poseglass.core.folders import cache_folder

MAX_BYTES = 8 * 1024**3
"""Of a file whose size is not known beforehand."""

TRIES = 5
"""Connections to one server before the next is asked; each goes on where the one before broke off."""

UNREADY_TRIES = 3
"""Of them, those in which a server may be out of reach or too busy; before each next one there is a wait."""

_CHUNK = 1 << 20

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there and, where it is known, the size of the whole."""


class FetchError(OSError):
    """A file that could not be brought; the message says what was tried and what to do."""


class _Refused(Exception):
    """This source will not do; the next may."""


class _Unready(Exception):
    """The server is out of reach or too busy, and may not be in a moment."""


class _BrokenOff(Exception):
    """The connection ended early; what came is good."""


def weights_folder() -> Path:
    """Return where fetched weights lie; see ``core.folders.cache_folder``.

    Raises:
        FetchError: The user has no home folder and ``POSEGLASS_CACHE`` is not set.
    """
    try:
        return cache_folder("weights")
    except FileNotFoundError as error:
        raise FetchError(str(error)) from None


def offline_by_environment() -> bool:
    """Return whether ``POSEGLASS_OFFLINE`` forbids the network; empty and 0 do not."""
    return os.environ.get("POSEGLASS_OFFLINE", "") not in ("", "0")


def fetch_file(
    urls: Sequence[str],
    to: str | Path,
    *,
    sha256: str,
    num_bytes: int = 0,
    offline: bool | None = None,
    timeout_s: float = 30.0,
    wait_s: float = 1.0,
    progress: Progress | None = None,
) -> Path:
    """Bring a file to ``to``, unless it is there already; a good file is never overwritten.

    Servers are asked in order. What has come lies beside it as ``.part`` and is kept when a fetch fails or is
    interrupted; the next goes on from there. Processes that want the same file wait for each other.

    Args:
        urls: http or https, the preferred one first.
        to: The file to make; its folders are made too.
        sha256: In small hexadecimal digits: all 64, or the first of them.
        num_bytes: Of the whole file; 0 where it is not known.
        offline: Never use the network. None takes what ``POSEGLASS_OFFLINE`` says.
        timeout_s: Of connecting, and of each wait for more bytes, in seconds.
        wait_s: Before a server that is out of reach or too busy (429, 5xx) is asked again, in seconds; each next wait
            is twice as long.
        progress: Told how far it is.

    Returns:
        ``to``.

    Raises:
        ValueError: ``sha256`` is not 8 to 64 hexadecimal digits.
        FetchError: No server gave the right bytes, the disk is full or cannot be written, or the network is not to be
            used.
    """
    to = Path(to)
    if not re.fullmatch(r"[0-9a-f]{8,64}", sha256):
        raise ValueError(f"sha256 must be 8 to 64 small hexadecimal digits, got {sha256!r}.")
    if _is_right(to, sha256):
        return to
    if offline_by_environment() if offline is None else offline:
        wrong = "holds other bytes" if to.exists() else "is not on this machine"
        raise FetchError(
            f"Offline: {to.name} {wrong}. Bring it from {urls[0]} some other way "
            f"(its sha256 {'is' if len(sha256) == 64 else 'starts with'} {sha256}), put it at {to} and ask again."
        )
    with locked(to):
        part = to.with_name(f"{to.name}.part")
        if _is_right(to, sha256):  # another process brought it meanwhile
            return to
        if not _is_right(part, sha256):
            _fill(part, urls, to, sha256, num_bytes, timeout_s, wait_s, progress)
        with _writing(to):
            part.replace(to)
    return to


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold ``path`` for this process, after waiting for whoever holds it; a hidden lock file stays beside it.

    A wait is told on the standard error. Folders that are missing are made.

    Raises:
        FetchError: The folder cannot be written.
    """
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another process that is at {path.name} ...", file=sys.stderr, flush=True)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _is_right(path: Path, sha256: str) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest().startswith(sha256)


def _fill(
    part: Path,
    urls: Sequence[str],
    to: Path,
    sha256: str,
    num_bytes: int,
    timeout_s: float,
    wait_s: float,
    progress: Progress | None,
) -> None:
    """Fill ``part`` with the right bytes from the first source that has them."""
    failures: list[str] = []
    for url in urls:
        try:
            _fill_from(url, part, sha256, num_bytes, timeout_s, wait_s, progress)
            return
        except _Refused as refusal:
            failures.append(f"{urlsplit(url).netloc} {refusal}")
    kept = " (what has come is kept)" if _has_come(part) else ""
    raise FetchError(
        f"{to.name} could not be fetched: {'; '.join(failures)}. Try again later{kept}, or bring the "
        f"file some other way and put it at {to}."
    )


def _has_come(part: Path) -> bool:
    return part.is_file() and part.stat().st_size > 0


def _fill_from(
    url: str,
    part: Path,
    sha256: str,
    num_bytes: int,
    timeout_s: float,
    wait_s: float,
    progress: Progress | None,
) -> None:
    """Fill ``part`` from one source, going on after breaks.

    Raises:
        _Refused: It does not have the file, or other bytes, or the connection broke too often.
    """
    reason, unready = "", 0
    for _ in range(TRIES):
        continued = _has_come(part)
        try:
            digest, reason = _transfer(url, part, sha256, num_bytes, timeout_s, progress)
        except _Unready as error:
            reason, unready = str(error), unready + 1
            if unready == UNREADY_TRIES:
                break
            time.sleep(wait_s * 2 ** (unready - 1))
            continue
        if digest.startswith(sha256):  # whatever the server said of its length
            return
        if reason:
            continue
        with _writing(part):
            part.unlink()
        reason = _other_bytes(digest, sha256)
        if not continued:
            break  # from the beginning it would only send them again; the start of a continued one may be at fault
    raise _Refused(reason)


def _other_bytes(digest: str, sha256: str) -> str:
    return f"sent other bytes than expected (sha256 {digest[: len(sha256)]} instead of {sha256})"


def _transfer(
    url: str, part: Path, sha256: str, num_bytes: int, timeout_s: float, progress: Progress | None
) -> tuple[str, str]:
    """Append to ``part`` what one connection gives.

    A server that cannot go on in the middle sends the file from its beginning: it lies beside ``part``, and takes its
    place only if it is right.

    Returns:
        The SHA-256 of all of ``part`` (or of what lay beside it), and how the connection broke off: empty if it ended
        as announced.

    Raises:
        _Refused: The server does not have the file, or another one.
        _Unready: It may have it, and cannot be asked now.
    """
    hasher = hashlib.sha256()
    have = 0
    if part.exists():
        with _writing(part), part.open("rb") as file:
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
                have += len(chunk)
    headers = {"User-Agent": "poseglass", "Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
    try:
        response = _opener().open(urllib.request.Request(url, headers=headers), timeout=timeout_s)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416 and have:  # as long as the file or longer, and not it: start anew
                with _writing(part):
                    part.unlink()
                return "", "has no more bytes than had come"
            busy = error.code == 429 or error.code >= 500
            raise (_Unready if busy else _Refused)(f"answered {error.code} {error.reason}") from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        for_good = isinstance(error, ValueError) or isinstance(reason, ssl.SSLCertVerificationError)
        for_good = for_good or urlsplit(url).scheme not in ("http", "https")
        raise (_Refused if for_good else _Unready)(f"cannot be reached ({reason})") from None
    target = part
    with response:
        if response.status == 206 and not str(response.headers.get("Content-Range")).startswith(f"bytes {have}-"):
            raise _Refused(f"sent another part than was asked for ({response.headers.get('Content-Range')})")
        if response.status != 206 and have:  # it cannot go on in the middle
            target, hasher, have = part.with_name(f"{part.name}.anew"), hashlib.sha256(), 0
        total = None if response.length is None else have + response.length
        most = num_bytes or MAX_BYTES
        if total is not None and (total > most or (num_bytes and total != num_bytes)):
            raise _Refused(f"offers {total:,} bytes, expected {'' if num_bytes else 'at most '}{most:,}")
        try:
            reason = _write(response, target, have, most, total or num_bytes or None, hasher, progress)
            digest = hasher.hexdigest()
            if target != part and digest.startswith(sha256):
                with _writing(part):
                    target.replace(part)
            elif target != part and not reason:
                raise _Refused(_other_bytes(digest, sha256))
        finally:
            if target != part:
                target.unlink(missing_ok=True)
    return digest, reason


def _write(
    response: http.client.HTTPResponse,
    target: Path,
    have: int,
    most: int,
    whole: int | None,
    hasher: Any,
    progress: Progress | None,
) -> str:
    """Append what a connection gives to the ``have`` bytes of a file.

    Returns:
        How the connection broke off, as it has where fewer than ``whole`` bytes are there; empty if it did not.

    Raises:
        _Refused: There are more bytes than ``most``; the file is removed.
    """
    reason = ""
    with _writing(target), target.open("ab" if have else "wb") as file:
        try:
            for chunk in _chunks(response):
                have += len(chunk)
                if have > most:
                    break
                file.write(chunk)
                hasher.update(chunk)
                if progress is not None:
                    progress(have, whole)
        except _BrokenOff as end:
            reason = f"broke off after {have:,} bytes ({end})"
        file.flush()
        os.fsync(file.fileno())
    if have > most:
        with _writing(target):
            target.unlink()
        raise _Refused(f"sent more than {most:,} bytes")
    if not reason and whole is not None and have < whole:
        reason = f"broke off after {have:,} of {whole:,} bytes"
    return reason


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while True:
        try:
            chunk = response.read1(_CHUNK)
        except (OSError, http.client.HTTPException) as error:
            raise _BrokenOff(str(error) or type(error).__name__) from error
        if not chunk:
            return
        yield chunk


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an error of the disk into a sentence."""
    try:
        yield
    except FetchError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            part = path if path.suffix == ".part" else path.with_name(f"{path.name}.part")
            kept = ": what has come is kept" if _has_come(part) else ""
            raise FetchError(
                f"No space left in {path.parent}. Free some and ask again{kept}. Or set POSEGLASS_CACHE to a folder on "
                "another disk."
            ) from error
        raise FetchError(
            f"Cannot write to {path.parent} ({error.strerror or error}). Set POSEGLASS_CACHE to a folder that can be "
            "written."
        ) from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to http and https only, and never from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        allowed = ("https",) if urlsplit(req.full_url).scheme == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in allowed:
            fp.close()
            raise _Refused(f"leads to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener that knows http and https, and nothing else: no files, no ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        urllib.request.UnknownHandler(),
        _Redirects(),
    ):
        opener.add_handler(handler)
    return opener
