"""`predict` of boxes in space: calibrations, files, drawings, and what is said without a calibration."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import poseglass as pg
from poseglass import cli
from poseglass.cli.calibrations import with_calibrations
from poseglass.cli.given_boxes import GivenImage
from poseglass.cli.poses_file import people_of
from poseglass.core.box_3d import lift, observe
from poseglass.core.image import write_image
from poseglass.core.skeletons import BOXES
from poseglass.drawing.boxes_3d import draw_boxes_3d
from poseglass.estimators.load import load_detector
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.estimators.weights_file import CheckpointError, save_weights
from poseglass.evaluation.found import evaluate_found
from poseglass.export.exportable import exportable
from poseglass.export.torch_export import TorchTarget
from poseglass.metrics import BoxAp, KittiAp
from poseglass.networks import NETWORKS
from poseglass.readers import coco, write_coco
from poseglass.readers.kitti import read_calibration
from poseglass.synthetic.streets import CLASSES, streets


def run(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["poseglass", *map(str, words)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    """Write weights of a small network that finds something everywhere."""
    torch.manual_seed(0)
    table = {
        "name": "composed", "num_keypoints": 0, "backbone": {"name": "mobilenet_v3_small"},
        "neck": {"name": "unet", "width": 8},
        "head": {
            "name": "centernet", "num_classes": 3, "width": 8, "boxes_3d": True, "middles_3d": True, "heading_bins": 12,
        },
    }  # fmt: skip
    network = pg.build(NETWORKS, table["name"], **{key: value for key, value in table.items() if key != "name"})
    state = {name: value.clone() for name, value in network.state_dict().items()}
    for name, value in (("center", 4.0), ("size", 5.0), ("depth", -2.5), ("dimensions", 1.6)):
        state[f"head.outputs.{name}.last.bias"] += value
    codec = {
        "name": "centernet", "poses": False, "most": 12, "boxes_3d": True, "middles_3d": True, "focal_px": 260.0,
        "heading_bins": 12,
    }  # fmt: skip
    path = tmp_path_factory.mktemp("weights") / "streets.safetensors"
    save_weights(path, state, pg.WeightCard("3d", table, codec, BOXES, pg.InputSpec((192, 64)), classes=CLASSES))
    return path


def calibration(path: Path, projection: np.ndarray) -> Path:
    """Write a calibration in metres."""
    metres = projection.copy()
    metres[:, 3] /= 1000
    path.write_text("P2: " + " ".join(f"{value!r}" for value in metres.reshape(-1).tolist()) + "\n")
    return path


@pytest.fixture
def street(tmp_path) -> tuple[Path, np.ndarray]:
    data = streets(1)
    write_image(tmp_path / "street.png", data.image(0))
    return tmp_path / "street.png", data.projection(0)


def test_boxes_in_space_are_written_and_drawn(tmp_path, monkeypatch, capsys, weights, street):
    file, projection = street
    given = calibration(tmp_path / "camera.txt", projection)
    np.testing.assert_allclose(read_calibration(given), projection)
    words = ("predict", file, "--weights", weights, "--calibration", given, "--out", tmp_path / "out")
    assert run(monkeypatch, *words) == 0
    assert "These weights find boxes in space: box_3d in poses.json" in " ".join(capsys.readouterr().out.split())
    poses = json.loads((tmp_path / "out" / "poses.json").read_text())
    found = load_detector(str(weights))(pg.read_image(file), projection=projection)
    assert len(poses) == len(found) > 3
    for row, pose in enumerate(poses):
        box = pose["box_3d"]
        numbers = [*box["center_mm"], box["length_mm"], box["height_mm"], box["width_mm"]]
        np.testing.assert_allclose(numbers, found.box_3d[row, :6], atol=0.06)
        assert box["yaw"] == pytest.approx(found.box_3d[row, 6], abs=1e-4)
        assert pose["category"] in CLASSES
    drawn = np.asarray(Image.open(tmp_path / "out" / "street.png"))
    assert drawn.shape == (128 * 3, 384 * 3, 3)  # enlarged, so that lines do not hide what is small
    np.testing.assert_array_equal(pg.read_image(file), streets(1).image(0))


def test_a_calibration_beside_the_image_is_found(tmp_path, monkeypatch, capsys, weights, street):
    file, projection = street
    words = ("predict", file, "--weights", weights, "--no-images", "--out", tmp_path / "out")
    assert run(monkeypatch, *words) != 0
    said = " ".join(capsys.readouterr().err.split())
    assert "street.png: there is no calibration of its camera, which boxes in space need. Give --calibration" in said
    calibration(tmp_path / "street.txt", projection)
    assert run(monkeypatch, *words) == 0
    (tmp_path / "street.txt").write_text("P2: " + "0 " * 12)
    assert run(monkeypatch, *words) != 0
    assert "no calibration and not used." in " ".join(capsys.readouterr().out.split())
    assert run(monkeypatch, *words, "--calibration", tmp_path / "street.txt") != 0
    assert "street.txt: P2 is singular" in " ".join(capsys.readouterr().err.split())


def test_kitti_s_folders_are_known(tmp_path, monkeypatch, weights):
    data = streets(2)
    (tmp_path / "image_2").mkdir()
    (tmp_path / "calib").mkdir()
    for i in range(2):
        write_image(tmp_path / "image_2" / f"{i:06}.png", data.image(i))
        calibration(tmp_path / "calib" / f"{i:06}.txt", data.projection(i))
    words = ("predict", tmp_path / "image_2", "--weights", weights, "--no-images")
    assert run(monkeypatch, *words, "--out", tmp_path / "a") == 0
    assert run(monkeypatch, *words, "--calibration", tmp_path / "calib", "--out", tmp_path / "b") == 0
    both = [json.loads((tmp_path / name / "poses.json").read_text()) for name in ("a", "b")]
    assert both[0] == both[1]
    (tmp_path / "calib" / "000001.txt").unlink()
    assert run(monkeypatch, *words, "--out", tmp_path / "c") == 1  # the other one is done
    assert len({pose["file_name"] for pose in json.loads((tmp_path / "c" / "poses.json").read_text())}) == 1


def test_the_sheet_shows_boxes_in_space(tmp_path, monkeypatch, weights):
    data = streets(2)
    for i in range(2):
        write_image(tmp_path / f"{i}.png", data.image(i))
        calibration(tmp_path / f"{i}.txt", data.projection(i))
    drawn = []

    def draw(image, found, **options):
        drawn.append(found)
        return draw_boxes_3d(image, found, **options)

    monkeypatch.setattr("poseglass.drawing.sheet.draw_boxes_3d", draw)
    words = ("predict", tmp_path / "0.png", tmp_path / "1.png", "--weights", weights, "--no-images", "--sheet")
    assert run(monkeypatch, *words, "--out", tmp_path / "out") == 0
    assert pg.read_image(tmp_path / "out" / "sheet.jpg").shape[1] < 4 * 340  # tiles are not enlarged
    poses = json.loads((tmp_path / "out" / "poses.json").read_text())
    assert len(drawn) == 2
    for i, found in enumerate(drawn):
        own = [pose for pose in poses if pose["file_name"].endswith(f"{i}.png")]
        np.testing.assert_allclose(found.box_3d[:, :3], [pose["box_3d"]["center_mm"] for pose in own], rtol=1e-6)
        assert [CLASSES[label] for label in found.label] == [pose["category"] for pose in own]
        scale = 320 / data.image(i).shape[1]  # the projection is that of the tile
        assert found.projection[0, 0, 0] == pytest.approx(scale * data.projection(i)[0, 0], rel=1e-2)
    dropped = [{key: value for key, value in pose.items() if key != "box_3d" or i} for i, pose in enumerate(own)]
    again = people_of(BOXES, dropped, projection=data.projection(1))
    assert np.isnan(again.box_3d[0]).all()
    np.testing.assert_allclose(again.box_3d[1:], drawn[1].box_3d[1:])
    assert people_of(BOXES, own).box_3d is None


def test_other_weights_take_no_calibration(tmp_path, monkeypatch, capsys, street):
    given = calibration(tmp_path / "camera.txt", street[1])
    words = ("predict", street[0], "--calibration", given, "--out", tmp_path / "out")
    assert run(monkeypatch, *words) != 0
    assert "--calibration is for weights that find boxes in space" in " ".join(capsys.readouterr().err.split())


def test_a_detector_of_boxes_in_space_comes_before_no_other_weights(tmp_path, monkeypatch, capsys, weights, street):
    file, projection = street
    words = ("predict", file, "--detector", weights, "--out", tmp_path / "out")
    for more in ((), ("--calibration", calibration(tmp_path / "camera.txt", projection))):
        assert run(monkeypatch, *words, *more) != 0
        said = " ".join(capsys.readouterr().err.split())
        assert "streets.safetensors finds boxes in space, but hg2-light-lspet takes boxes in the image. Give" in said
    assert not (tmp_path / "out").exists()
    with pytest.raises(
        ValueError, match=r"TwoStageEstimator.detector must find boxes in images, but .* finds boxes in"
    ):
        pg.load(detector=str(weights))


def test_a_file_that_is_not_there(tmp_path, monkeypatch, capsys, weights, street):
    words = (
        "predict",
        street[0],
        "--weights",
        weights,
        "--calibration",
        tmp_path / "no.txt",
        "--out",
        tmp_path / "out",
    )
    assert run(monkeypatch, *words) != 0
    assert "No such calibration" in " ".join(capsys.readouterr().err.split())


def test_an_estimator_asks_for_the_calibration(weights, street):
    finder = load_detector(str(weights))
    assert isinstance(finder, OneStageEstimator)
    assert finder.finds_boxes_3d
    image = pg.read_image(street[0])
    with pytest.raises(
        ValueError, match=r"of each image must be known: a .* to `poseglass predict` with --calibration"
    ):
        finder(image)
    with pytest.raises(ValueError, match=r"projection must be a projection of 3 rows and 4 columns"):
        finder(image, projection=np.eye(3))
    found = finder(image, projection=street[1])
    assert found.projection.shape == (len(found), 3, 4)
    np.testing.assert_allclose(lift(observe(found.box_3d, street[1]), street[1]), found.box_3d, rtol=1e-4, atol=0.05)
    again = finder(image, found.box_xyxy[:2], projection=street[1])
    np.testing.assert_allclose(again.box_3d, found.box_3d[:2])
    double = street[1].copy()
    double[:2] *= 2  # a camera of twice the focal length, whose picture is the same: everything is twice as far
    np.testing.assert_allclose(finder(image, projection=double).box_3d[:, 2], 2 * found.box_3d[:, 2], rtol=1e-3)


def test_several_scales_and_evaluation(weights):
    data = streets(3)
    finder = load_detector(str(weights), min_box_score=0.01)
    result = evaluate_found(finder, data, [KittiAp(least_height_px=(16, 10, 10)), BoxAp()], classes=CLASSES)
    assert 0 <= result.results["AP40_3d_moderate"] <= 1
    scaled = load_detector(str(weights), min_box_score=0.01, scales=(0.5, 1.0))
    found = scaled(data.image(0), projection=data.projection(0))
    assert np.isfinite(found.box_3d).all()


def test_evaluation_names_an_image_without_a_calibration(tmp_path, weights):
    write_coco(streets(2), tmp_path / "plain.json", write_images=True)
    data = coco(tmp_path / "plain.json", boxes_only=True)
    says = r"of each image must be known, but these data have none for .*\. Evaluate on data that have them, such as"
    with pytest.raises(ValueError, match=says):
        evaluate_found(load_detector(str(weights)), data, [BoxAp()])


def test_a_file_of_whole_images_has_no_place_for_a_calibration(weights):
    with pytest.raises(CheckpointError, match=r"has no place for it. Export them without --whole-image"):
        exportable(weights, whole_image=True)
    assert "observed_3d" in exportable(weights).outputs


def test_an_exported_graph_observes_the_same(weights):
    work = exportable(weights)
    program = TorchTarget().convert(work)
    views = torch.randint(0, 256, (1, 64, 192, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    inputs = views, torch.eye(2, 3)[None]  # the view is the image
    with torch.inference_mode():
        expected = dict(zip(work.outputs, work.reference(*inputs), strict=True))
        found = dict(zip(work.outputs, program.module()(*inputs), strict=True))
    assert len(expected["observed_3d"][0]) == 12
    torch.testing.assert_close(found["observed_3d"], expected["observed_3d"], rtol=1e-3, atol=1e-3)


def test_a_text_file_beside_an_image_that_is_no_calibration_is_named_and_not_used(tmp_path):
    image = tmp_path / "a.png"
    image.write_bytes(b"")
    (tmp_path / "a.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    given, notes = with_calibrations([GivenImage(image, 1, None)], None)
    assert given[0].projection is None
    assert len(notes) == 1
    assert notes[0].startswith("A text file beside an image is no calibration and not used. ")
    assert "a.txt" in notes[0]
    with pytest.raises(ValueError, match=r"a\.txt"):
        with_calibrations([GivenImage(image, 1, None)], tmp_path)
