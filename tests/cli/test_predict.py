"""``poseglass predict``: which images are read, what they are called in the results, and what is said."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools.coco import COCO
from rich.console import Console

import poseglass as pg
from poseglass import cli
from poseglass.cli import images as images_module
from poseglass.cli.poses_file import coco_chunks, noun_of
from poseglass.cli.screen import in_commands
from poseglass.cli.write_poses import write_poses
from poseglass.core.card import WeightCard
from poseglass.core.image import read_image, write_image
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17, LSP14
from poseglass.estimators.weights_file import save_weights
from poseglass.networks import StackedHourglass
from poseglass.readers import coco
from poseglass.synthetic.people import synthetic_people

pytestmark = pytest.mark.usefixtures("no_detector")


def run(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["poseglass", *map(str, words)])
    monkeypatch.delenv("COLUMNS", raising=False)
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


def poses(out: Path) -> list[dict]:
    return json.loads((out / "poses.json").read_text())


@pytest.fixture
def numbered(tmp_path):
    """Three images named 0001.png to 0003.png, whose labels and detections count them 0, 1, 2."""
    data = synthetic_people(3, seed=3, size_wh=(96, 96))
    names = [f"000{i + 1}.png" for i in range(3)]
    (tmp_path / "images").mkdir()
    images, annotations, found = [], [], []
    for i, name in enumerate(names):
        write_image(tmp_path / "images" / name, data.image(i))
        people = data.instances(i)
        x0, y0, x1, y1 = (float(v) for v in people.box_xyxy[0])
        box = [x0, y0, x1 - x0, y1 - y0]
        flat = [v for (x, y) in people.xy[0].tolist() for v in (x, y, 2)]
        images.append({"id": i, "file_name": name, "width": 96, "height": 96})
        annotations.append({"id": i + 1, "image_id": i, "category_id": 1, "iscrowd": 0, "keypoints": flat,
                            "num_keypoints": len(people.skeleton), "bbox": box, "area": box[2] * box[3]})  # fmt: skip
        found.append({"image_id": i, "file_name": name, "category_id": 1, "bbox": box, "score": 0.9})
    skeleton = data.skeleton
    category = {"id": 1, "name": "person", "keypoints": list(skeleton.keypoints), "skeleton": []}
    labels = {"images": images, "annotations": annotations, "categories": [category]}
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    (tmp_path / "found.json").write_text(json.dumps(found))
    return tmp_path


def changed(path: Path, change) -> Path:
    data = json.loads(path.read_text())
    data = change(data) or data
    path.write_text(json.dumps(data))
    return path


@pytest.mark.parametrize("boxes", ["found.json", "labels.json"])
def test_an_image_keeps_the_id_that_its_record_has(monkeypatch, numbered, tiny_weights, boxes, capsys):
    words = ("--weights", tiny_weights, "--out", numbered / "out")
    assert run(monkeypatch, "predict", numbered / "images", "--boxes", numbered / boxes, *words) == 0
    assert [(p["image_id"], Path(p["file_name"]).name) for p in poses(numbered / "out")] == [
        (0, "0001.png"), (1, "0002.png"), (2, "0003.png"),
    ]  # fmt: skip
    assert "image_id" not in capsys.readouterr().out


def test_ids_may_be_strings(monkeypatch, numbered, tiny_weights):
    def as_strings(data):
        for record in data:
            record["image_id"] = f"frame_{record['image_id']}"

    changed(numbered / "found.json", as_strings)
    words = ("--boxes", numbered / "found.json", "--weights", tiny_weights, "--out", numbered / "out")
    assert run(monkeypatch, "predict", numbered / "images", *words) == 0
    assert [p["image_id"] for p in poses(numbered / "out")] == ["frame_0", "frame_1", "frame_2"]
    document = json.loads((numbered / "out/poses_coco.json").read_text())
    assert [image["id"] for image in document["images"]] == ["frame_0", "frame_1", "frame_2"]


def test_results_meet_their_labels_again(monkeypatch, numbered, capsys):
    """With weights of these labels' keypoints: by our own protocol, and by pycocotools."""
    data = json.loads((numbered / "labels.json").read_text())
    names = data["categories"][0]["keypoints"]
    torch.manual_seed(0)
    network = StackedHourglass(len(names), num_stacks=1, width=16, depth=2)
    table = {"name": "stacked_hourglass", "num_keypoints": len(names), "num_stacks": 1, "width": 16, "depth": 2}
    skeleton = Skeleton("these", tuple(names), sigmas=(0.05,) * len(names))
    card = WeightCard("tiny", table, {"name": "heatmap"}, skeleton, InputSpec((64, 64), 1.25))
    save_weights(numbered / "w.safetensors", network.state_dict(), card)
    words = ("--weights", numbered / "w.safetensors")
    given = ("--boxes", numbered / "found.json", "--out", numbered / "out")
    assert run(monkeypatch, "predict", numbered / "images", *given, *words) == 0
    truth = COCO(str(numbered / "labels.json"))
    results = truth.loadRes(str(numbered / "out/poses.json"))
    for record in poses(numbered / "out"):
        (mine,) = results.imgToAnns[record["image_id"]]
        (label,) = truth.imgToAnns[record["image_id"]]
        assert mine["bbox"] == pytest.approx(label["bbox"], abs=0.01)
    changed(numbered / "labels.json", lambda d: d["categories"][0].update(sigmas=[0.05] * len(names)))
    again = ("evaluate", numbered / "labels.json", "--protocol", "coco", "--detections", numbered / "out/poses.json")
    assert run(monkeypatch, *again, *words, "--no-flip-test", "--json", numbered / "true.json") == 0, (
        capsys.readouterr()
    )
    assert "AP" in json.loads((numbered / "true.json").read_text())["results"]


def test_poses_are_written_with_names_for_other_programs(monkeypatch, numbered, tiny_weights):
    words = ("--boxes", numbered / "found.json", "--weights", tiny_weights, "--out", numbered / "out")
    assert run(monkeypatch, "predict", numbered / "images", *words) == 0
    data = coco(numbered / "out/poses_coco.json")
    assert data.skeleton.keypoints == LSP14.keypoints
    assert data.image_ids == (0, 1, 2)
    np.testing.assert_array_equal(data.image(1), read_image(numbered / "images/0002.png"))
    record = poses(numbered / "out")[1]
    np.testing.assert_allclose(data.instances(1).xy[0], np.reshape(record["keypoints"], (-1, 3))[:, :2], atol=1e-3)
    assert set(record["keypoints"][2::3]) == {2}
    assert len(record["keypoint_scores"]) == 14
    assert "whole_image" not in record
    category = json.loads((numbered / "out/poses_coco.json").read_text())["categories"][0]
    assert (category["name"], len(category["skeleton"])) == ("person", len(LSP14.bones))


@pytest.mark.parametrize("pairs", [None, (), (("a", "b"),)])
def test_flip_pairs_of_the_skeleton_are_written(tmp_path, pairs):
    skeleton = Skeleton("toy", ("a", "b", "tip"), flip_pairs=pairs)
    image = {"id": 1, "file_name": "a.png", "width": 9, "height": 9}
    record = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 5, 5], "score": 1, "keypoints": [1, 2, 2] * 3}
    chunks = coco_chunks(skeleton, lambda: [(image, [record])], tmp_path)
    (tmp_path / "poses_coco.json").write_bytes(b"".join(chunks))
    assert coco(tmp_path / "poses_coco.json").skeleton.flip_pairs == pairs


def test_a_guess_of_an_id_is_said(monkeypatch, numbered, tiny_weights, capsys):
    words = ("--weights", tiny_weights, "--out", numbered / "out")
    assert run(monkeypatch, "predict", numbered / "images", *words) == 0
    assert "image_id in poses.json is the number in the image's name: 0001.png is 1" in capsys.readouterr().out

    def unnamed(data):
        for record in data:
            del record["file_name"]

    changed(numbered / "found.json", unnamed)
    assert run(monkeypatch, "predict", numbered / "images", "--boxes", numbered / "found.json", *words) == 0
    said = capsys.readouterr().out
    assert "has no file names for 2 of the images: the number in the image's name was used" in said
    assert "(0001.png is 1, 0002.png is 2)" in said
    assert "1 of 3 boxes belong to other images" in said


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[1].update(image_id=0), "gives the image_id 0 to both '0001.png' and '0002.png'"),
        (lambda d: d[1].update(file_name="0001.png"), "gives '0001.png' two image ids, 0 and 1"),
        (lambda d: d[1].update(image_id=None), "'image_id' must be a whole number or a string, got None"),
        (lambda d: [r.update(category_id=7) for r in d], "none of 3 boxes is of the category of people (1)"),
        (lambda d: {"boxes": d}, "holds no boxes: expected a list of results"),
    ],
)
def test_contradictions_in_a_file_of_boxes(monkeypatch, numbered, tiny_weights, capsys, change, message):
    def applied(data):
        got = change(data)
        return got if isinstance(got, dict) else None

    changed(numbered / "found.json", applied)
    words = ("--boxes", numbered / "found.json", "--weights", tiny_weights, "--out", numbered / "out")
    assert run(monkeypatch, "predict", numbered / "images", *words) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_images_of_one_name_are_told_apart_by_their_folders(monkeypatch, numbered, tiny_weights, capsys):
    (numbered / "b").mkdir()
    (numbered / "b/0001.png").write_bytes((numbered / "images/0002.png").read_bytes())
    record = json.loads((numbered / "found.json").read_text())[0]
    found = [record | {"file_name": "images/0001.png"}, record | {"file_name": "b\\0001.png", "image_id": 9}]
    (numbered / "found.json").write_text(json.dumps(found))
    words = ("--boxes", numbered / "found.json", "--weights", tiny_weights, "--out", numbered / "out")
    both = (numbered / "images/0001.png", numbered / "b/0001.png")
    assert run(monkeypatch, "predict", *both, *words) == 0
    assert [(p["image_id"], Path(p["file_name"]).parent.name) for p in poses(numbered / "out")] == [
        (0, "images"),
        (9, "b"),
    ]
    (numbered / "c").mkdir()
    (numbered / "c/0001.png").write_bytes(both[0].read_bytes())
    assert run(monkeypatch, "predict", numbered / "c/0001.png", *words) == 2
    assert "has boxes for images/0001.png, b/0001.png, and" in capsys.readouterr().err


def test_labels_may_hold_crowds_and_boxes_without_area(monkeypatch, numbered, tiny_weights, capsys):
    def spoil(data):
        data["annotations"][0]["iscrowd"] = 1
        data["annotations"][1]["bbox"] = [3, 3, 0, 0]

    changed(numbered / "labels.json", spoil)
    words = ("--boxes", numbered / "labels.json", "--weights", tiny_weights, "--out", numbered / "out")
    assert run(monkeypatch, "predict", numbered / "images", *words) == 0
    said = capsys.readouterr().out
    assert "1 box of crowds excluded" in said
    assert "1 box without an area excluded" in said
    assert [p["image_id"] for p in poses(numbered / "out")] == [2]


# --- what lies in a folder -----------------------------------------------------------------------------------------


def test_a_folder_is_read_by_content_and_the_rest_is_named(monkeypatch, tmp_path, tiny_weights, capsys):
    image = np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8)
    write_image(tmp_path / "a.jpg", image)
    jpeg = (tmp_path / "a.jpg").read_bytes()
    for name in ("b.jfif", "no_suffix", "d.png"):
        (tmp_path / name).write_bytes(jpeg)
    (tmp_path / "c.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400))
    (tmp_path / "cut.jpg").write_bytes(jpeg[:300])
    (tmp_path / "notes.txt").write_text("notes")
    out = tmp_path.parent / "folder_out"
    words = ("--weights", tiny_weights, "--out", out)
    assert run(monkeypatch, "predict", tmp_path, *words) == 1
    said, error = capsys.readouterr()
    assert sorted(Path(p["file_name"]).name for p in poses(out)) == ["a.jpg", "b.jfif", "d.png", "no_suffix"]
    assert "c.heic is a HEIC image. Convert it to JPEG or PNG first" in said
    assert "1 file is not an image: notes.txt." in said
    assert said.splitlines()[-1].startswith("Processed 4 of 5 images with 4 poses; 1 could not be processed")
    assert "cut.jpg is a damaged or truncated image" in error
    assert run(monkeypatch, "predict", tmp_path / "a.jpg", tmp_path / "cut.jpg", *words) == 1
    assert "cut.jpg is a damaged or truncated image" in capsys.readouterr().err
    assert run(monkeypatch, "predict", tmp_path / "c.heic", *words) == 2
    assert "it is a HEIC image. Convert it" in capsys.readouterr().err
    assert run(monkeypatch, "predict", tmp_path, tmp_path / "cut.jpg", *words) == 1
    captured = capsys.readouterr()
    assert "Given twice, processed once: " in captured.out
    assert "cut.jpg is a damaged" in captured.err


def test_a_folder_with_nothing_to_read(monkeypatch, tmp_path, tiny_weights, capsys):
    (tmp_path / "c.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(400))
    words = ("predict", tmp_path, "--weights", tiny_weights, "--out", tmp_path / "out")
    assert run(monkeypatch, *words) == 2
    assert "holds no image that can be read" in (said := capsys.readouterr().err)
    assert "c.heic is a HEIC image" in said
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    assert run(monkeypatch, *words) == 2
    assert "cut.jpg is a damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- values of more than 8 bits ------------------------------------------------------------------------------------


def test_a_camera_of_12_bits(monkeypatch, tmp_path, tiny_weights, capsys):
    """One white for all frames, found once and said once; --white sets another."""
    ramp = np.tile(np.linspace(0, 4095, 96).astype(np.uint16), (96, 1))
    (tmp_path / "frames").mkdir()
    for i, share in enumerate((0.2, 1.0, 0.5)):
        Image.fromarray((ramp * share).astype(np.uint16)).save(tmp_path / f"frames/{i}.png")
    words = ("predict", tmp_path / "frames", "--weights", tiny_weights, "--out", tmp_path / "out", "--min-score", "1")
    assert run(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert said.count("16-bit values") == 1
    assert "The 16-bit values of 0.png, 1.png, 2.png were read as 12-bit ones: 4,095 is white" in said
    assert "Set another with --white." in said
    brightest = [int(read_image(tmp_path / f"out/{i}.png").max()) for i in range(3)]
    assert brightest == [round(255 * int(4095 * share) / 4095) for share in (0.2, 1.0, 0.5)]
    assert run(monkeypatch, *words, "--white", "65535") == 0
    assert "were read as" not in (said := capsys.readouterr().out)
    assert "Much darker than white: 0 (up to 819 of 65,535)" in said
    assert int(read_image(tmp_path / "out/1.png").max()) == 16
    assert run(monkeypatch, *words, "--white", "1000") == 0
    assert "Values above white were clipped to white: 1 (" in capsys.readouterr().out
    assert run(monkeypatch, *words, "--white", "0") == 2
    assert "white level must be a number above 0" in capsys.readouterr().err


def test_what_is_no_brightness_is_said(monkeypatch, tmp_path, tiny_weights, capsys):
    values = np.random.default_rng(0).uniform(0, 1, (40, 40)).astype(np.float32)
    values[0, :3] = np.nan, np.inf, -0.5
    Image.fromarray(values).save(tmp_path / "f.tif")
    words = ("predict", tmp_path / "f.tif", "--weights", tiny_weights, "--out", tmp_path / "out")
    assert run(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    assert "Values below 0 were clipped to black: f (1)." in said
    assert "NaN values were set to black, infinite ones to white: f (2)." in said


# --- words ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("then pass skeleton= and category=.",
         "then set skeleton and category (in the data table of a recipe, or --set data.skeleton=... "
         "--set data.category=...)."),
        ("Mend the file, or pass bad='drop' to leave it out.",
         "Mend the file, or set bad (in the data table of a recipe, or --set data.bad=drop) to leave it out."),
        ("Pass view='observer'.", "Set view (in the data table of a recipe, or --set data.view=observer)."),
        ("Pass --images with the folder of the images.", "Pass --images with the folder of the images."),
    ],
)  # fmt: skip
def test_arguments_are_called_by_their_options_in_commands(monkeypatch, capsys, said, shown):
    assert in_commands(said) == shown
    monkeypatch.setattr(cli, "app_of", lambda names: (_ for _ in ()).throw(ValueError(said)))
    assert run(monkeypatch) == 2
    assert shown in " ".join(capsys.readouterr().err.split())


# --- the table -----------------------------------------------------------------------------------------------------


def test_a_doubtful_pose_is_marked_in_its_row_and_in_the_files(monkeypatch, tmp_path, tiny_weights, capsys):
    write_image(tmp_path / "a.png", np.zeros((40, 40, 3), np.uint8))
    words = ("predict", tmp_path / "a.png", "--weights", tiny_weights, "--out", tmp_path / "out")
    assert run(monkeypatch, *words) == 0
    said = capsys.readouterr().out
    (row,) = [line for line in said.splitlines() if " of 14" in line]
    assert row.split()[1] == "whole?"
    assert "Poses marked 'whole?' have a low score (a)" in said
    assert poses(tmp_path / "out")[0]["doubtful"] is True
    assert poses(tmp_path / "out")[0]["whole_image"] is True
    assert json.loads((tmp_path / "out/poses_coco.json").read_text())["annotations"][0]["doubtful"] is True


def test_lines_are_not_cut_in_a_pipe(monkeypatch, tmp_path, tiny_weights, capsys):
    name = "a_picture_whose_name_is_so_long_that_it_alone_would_fill_the_line_of_a_terminal"
    write_image(tmp_path / f"{name}.png", np.zeros((40, 40, 3), np.uint8))
    words = ("predict", tmp_path / f"{name}.png", "--weights", tiny_weights, "--out", tmp_path / "out")
    assert run(monkeypatch, *words) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if " of 14" in line]
    assert row.split()[0] == name


def test_what_is_no_person_is_not_called_one(tmp_path, tiny_weights, capsys):
    assert noun_of(COCO17) == noun_of(LSP14) == "person"
    houses = Skeleton("house", tuple(f"corner_{i}" for i in range(14)))
    assert noun_of(houses) == "instance"
    network = StackedHourglass(14, num_stacks=1, width=16, depth=2)
    table = {"name": "stacked_hourglass", "num_keypoints": 14, "num_stacks": 1, "width": 16, "depth": 2}
    card = WeightCard("houses", table, {"name": "heatmap"}, houses, InputSpec((64, 64), 1.25))
    save_weights(tmp_path / "h.safetensors", network.state_dict(), card)
    item = images_module.NamedImage("a", "", np.zeros((40, 40, 3), np.uint8), None, 0)
    console = Console(width=1000)
    assert write_poses(pg.load(tmp_path / "h.safetensors"), [item], tmp_path / "out", console) == []
    said = capsys.readouterr().out
    assert "treated as one instance filling it" in said
    assert "person" not in said.replace(str(tmp_path), "")
    category = json.loads((tmp_path / "out/poses_coco.json").read_text())["categories"][0]
    assert (category["name"], category["keypoints"][3]) == ("instance", "corner_3")


@pytest.mark.shared
@pytest.mark.parametrize("boxes", ["det.json", "labels.json"])
def test_the_case_of_ids(monkeypatch, tmp_path, shared, boxes):
    case = shared / "cases/image-ids"
    assert run(monkeypatch, "predict", case / "images", "--boxes", case / boxes, "--out", tmp_path) == 0
    labels = json.loads((case / "labels.json").read_text())["annotations"]
    found = {pose["image_id"]: np.reshape(pose["keypoints"], (-1, 3)) for pose in poses(tmp_path)}
    assert len(found) == len(labels) == 3
    for label in labels:
        points = np.reshape(label["keypoints"], (-1, 3))
        apart = np.linalg.norm(found[label["image_id"]][:, :2] - points[:, :2], axis=1)
        assert np.median(apart) < 0.15 * label["area"] ** 0.5  # of another image's person they are half a person away


def test_names_and_folders_that_are_odd(monkeypatch, tmp_path, tiny_weights, capsys):
    for name in ("br[ack]et", "[/x]", "plain"):
        (tmp_path / "in" / f"{name}.png").parent.mkdir(parents=True, exist_ok=True)
        image_file(tmp_path / "in" / f"{name}.png")
    words = ("predict", tmp_path / "in", "--weights", tiny_weights)
    assert run(monkeypatch, *words, "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "br[ack]et" in said
    (tmp_path / "file").write_text("")
    assert run(monkeypatch, *words, "--out", tmp_path / "file") == 2
    assert "--out must be a folder, but" in capsys.readouterr().err
    boxes = [{"image_id": 1, "file_name": "plain.png", "category_id": 1, "bbox": [1, 1, 20, 20], "score": 90}]
    (tmp_path / "poses.json").write_text(json.dumps(boxes))
    plain = ("predict", tmp_path / "in" / "plain.png", "--weights", tiny_weights, "--boxes", tmp_path / "poses.json")
    assert run(monkeypatch, *plain, "--out", tmp_path / "elsewhere") == 2
    assert "'score' must be a number from 0 to 1" in capsys.readouterr().err
    assert run(monkeypatch, *plain, "--out", tmp_path) == 2
    assert "The output would overwrite --boxes" in capsys.readouterr().err
    for option in ("--min-score", "--min-box-score"):
        assert run(monkeypatch, *plain, option, "30") == 2


def test_only_the_first_frame_is_read_and_that_is_said(monkeypatch, tmp_path, tiny_weights, capsys):
    frames = [Image.fromarray(np.full((32, 32, 3), value, np.uint8)) for value in (0, 100, 200)]
    for name in ("a.gif", "b.tif", "c.webp", "d.png"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
    image_file(tmp_path / "still.png")
    words = ("predict", tmp_path, "--weights", tiny_weights)
    assert run(monkeypatch, *words, "--out", tmp_path / "out") == 0
    said = capsys.readouterr().out
    assert "Only the first frame or page was read of images that have several: a (3), b (3), c (3), d (3)." in said


def test_boxes_of_another_category_are_named(monkeypatch, tmp_path, tiny_weights, capsys):
    image_file(tmp_path / "a.png")
    labels = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 5, "bbox": [1, 1, 20, 20]}],
        "categories": [{"id": 5, "name": "horse"}],
    }
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    words = ("predict", tmp_path / "a.png", "--weights", tiny_weights, "--boxes", tmp_path / "labels.json")
    assert run(monkeypatch, *words, "--out", tmp_path / "out") == 0
    assert "its boxes are of category 'horse'" in capsys.readouterr().out


def image_file(path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(path)
