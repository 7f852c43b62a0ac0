"""Download a file from the first of several URLs that has it: resumable, verified while streaming, atomic.

Only the standard library is used to talk to servers. What they send is not trusted: it is written to a temporary file,
limited in size, and renamed only once its SHA-256 is the expected one. A checksum of which only eight digits are known
detects damage but not malice, so whoever opens the file must still treat it as untrusted (``poseglass.checkpoints``
runs no code in it).
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
"""Maximum size of a file whose size is not known beforehand."""

TRIES = 5
"""Connections to one server before the next one is tried; each resumes where the previous one broke off."""

UNREADY_TRIES = 3
"""How many of them may find the server unreachable or too busy; there is a wait before each further one."""

_CHUNK = 1 << 20

Progress = Callable[[int, int | None], None]
"""Called with the number of bytes downloaded and, if known, the total size."""


class FetchError(OSError):
    """Raised if a file could not be downloaded; the message says what was tried and what to do."""


class _Refused(Exception):
    """This source cannot provide the file; the next one may."""


class _Unready(Exception):
    """The server is unreachable or too busy, possibly only for a moment."""


class _BrokenOff(Exception):
    """The connection ended early; what was received is valid."""


def weights_folder() -> Path:
    """Return the folder of downloaded weights; see ``core.folders.cache_folder``.

    Raises:
        FetchError: The user has no home folder and ``POSEGLASS_CACHE`` is not set.
    """
    try:
        return cache_folder("weights")
    except FileNotFoundError as error:
        raise FetchError(str(error)) from None


def offline_by_environment() -> bool:
    """Return whether ``POSEGLASS_OFFLINE`` forbids network access; empty and 0 do not."""
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
    """Download a file to ``to``, unless it is already there; a correct file is never overwritten.

    Servers are tried in order. Partial data is stored beside the file as ``.part`` and is kept if the download fails or
    is interrupted; the next call resumes from there. Processes that want the same file wait for each other.

    Args:
        urls: http or https, the preferred one first.
        to: Path of the file to write; missing folders are created.
        sha256: Lower-case hexadecimal digits: all 64, or the first of them.
        num_bytes: Size of the whole file; 0 if not known.
        offline: Never use the network. None follows ``POSEGLASS_OFFLINE``.
        timeout_s: Timeout for connecting and for each wait for more bytes, in seconds.
        wait_s: Wait before a server that is unreachable or too busy (429, 5xx) is tried again, in seconds; doubled for
            each further wait.
        progress: Called with the progress.

    Returns:
        ``to``.

    Raises:
        ValueError: ``sha256`` is not 8 to 64 hexadecimal digits.
        FetchError: No server provided the right bytes, the disk is full or cannot be written, or network access is
            forbidden.
    """
    to = Path(to)
    if not re.fullmatch(r"[0-9a-f]{8,64}", sha256):
        raise ValueError(f"sha256 must be 8 to 64 lower-case hexadecimal digits, got {sha256!r}.")
    if _is_right(to, sha256):
        return to
    if offline_by_environment() if offline is None else offline:
        wrong = "has different content" if to.exists() else "is not on this machine"
        raise FetchError(
            f"Offline: {to.name} {wrong}. Download it from {urls[0]} some other way "
            f"(its sha256 {'is' if len(sha256) == 64 else 'starts with'} {sha256}), put it at {to} and try again."
        )
    with locked(to):
        part = to.with_name(f"{to.name}.part")
        if _is_right(to, sha256):  # another process downloaded it meanwhile
            return to
        if not _is_right(part, sha256):
            _fill(part, urls, to, sha256, num_bytes, timeout_s, wait_s, progress)
        with _writing(to):
            part.replace(to)
    return to


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock ``path`` for this process, waiting for other processes if necessary; a hidden lock file stays beside it.

    A wait is reported on standard error. Missing folders are created.

    Raises:
        FetchError: The folder cannot be written.
    """
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"Waiting for another process that is using {path.name} ...", file=sys.stderr, flush=True)
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
    kept = " (the partial download is kept)" if _has_come(part) else ""
    raise FetchError(
        f"{to.name} could not be downloaded: {'; '.join(failures)}. Try again later{kept}, or download the "
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
    """Fill ``part`` from one source, resuming after broken connections.

    Raises:
        _Refused: It does not have the file, sent different content, or the connection broke too often.
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
        if digest.startswith(sha256):  # regardless of the length that the server announced
            return
        if reason:
            continue
        with _writing(part):
            part.unlink()
        reason = _other_bytes(digest, sha256)
        if not continued:
            break  # a full download would be the same again; the start of a resumed one may be wrong
    raise _Refused(reason)


def _other_bytes(digest: str, sha256: str) -> str:
    return f"sent different content than expected (sha256 {digest[: len(sha256)]} instead of {sha256})"


def _transfer(
    url: str, part: Path, sha256: str, num_bytes: int, timeout_s: float, progress: Progress | None
) -> tuple[str, str]:
    """Append to ``part`` what one connection sends.

    A server that cannot resume sends the file from its beginning: this is stored beside ``part``, and replaces it only
    if it is right.

    Returns:
        The SHA-256 of all of ``part`` (or of the file stored beside it), and how the connection broke off: empty if it
        ended as announced.

    Raises:
        _Refused: The server does not have the file, or has a different one.
        _Unready: It may have it, but is not available now.
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
            if error.code == 416 and have:  # at least as long as the file, but not the file: start again
                with _writing(part):
                    part.unlink()
                return "", "has no more bytes than were already received"
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
            raise _Refused(f"sent a different part than requested ({response.headers.get('Content-Range')})")
        if response.status != 206 and have:  # it cannot resume
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
    """Append what a connection sends to a file that has ``have`` bytes.

    Returns:
        How the connection broke off, which includes ending before ``whole`` bytes; empty if it did not.

    Raises:
        _Refused: More than ``most`` bytes were sent; the file is removed.
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
    """Convert a disk error to a readable message."""
    try:
        yield
    except FetchError:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            part = path if path.suffix == ".part" else path.with_name(f"{path.name}.part")
            kept = "; the partial download is kept" if _has_come(part) else ""
            raise FetchError(
                f"No space left in {path.parent}. Free some and try again{kept}. Or set POSEGLASS_CACHE to a folder on "
                "another disk."
            ) from error
        raise FetchError(
            f"Cannot write to {path.parent} ({error.strerror or error}). Set POSEGLASS_CACHE to a writable folder."
        ) from error


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https only, and never from https to http."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        allowed = ("https",) if urlsplit(req.full_url).scheme == "https" else ("http", "https")
        if urlsplit(newurl).scheme not in allowed:
            fp.close()
            raise _Refused(f"redirects to {newurl}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Return an opener that supports http and https, and nothing else: no files, no ftp."""
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
