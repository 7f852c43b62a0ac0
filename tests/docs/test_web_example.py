"""The example page finds the same points in headless Chromium as ONNX Runtime in Python.

It needs Chromium, and `npm install` in examples/web; without them it is skipped.
"""

import http.server
import json
import shutil
import subprocess
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import poseglass as pg
from poseglass.core.image import read_image
from poseglass.export.export import TARGETS, export_file, photograph_samples
from poseglass.export.exportable import exportable

WEB = Path(__file__).parents[2] / "examples" / "web"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

PAGE = """<!doctype html><script type="module">
import { findPoses, openModel } from "./poses.js";
let found;
try {
  const image = await createImageBitmap(await (await fetch("image.png")).blob());
  const session = await openModel("model.onnx");
  found = { poses: await findPoses(session, image, [[10, 10, 70, 100], [-0.5, -0.5, 95.5, 119.5]]) };
} catch (error) {
  found = { error: String(error) };
}
await fetch("found", { method: "POST", body: JSON.stringify(found) });
</script>"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and keeps what the page posts."""

    found: dict | None = None
    came = threading.Event()

    def do_POST(self) -> None:
        Handler.found = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()
        Handler.came.set()

    def log_message(self, *args: object) -> None:
        pass


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.skipif(not (WEB / "node_modules").is_dir(), reason="needs `npm install` in examples/web")
def test_the_page_finds_the_points_that_python_finds(tmp_path, tiny_weights, synthetic_person) -> None:
    pytest.importorskip("onnxruntime", reason="needs the extra onnx")
    work = exportable(tiny_weights, whole_image=True)
    export_file(work, TARGETS["onnx"], tmp_path / "model.onnx", photograph_samples(), "a photograph")
    shutil.copy(synthetic_person, tmp_path / "image.png")
    shutil.copy(WEB / "poses.js", tmp_path)
    (tmp_path / "node_modules").symlink_to(WEB / "node_modules")
    (tmp_path / "index.html").write_text(PAGE)
    Handler.found = None
    Handler.came.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        assert CHROMIUM is not None
        options = "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking --disable-sync"
        browser = subprocess.Popen(
            [CHROMIUM, *options.split(), f"--user-data-dir={tmp_path / 'profile'}", f"http://127.0.0.1:{server.server_port}"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert Handler.came.wait(120), "the page posted nothing within two minutes"
        finally:
            browser.terminate()
            browser.wait(30)
            server.shutdown()
    found = Handler.found
    assert found is not None
    assert "error" not in found, found
    expected = pg.load(tmp_path / "model.onnx")(
        read_image(synthetic_person), [[10, 10, 70, 100], [-0.5, -0.5, 95.5, 119.5]]
    )
    got = np.array([[[point["x"], point["y"]] for point in pose["points"]] for pose in found["poses"]])
    assert np.abs(got - expected.xy).max() <= 0.05
    np.testing.assert_allclose([pose["box"] for pose in found["poses"]], expected.box_xyxy)
