"""A server on the loopback address that serves files well and badly; the first part of a path says how."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class FileServer(ThreadingHTTPServer):
    """Serves ``files`` under ``/MANNER/NAME`` and keeps what was asked for in ``asked``: (path, Range or "")."""

    daemon_threads = True

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = files
        self.asked: list[tuple[str, str]] = []
        self.release = threading.Event()  # what "silent" and "slow" wait for
        self.busy: list[int] = []  # what is answered first, whatever is asked

    def url(self, manner: str, name: str = "file.pth") -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{manner}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: FileServer  # type: ignore[assignment]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        asked = self.headers.get("Range") or ""
        self.server.asked.append((self.path, asked))
        _, manner, name = self.path.split("/")
        if self.server.busy:
            return self.send_error(self.server.busy.pop(0))
        if manner == "missing":
            return self.send_error(404)
        if manner in ("to_file", "moved", "to_ftp"):
            targets = {
                "to_file": "file:///etc/hostname",
                "moved": self.server.url("whole", name),
                "to_ftp": "ftp://a/b",
            }
            self.send_response(302)
            self.send_header("Location", targets[manner])
            self.send_header("Content-Length", "0")
            return self.end_headers()
        data = self.server.files[name]
        if "corrupt" in manner:
            data = data[:-1] + bytes([data[-1] ^ 1])
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and "no_range" not in manner else 0
        if start and start >= len(data):
            return self.send_error(416)
        body = data[start:]
        stated = len(body) + {"states_more": 100, "states_less": -100}.get(manner, 0)
        if manner == "silent":
            self.server.release.wait(20)
            return None
        self.send_response(206 if start else 200)
        if start:
            first = 0 if manner == "other_part" else start
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        if manner != "cut" and "endless" not in manner:
            self.send_header("Content-Length", str(stated))
        self.end_headers()
        if "breaks" in manner or (manner == "cut" and not start):
            body = body[: len(data) // 2]
        if "endless" in manner:
            body *= 3
        if manner == "slow":
            self.wfile.write(body[:1000])
            self.wfile.flush()
            self.server.release.wait(20)
            body = body[1000:]
        self.wfile.write(body)
        return None


@contextmanager
def serving(files: dict[str, bytes]) -> Iterator[FileServer]:
    """Serve these files while the block runs."""
    with FileServer(files) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.release.set()
            server.shutdown()
            thread.join()
