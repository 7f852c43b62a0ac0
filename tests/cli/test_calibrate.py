"""``poseglass calibrate``, and what its probabilities do in ``evaluate`` and ``predict``."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import poseglass as pg
from poseglass import cli
from poseglass.codecs.centernet import CenterNetCodec
from poseglass.core.card import WeightCard
from poseglass.core.image import read_image
from poseglass.core.input_spec import InputSpec
from poseglass.core.prediction import Decoded
from poseglass.core.skeletons import LSP14
from poseglass.estimators.fit import card_network
from poseglass.estimators.weights_file import read_card, save_weights
from poseglass.evaluation.observe import observe
from poseglass.readers import coco
from poseglass.readers.coco_write import write_coco
from poseglass.synthetic.people import synthetic_people


def run(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["poseglass", *map(str, words)])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def calibrated(tmp_path_factory, tiny_weights) -> tuple[Path, Path]:
    """Return labels of a few people, and weights calibrated on them."""
    folder = tmp_path_factory.mktemp("calibrated")
    write_coco(synthetic_people(12, seed=3, size_wh=(64, 80)), folder / "labels.json", write_images=True)
    with pytest.MonkeyPatch.context() as patch:
        assert not run(patch, "calibrate", tiny_weights, folder / "labels.json", "--out", folder / "out.safetensors")
    return folder / "labels.json", folder / "out.safetensors"


def test_calibration_is_stored_for_both_flip_tests(calibrated, tiny_weights) -> None:
    labels, weights = calibrated
    card = read_card(weights)
    assert sorted(one.flip_test for one in card.calibrations) == [False, True]
    assert all(one.people == 12 and one.probability.shape[0] == 14 for one in card.calibrations)
    before, after = (pg.load(path, size_wh=(64, 64)) for path in (tiny_weights, weights))
    for flip_test in (False, True):
        image = read_image(labels.parent / "images" / json.loads(labels.read_text())["images"][0]["file_name"])
        plain, got = (estimator.with_flip_test(flip_test)(image) for estimator in (before, after))
        np.testing.assert_array_equal(got.score, plain.score)
        one = next(one for one in card.calibrations if one.flip_test == flip_test)
        steps = np.linspace(0, 1, one.probability.shape[1])
        expected = [np.interp(got.score[0, k], steps, one.probability[k]) for k in range(14)]
        np.testing.assert_allclose(got.probability[0], expected, atol=1e-5)
        side_px = 1.1 * max(image.shape[:2])
        expected = [np.interp(got.score[0, k], steps, one.radius_share[k]) * side_px for k in range(14)]
        np.testing.assert_allclose(got.keypoint_extra["radius_px"][0], expected, rtol=1e-3)
        assert plain.probability is None
        assert "radius_px" not in plain.keypoint_extra
    assert pg.load(weights, size_wh=(96, 96)).torch_program.calibration is None


def test_evaluate_tells_how_the_probabilities_held(calibrated, tmp_path, monkeypatch, capsys) -> None:
    labels, weights = calibrated
    assert not run(monkeypatch, "evaluate", labels, "--weights", weights, "--json", tmp_path / "out.json")
    told = " ".join(capsys.readouterr().out.split())
    assert "expected calibration error" in told
    assert "of keypoints lie within their radius (target 90%)" in told
    assert json.loads((tmp_path / "out.json").read_text())["calibration"]["ece"] < 0.5


@pytest.mark.usefixtures("no_detector")
def test_predict_draws_by_probability(calibrated, tmp_path, monkeypatch, capsys) -> None:
    labels, weights = calibrated
    image = next((labels.parent / "images").iterdir())
    words = ("predict", image, "--weights", weights, "--out", tmp_path / "out")
    assert not run(monkeypatch, *words, "--min-probability", "0.99", "--skeleton", "lsp14")
    assert "0 of 14" in capsys.readouterr().out
    record = json.loads((tmp_path / "out" / "poses.json").read_text())[0]
    assert len(record["keypoint_probabilities"]) == len(record["keypoint_radii_px"]) == 14
    assert max(record["keypoint_probabilities"]) <= 1
    assert min(record["keypoint_radii_px"]) > 0


@pytest.mark.usefixtures("no_detector")
def test_predict_refuses_what_cannot_be(calibrated, tiny_weights, tmp_path, monkeypatch, capsys) -> None:
    labels, weights = calibrated
    image = next((labels.parent / "images").iterdir())
    out = ("--out", tmp_path / "out")
    assert run(monkeypatch, "predict", image, "--weights", tiny_weights, *out, "--min-probability", "0.5") == 2
    assert "are not. Use --min-score" in " ".join(capsys.readouterr().err.split())
    assert (
        run(monkeypatch, "predict", image, "--weights", weights, *out, "--min-probability", ".5", "--min-score", ".1")
        == 2
    )
    assert "Omit one of them" in capsys.readouterr().err
    assert run(monkeypatch, "predict", image, "--weights", weights, *out, "--skeleton", "coco17") == 2
    assert "which these weights do not predict" in " ".join(capsys.readouterr().err.split())
    assert run(monkeypatch, "predict", image, "--weights", weights, *out, "--skeleton", "coco") == 2
    assert "coco17" in capsys.readouterr().err


def test_nobody_has_no_probabilities_and_no_error(calibrated) -> None:
    _, weights = calibrated
    nobody = pg.load_top_down(weights, skeleton="lsp14")(np.zeros((40, 40, 3), np.uint8), np.zeros((0, 4)))
    assert nobody.probability.shape == nobody.keypoint_extra["radius_px"].shape == (0, 14)
    assert len(nobody.likely(0.5)) == 0


def test_packing_with_another_input_drops_the_calibration(calibrated, tmp_path, monkeypatch, capsys) -> None:
    _, weights = calibrated
    out = tmp_path / "packed.safetensors"
    assert not run(monkeypatch, "pack", weights, "--out", out)
    assert len(read_card(out).calibrations) == 2
    assert not run(monkeypatch, "pack", weights, "--out", out, "--force", "--set", "input.padding=1.3")
    assert read_card(out).calibrations == ()
    assert "calibration is dropped" in capsys.readouterr().out


def test_what_finds_everybody_is_calibrated_too(tmp_path, monkeypatch, capsys) -> None:
    """Keypoints by the side of the found box, boxes by their score; a drawn scene is found as it was labelled."""
    torch.manual_seed(0)
    network = {"name": "centernet_light", "num_keypoints": 14}
    card = WeightCard("finder", network, {"name": "centernet"}, LSP14, InputSpec((128, 128)), classes=("person",))
    save_weights(tmp_path / "finder.safetensors", card_network(card).state_dict(), card)
    write_coco(synthetic_people(6, seed=3, size_wh=(64, 80)), tmp_path / "labels.json", write_images=True)

    def decode(self, prediction):  # every view has one person, found a little too large
        del prediction
        points = torch.linspace(30, 90, 28).view(1, 1, 14, 2).expand(1, 1, 14, 2)
        box = torch.tensor([[[20.0, 0.0, 108.0, 128.0]]])
        ones = torch.ones(1, 1)
        return Decoded(points, torch.full((1, 1, 14), 0.5), ones.bool(), ones.long() * 0, ones * 0.9, box)

    monkeypatch.setattr(CenterNetCodec, "decode", decode)
    data = coco(tmp_path / "labels.json")
    finder = pg.load_detector(tmp_path / "finder.safetensors")
    seen = observe(dataclasses.replace(finder, batch_size=1), data)
    assert len(seen.box_score) == 6
    found = finder.torch_program  # the side of the found box, in image pixels, divides errors
    assert seen.box_right.any()
    scale = found.input.size_wh[1] / 80
    for row, index in enumerate(np.flatnonzero(seen.box_right)):
        truth = data.instances(int(index))
        xy = (np.linspace(30, 90, 28).reshape(14, 2) - [12.8, 0]) / scale
        error = np.linalg.norm(xy - truth.xy[0], axis=1)[truth.known[0]]
        share = seen.error_share[row][truth.known[0]]
        np.testing.assert_allclose(share, error / 80, atol=0.02)


def test_calibrate_refuses_to_overwrite(calibrated, monkeypatch, capsys) -> None:
    labels, weights = calibrated
    assert run(monkeypatch, "calibrate", weights, labels, "--out", weights) == 2
    assert "--force" in capsys.readouterr().err
    assert run(monkeypatch, "calibrate", weights, labels, "--out", weights.with_suffix(".json")) == 2
    assert ".safetensors" in capsys.readouterr().err
