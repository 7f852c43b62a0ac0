"""``poseglass bench``: what is measured, what is chosen, and that ``predict`` and ``evaluate`` use it."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest

import poseglass as pg
from poseglass import cli
from poseglass.core.image import read_image
from poseglass.estimators.choice import (
    choice_file,
    file_hash,
    load_chosen,
    read_choices,
    version_of,
    write_choices,
)
from poseglass.export.bench import Row, Way, fastest, gain
from poseglass.export.parity import Drift

pytest.importorskip("onnxruntime", reason="needs the extra onnx")


def run(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["poseglass", *map(str, words)])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def benched(tmp_path_factory, tiny_weights) -> Path:
    """A copy of the tiny weights with a choice beside it, made with the cache in a folder of its own."""
    folder = tmp_path_factory.mktemp("bench")
    shutil.copy(tiny_weights, folder / "tiny.safetensors")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSEGLASS_CACHE", str(folder / "cache"))
        words = ("bench", folder / "tiny.safetensors", "--no-compile", "--repeats", 1, "--batch", 1, "--batch", 3)
        assert not run(patch, *words)
    return folder / "tiny.safetensors"


def test_the_choice_is_the_fastest_within_the_bound(benched) -> None:
    found = read_choices(benched)
    assert [choice.flip_test for choice in found] == [False]
    assert found[0].median_px <= 0.5
    assert found[0].times_as_fast >= 1
    assert choice_file(benched) == benched.parent / "tiny.bench.json"
    files = {path.suffix for path in (benched.parent / "cache" / "programs").iterdir()}
    assert ".onnx" in files

    def row(ms: float, median_px: float) -> Row:
        drift = Drift(1, 0, median_px, median_px, median_px, 0.0, {}, (1, 1), 0, "", {})
        return Row(Way("torch", "float32", False, None), {1: ms, 8: 2 * ms}, drift)  # type: ignore[arg-type]

    rows = [row(10, 0), row(5, 0.2), row(2, 0.6), row(7, 0.0)]
    assert fastest(rows, 0.5) is rows[1]
    assert fastest(rows, 1.0) is rows[2]
    assert fastest(rows, 0.1) is rows[3]
    assert gain(rows[2], rows[0]) == pytest.approx(5)


def test_predict_and_evaluate_say_what_runs(benched, synthetic_person, tmp_path, monkeypatch, capsys) -> None:
    file = next((benched.parent / "cache" / "programs").glob("*.onnx"))
    choice = dataclasses.replace(
        read_choices(benched)[0], runtime="onnx", precision="float32", compiled=False, file=str(file),
        version=version_of("onnx"), file_sha256=file_hash(file),
    )  # fmt: skip
    write_choices(benched, [choice])
    one, other = pg.load(benched), load_chosen(choice, benched)
    image = read_image(synthetic_person)
    np.testing.assert_allclose(one(image).score, other(image).score, atol=1e-4)
    words = ("predict", synthetic_person, "--weights", benched, "--whole-image", "--out")
    assert not run(monkeypatch, *words, tmp_path / "a")
    assert "Run by ONNX Runtime in float32, as `poseglass bench` chose" in capsys.readouterr().out
    for number, option in enumerate(("--flip-test", "--heatmaps", "--bfloat16")):  # of which nothing was measured
        assert not run(monkeypatch, *words, tmp_path / f"b{number}", option)
        assert "poseglass bench" not in capsys.readouterr().out


def test_a_choice_of_other_weights_or_another_machine_does_not_count(benched) -> None:
    kept = choice_file(benched).read_text()
    data = json.loads(kept)
    for key, value in (
        ("weights_sha256", "0"), ("machine", "an abacus"), ("version", "0.1"), ("file_sha256", "0"), ("file", 5),
        ("runtime", "tensorrt"), ("times_as_fast", "2"), ("precision", "fp4"), ("file", "/nowhere.pt2"),
    ):  # fmt: skip
        changed = json.loads(kept)
        changed["choices"][0][key] = value
        choice_file(benched).write_text(json.dumps(changed))
        assert read_choices(benched) == []
    for text in ("{", "[]", json.dumps(data | {"format": 99})):
        choice_file(benched).write_text(text)
        assert read_choices(benched) == []
    choice_file(benched).unlink()
    assert read_choices(benched) == []
    choice_file(benched).write_text(kept)
    assert len(read_choices(benched)) == 1


def test_what_bench_refuses(benched, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("POSEGLASS_CACHE", str(benched.parent / "cache"))
    file = next((benched.parent / "cache" / "programs").glob("*.onnx"))
    for words, said in (
        (("--batch", 0), "must be at least 1"),
        (("--max-drift", -1), "must be a number of pixels from 0 on"),
        (("--also", file, "--flip-test"), "without the flip test, with keypoints 'lsp14'; what is measured differs"),
        (("--also", benched), "--also takes an exported file, .onnx or .xml"),
    ):
        assert run(monkeypatch, "bench", benched, "--no-compile", "--repeats", 1, *words) == 2
        assert said in " ".join(capsys.readouterr().err.split())
