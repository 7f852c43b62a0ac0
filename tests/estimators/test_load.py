"""The front door: names and files to estimators."""

import json
import struct
from pathlib import Path

import pytest
import torch

import poseglass as pg
from poseglass.core.skeletons import PEOPLE19
from poseglass.estimators.load import DEFAULT, DEFAULT_DETECTOR, find_weights, shipped
from poseglass.estimators.weights_file import CheckpointError, read_weights, save_weights


def test_a_file_becomes_an_estimator(tiny_weights, synthetic_person):
    estimate = pg.load(tiny_weights)
    people = estimate(pg.read_image(synthetic_person), boxes=[[5, 5, 90, 110]])
    assert people.xy.shape == (1, 14, 2)
    assert estimate.skeleton.name == "lsp14"
    assert estimate.codec.activation == "softmax"  # type: ignore[attr-defined]
    assert not estimate.network.training
    assert json.loads(people.to_json())["instances"][0]["keypoints"]["neck"]


def test_another_size_and_the_flip_test(tiny_weights, synthetic_person):
    estimate = pg.load(tiny_weights, size_wh=(96, 96), flip_test=True)
    assert estimate.input.size_wh == (96, 96)
    assert len(estimate(pg.read_image(synthetic_person))) == 1


def test_what_ships_by_default():
    path = shipped()[DEFAULT]
    assert path.stat().st_size <= 12e6
    estimate = pg.load_top_down()
    assert sum(p.numel() for p in estimate.network.parameters()) <= 6_000_000
    assert len(estimate.skeleton) == 14
    assert estimate.card is not None
    assert all((estimate.card.data, estimate.card.license, estimate.card.results, estimate.card.commit))


def test_what_finds_people_by_default():
    assert DEFAULT_DETECTOR is not None
    path = shipped()[DEFAULT_DETECTOR]
    assert path.stat().st_size <= 16e6
    detector = pg.load("people")
    assert isinstance(detector, pg.OneStageEstimator)
    assert sum(p.numel() for p in detector.network.parameters()) <= 8_000_000
    assert detector.skeleton.keypoints == PEOPLE19.keypoints
    assert detector.card is not None
    assert detector.card.classes == ("person",)
    assert all((detector.card.data, detector.card.license, detector.card.results, detector.card.commit))
    both = pg.load()
    assert isinstance(both, pg.TwoStageEstimator)
    assert isinstance(both.detector, pg.OneStageEstimator)
    assert both.skeleton.keypoints == pg.load_top_down().skeleton.keypoints


def test_what_finds_people_may_look_at_several_scales():
    detector = pg.load(scales=(0.5, 1.0)).detector
    assert isinstance(detector, pg.OneStageEstimator)
    assert detector.scales == (0.5, 1.0)
    alone = pg.load("people", scales=(0.5, 1.0))
    assert isinstance(alone, pg.OneStageEstimator)
    assert alone.scales == (0.5, 1.0)
    with pytest.raises(ValueError, match="Chips have scales of their own"):
        pg.load(scales=[0.5, 1.0], chips=True)
    with pytest.raises(ValueError, match=r"scales are for what finds everybody .* Crops are shown at several sizes by"):
        pg.load("hg2-light-lspet", scales=(0.5, 1.0))


def test_every_shipped_file_loads():
    for name in shipped():
        estimate = pg.load(name)
        assert not isinstance(estimate, pg.TwoStageEstimator)
        assert estimate.card is not None
        assert estimate.card.name == name


def test_an_unknown_name_says_what_would_do(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"No weights .*neither a file nor a name that ships.*Names: "):
        pg.load(tmp_path / "nothing.safetensors")


def test_a_folder_hides_no_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / DEFAULT).mkdir()
    assert find_weights(DEFAULT).name == f"{DEFAULT}.safetensors"
    monkeypatch.setattr("poseglass.estimators.load.cached", lambda: {"mine": Path("cache/mine.safetensors")})
    (tmp_path / "mine").mkdir()
    assert find_weights("mine") == Path("cache/mine.safetensors")


def test_a_near_name_is_suggested():
    for name in shipped():
        with pytest.raises(FileNotFoundError, match=f"Did you mean '{name}'"):
            pg.load(name + "x")


def test_a_file_that_is_no_weights_file(tmp_path):
    path = tmp_path / "text.safetensors"
    path.write_text("these are not weights")
    with pytest.raises(CheckpointError, match=r"text\.safetensors"):
        pg.load(path)


def _with_codec(source, target, codec):
    state, card = read_weights(source)
    import dataclasses

    save_weights(target, state, dataclasses.replace(card, codec=codec))


def test_a_card_may_not_name_code_as_its_codec(tiny_weights, tmp_path):
    path = tmp_path / "evil.safetensors"
    _with_codec(tiny_weights, path, {"name": "os:system", "command": f"touch {tmp_path}/ran"})
    with pytest.raises(CheckpointError, match="code outside poseglass: codec 'os:system'"):
        pg.load(path)
    assert not (tmp_path / "ran").exists()


def test_nor_code_inside_its_codec(tiny_weights, tmp_path):
    path = tmp_path / "evil.safetensors"
    _with_codec(tiny_weights, path, {"name": "heatmap", "inner": [{"name": "os:system"}]})
    with pytest.raises(CheckpointError, match=r"code outside poseglass: codec\.inner 'os:system'"):
        pg.load(path)


def test_a_codec_that_does_not_exist(tiny_weights, tmp_path):
    path = tmp_path / "codec.safetensors"
    _with_codec(tiny_weights, path, {"name": "drak"})
    with pytest.raises(CheckpointError, match=r"codec cannot be built.*Did you mean 'dark'"):
        pg.load(path)


def test_absurd_header_is_refused(tmp_path):
    path = tmp_path / "huge.safetensors"
    path.write_bytes(struct.pack("<Q", 2**60) + b"{}")
    with pytest.raises(CheckpointError, match=r"huge\.safetensors"):
        pg.load(path)


def test_a_device_that_is_not_there(tiny_weights):
    with pytest.raises(ValueError, match=r"device 'cuda:9' cannot be used here .*Use 'cpu'"):
        pg.load(tiny_weights, device="cuda:9")


def test_a_size_that_does_not_divide_names_sizes_that_would(tiny_weights, synthetic_person):
    with pytest.raises(ValueError, match=r"100 x 100 .* divisible by 16.*96 x 96 or 112 x 112"):
        pg.load(tiny_weights, size_wh=(100, 100))(pg.read_image(synthetic_person))


def test_estimates_do_not_depend_on_gradients_being_on(tiny_weights, synthetic_person):
    estimate, image = pg.load(tiny_weights), pg.read_image(synthetic_person)
    with torch.no_grad():
        quiet = estimate(image).xy
    assert (estimate(image).xy == quiet).all()
