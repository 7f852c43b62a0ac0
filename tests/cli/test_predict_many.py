"""``poseglass predict`` without boxes, and on many images: detectors, resuming, odd images, bounded memory."""

import json
import shutil
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import poseglass as pg
from poseglass import cli
from poseglass.cli import images as images_module
from poseglass.cli import write_poses as writing
from poseglass.cli.images import NamedImage
from poseglass.cli.journal import Journal
from poseglass.core.image import TooLargeError, write_image
from poseglass.core.skeletons import COCO17
from poseglass.estimators.weights_file import save_weights
from poseglass.networks import NETWORKS
from poseglass.readers import coco
from poseglass.readers.coco_write import write_coco
from poseglass.synthetic.people import synthetic_people

pytestmark = pytest.mark.usefixtures("no_detector")

PEOPLE = pg.Skeleton("people", ())


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


def one_stage(path: Path, skeleton: pg.Skeleton) -> Path:
    """Write weights of a very small CenterNet that finds a hundred people wherever it looks."""
    torch.manual_seed(0)
    table = {
        "name": "centernet_hourglass", "num_keypoints": len(skeleton), "num_stacks": 1, "widths": [16, 16],
        "blocks": [1, 1], "head_width": 8,
    }  # fmt: skip
    network = pg.build(NETWORKS, table["name"], **{key: value for key, value in table.items() if key != "name"})
    state = {name: value.clone() for name, value in network.state_dict().items()}
    state["heads.0.outputs.size.last.bias"].fill_(4.0)
    state["heads.0.outputs.center.last.bias"].fill_(0.0)
    codec = {"name": "centernet", "poses": bool(len(skeleton))}
    save_weights(path, state, pg.WeightCard(path.stem, table, codec, skeleton, pg.InputSpec((64, 64))))
    return path


@pytest.fixture(scope="module")
def detector(tmp_path_factory) -> Path:
    return one_stage(tmp_path_factory.mktemp("detector") / "finder.safetensors", PEOPLE)


@pytest.fixture(scope="module")
def everybody(tmp_path_factory) -> Path:
    return one_stage(tmp_path_factory.mktemp("everybody") / "everybody.safetensors", COCO17)


def photos(folder: Path, count: int, size_wh: tuple[int, int] = (48, 40)) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(count):
        pixels = rng.integers(0, 255, (size_wh[1], size_wh[0], 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"photo_{i:05}.bmp")
    return folder


# --- who finds the boxes -------------------------------------------------------------------------------------------


def test_a_detector_finds_the_boxes(monkeypatch, tmp_path, tiny_weights, detector, capsys):
    folder, out = photos(tmp_path / "in", 3), tmp_path / "out"
    words = ("predict", folder, "--weights", tiny_weights, "--out", out, "--detector", detector)
    assert run(monkeypatch, *words, "--detector-score", "0.1") == 0
    said = capsys.readouterr().out
    assert "poses by tiny, boxes by finder" in said
    assert f"The table has the first 60 of {len(poses(out))} poses" in said
    assert said.splitlines()[-1] == f"Processed 3 of 3 images with {len(poses(out))} poses."
    numbers = [record["number"] for record in poses(out) if record["image_id"] == 1]
    assert numbers == list(range(1, len(numbers) + 1))
    for record in poses(out):
        assert 0.1 <= record["box_score"] <= 1
        assert record["score"] == pytest.approx(record["box_score"] * np.mean(record["keypoint_scores"]), abs=1e-3)
        assert "whole_image" not in record
    assert len(coco(out / "poses_coco.json").image_ids) == 3
    few = len(poses(out))
    assert run(monkeypatch, *words, "--detector-score", "1") == 0
    assert "Nobody was found in 3 of 3 images: photo_00000.bmp" in capsys.readouterr().out
    assert poses(out) == []
    assert few > 3


def test_weights_of_a_whole_image_find_everybody(monkeypatch, tmp_path, everybody, detector, capsys):
    folder, out = photos(tmp_path / "in", 2), tmp_path / "out"
    words = ("predict", folder, "--weights", everybody, "--out", out, "--detector-score", "0")
    assert run(monkeypatch, *words) == 0
    assert len(poses(out)[0]["keypoints"]) == 17 * 3
    assert "poses by everybody" in capsys.readouterr().out
    (tmp_path / "plain").mkdir()
    assert run(monkeypatch, "predict", folder, "--weights", detector, "--detector-score", "0", "--out", out) == 0
    said = capsys.readouterr().out
    assert "These weights find boxes without keypoints" in said
    assert poses(out)[0]["keypoints"] == []
    image = folder / "photo_00000.bmp"
    given = ("predict", image, "--weights", everybody, "--box", "1,1,3,3", "--out", out)
    assert run(monkeypatch, *given) == 0
    assert "In 1 of the given boxes these weights found nobody" in capsys.readouterr().out
    for option in (["--whole-image"], ["--detector", detector]):
        assert run(monkeypatch, *words, *option) == 2
        assert f"finds everybody in an image itself. Omit {option[0]}" in capsys.readouterr().err
    assert run(monkeypatch, *words, "--heatmaps") == 2
    assert "--heatmaps shows the maps of one person in a box" in capsys.readouterr().err


def test_whole_images_are_looked_at_at_several_scales(monkeypatch, tmp_path, tiny_weights, detector, everybody, capsys):
    folder, out = photos(tmp_path / "in", 2), tmp_path / "out"
    least = ("--detector-score", "0")
    kinds = {"everybody": ("--weights", everybody), "found": ("--weights", tiny_weights, "--detector", detector)}
    for kind, weights in kinds.items():
        words = ("predict", folder, *weights, *least, "--out", out / kind)
        assert run(monkeypatch, *words) == 0
        boxes = {tuple(record["bbox"]) for record in poses(out / kind)}
        hint = "If some are missing: --scales 0.5,1,1.5 looks at each image at three sizes and may find them"
        assert hint in " ".join(capsys.readouterr().out.split())
        assert run(monkeypatch, *words, "--scales", "1") == 0
        assert {tuple(record["bbox"]) for record in poses(out / kind)} == boxes
        assert "If some are missing" not in capsys.readouterr().out
        assert run(monkeypatch, *words, "--scales", "0.5, 1,2") == 0
        assert {tuple(record["bbox"]) for record in poses(out / kind)} != boxes
        assert "If some are missing" not in capsys.readouterr().out
        assert run(monkeypatch, *words, "--resume") == 2
        assert "--scales was [0.5, 1.0, 2.0] and is not set" in " ".join(capsys.readouterr().err.split())
    image = folder / "photo_00000.bmp"
    found = pg.load_detector(everybody, min_box_score=0.0, scales=(0.5, 1.0, 2.0))(np.asarray(Image.open(image)))
    first = [record["bbox"][:2] for record in poses(out / "everybody") if record["image_id"] == 0]
    np.testing.assert_allclose(first, found.box_xyxy[:, :2], atol=0.006)


def test_commands_that_need_weights_of_poses_in_a_box_say_so(monkeypatch, tmp_path, everybody, capsys):
    write_coco(synthetic_people(2, seed=3, size_wh=(64, 64)), tmp_path / "labels.json", write_images=True)
    assert run(monkeypatch, "evaluate", tmp_path / "labels.json", "--weights", everybody) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "'everybody' find any number of instances in a whole image, and take no boxes. Expected weights" in said
    words = ("demo", "--no-train", "--out", tmp_path / "demo")
    assert run(monkeypatch, *words, "--weights", everybody) == 0  # there are no maps of one person to show
    assert {path.name for path in (tmp_path / "demo").glob("*.png")} == {"surfers.png", "grace_hopper.png"}


def test_a_default_detector_is_used_for_people(monkeypatch, tmp_path, tiny_weights, detector, capsys):
    folder, out = photos(tmp_path / "in", 1), tmp_path / "out"
    monkeypatch.setattr("poseglass.estimators.load.DEFAULT_DETECTOR", str(detector))
    words = ("predict", folder, "--weights", tiny_weights, "--out", out)
    assert run(monkeypatch, *words, "--detector-score", "0.1") == 0
    assert len(poses(out)) > 1
    assert run(monkeypatch, *words, "--whole-image") == 0
    assert [record["whole_image"] for record in poses(out)] == [True]
    capsys.readouterr()
    assert run(monkeypatch, *words, "--box", "1,1,30,30", "--detector", detector) == 0
    assert [record["bbox"] for record in poses(out)] == [[1, 1, 29, 29]]
    assert f"--detector {detector} is not used, because boxes are given." in capsys.readouterr().out
    state, card = pg.estimators.weights_file.read_weights(tiny_weights)
    house = pg.Skeleton("house", tuple(f"corner_{i}" for i in range(14)))
    save_weights(tmp_path / "house.safetensors", state, pg.WeightCard("h", card.network, card.codec, house, card.input))
    assert run(monkeypatch, "predict", folder, "--weights", tmp_path / "house.safetensors", "--out", out) == 0
    assert "has keypoints of something else, so it is not used" in capsys.readouterr().out
    assert len(poses(out)) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--whole-image", "--box", "1,1,9,9"], "--whole-image looks for no boxes, and --box gives them"),
        (["--whole-image", "--detector", "x"], "--whole-image looks for no boxes, and --detector gives them"),
        (["--detector-score", "0.5"], "--detector-score is for boxes that are found, but none are. Add --detector"),
        (["--min-box-score", "0.5"], "The score of found boxes is --detector-score."),
        (["--detector", "hg2-light-lspet"], "find no boxes"),
        (["--scales", "0.5,1"], "tiny.safetensors finds the keypoints in a box, and no boxes are looked for. Add"),
        (["--scales", "0.5,big"], "--scales must be positive numbers with commas, e.g. --scales 0.5,1,1.5; got '0.5,b"),
        (["--scales", "1,0"], "--scales must be positive numbers"),
        (["--detector", "nowhere"], "No weights 'nowhere'"),
    ],
)
def test_options_that_contradict_each_other(monkeypatch, tmp_path, tiny_weights, capsys, options, message):
    folder = photos(tmp_path / "in", 1)
    words = ("predict", folder, "--weights", tiny_weights, "--out", tmp_path / "out", *options)
    assert run(monkeypatch, *words) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


# --- which images --------------------------------------------------------------------------------------------------


def test_a_list_names_images_relative_to_its_folder(monkeypatch, tmp_path, tiny_weights, capsys):
    folder, out = photos(tmp_path / "in", 3), tmp_path / "out"
    (tmp_path / "list.txt").write_text("in/photo_00002.bmp\n\nin/photo_00000.bmp\n")
    words = ("--weights", tiny_weights, "--out", out)
    assert run(monkeypatch, "predict", "--list", tmp_path / "list.txt", *words) == 0
    assert [Path(record["file_name"]).name for record in poses(out)] == ["photo_00002.bmp", "photo_00000.bmp"]
    assert run(monkeypatch, "predict", folder / "photo_00001.bmp", "--list", tmp_path / "list.txt", *words) == 0
    assert len(poses(out)) == 3
    capsys.readouterr()
    for content, message in (
        (b"in/photo_00000.bmp\ngone.jpg\n", "1 of 2 paths do not exist: "),
        (b"\n", "has no paths"),
        (b"\xff\xd8\xff\xe0", "is not text in UTF-8"),
    ):
        (tmp_path / "bad.txt").write_bytes(content)
        assert run(monkeypatch, "predict", "--list", tmp_path / "bad.txt", *words) == 2
        assert message in capsys.readouterr().err
    (tmp_path / "bad.txt").write_text("gone.jpg")
    assert run(monkeypatch, "predict", "--list", tmp_path / "bad.txt", *words) == 2
    assert "gone.jpg (line 1)" in capsys.readouterr().err
    assert run(monkeypatch, "predict", "--list", tmp_path / "nowhere.txt", *words) == 2
    assert "No such list of images" in capsys.readouterr().err
    assert run(monkeypatch, "predict", *words) == 2
    assert "No images. Give images, folders of images, or --list" in capsys.readouterr().err


def test_a_corrupt_file_among_many_is_named_and_the_rest_is_done(monkeypatch, tmp_path, tiny_weights, capsys):
    folder, out = photos(tmp_path / "in", 5), tmp_path / "out"
    whole = (folder / "photo_00002.bmp").read_bytes()
    (folder / "photo_00002.bmp").write_bytes(whole[:200])
    words = ("predict", folder, "--weights", tiny_weights, "--out", out)
    assert run(monkeypatch, *words) == 1
    said, error = capsys.readouterr()
    assert "photo_00002.bmp" in error
    assert said.splitlines()[-1] == (
        "Processed 4 of 5 images with 4 poses; 1 could not be processed, for the reasons above."
    )
    (folder / "photo_00002.bmp").write_bytes(whole)
    assert run(monkeypatch, *words, "--resume") == 0
    assert "--resume: skipped 4 of 5 images, which are done." in capsys.readouterr().out
    assert [record["image_id"] for record in poses(out)] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("size_wh", [(1, 1), (2, 1), (1, 2), (1, 300), (2, 2), (64, 64)])
@pytest.mark.parametrize("kind", ["whole", "found", "everybody"])
def test_tiny_images_of_one_colour(monkeypatch, tmp_path, tiny_weights, detector, everybody, size_wh, kind):
    (tmp_path / "in").mkdir()
    Image.new("RGB", size_wh, (9, 9, 9)).save(tmp_path / "in" / "a.png")
    Image.new("RGB", size_wh, (255, 255, 255)).save(tmp_path / "in" / "b.png")
    words = {
        "whole": ("--weights", tiny_weights),
        "found": ("--weights", tiny_weights, "--detector", detector, "--detector-score", "0"),
        "everybody": ("--weights", everybody, "--detector-score", "0"),
    }[kind]
    assert run(monkeypatch, "predict", tmp_path / "in", *words, "--names", "--out", tmp_path / "out") == 0
    assert len(json.loads((tmp_path / "out/poses_coco.json").read_text())["images"]) == 2
    assert all(min(record["bbox"][2:]) > 0.5 for record in poses(tmp_path / "out"))
    read = coco(tmp_path / "out/poses_coco.json")  # raises for a box outside its image
    assert (len(read.image_ids), read.num_instances) == (2, len(poses(tmp_path / "out")))


class Fixed:
    """A detector that finds the same boxes in each image."""

    skeleton = PEOPLE

    def __init__(self, box_xyxy: np.ndarray) -> None:
        self.box_xyxy = box_xyxy

    def __call__(self, image: np.ndarray, boxes: object = None) -> pg.Instances:
        n = len(self.box_xyxy)
        return pg.Instances(PEOPLE, np.zeros((n, 0, 2)), np.zeros((n, 0)), self.box_xyxy, np.full(n, 0.5))

    def stream(self, frames, *, causal: bool = False):
        return (self(frame) for frame in frames)


@pytest.mark.parametrize("count", [0, 1, 1000])
def test_any_number_of_people_of_any_size(tmp_path, tiny_weights, count):
    rng = np.random.default_rng(0)
    corner = rng.uniform(-20, 100, (count, 2))
    box = np.concatenate([corner, corner + rng.choice([1.0, 0.01, 30.0], (count, 1))], 1).astype(np.float32)
    estimator = pg.TwoStageEstimator(Fixed(box), pg.load_top_down(tiny_weights), nms_oks=None)
    items = [NamedImage(f"{i}", "", rng.integers(0, 255, (96, 96, 3), np.uint8), None, i) for i in range(2)]
    out = tmp_path / "out"
    assert writing.write_poses(estimator, items, out, Console(quiet=True)) == []
    inside = ((box[:, 2:] > -0.5) & (box[:, :2] < 95.5)).all(1) & (np.abs(box).max(1, initial=0) > 1.5)
    assert len(poses(out)) == 2 * int((inside & (box[:, 2] > box[:, 0]) & (box[:, 3] > box[:, 1])).sum())
    assert (out / "0.png").exists()
    assert [p.name for p in out.glob("*.jsonl")] == []


# --- files ---------------------------------------------------------------------------------------------------------


def test_which_images_are_written(monkeypatch, tmp_path, tiny_weights, capsys):
    folder = photos(tmp_path / "in", 3)
    words = ("predict", "--weights", tiny_weights, "--out")

    def written(*options: object) -> set[str]:
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert run(monkeypatch, *words, tmp_path / "out", *options) == 0
        return {p.name for p in (tmp_path / "out").iterdir()}

    files = {"poses.json", "poses_coco.json"}
    assert written(folder / "photo_00000.bmp") == files | {"photo_00000.png"}
    capsys.readouterr()
    drawn = {f"photo_0000{i}.png" for i in range(3)}
    assert written(folder) == files | drawn | {"poses_journal.jsonl", "sheet.jpg"}
    assert "sheet.jpg (the first 3 of 3 images)" in capsys.readouterr().out
    assert written(folder, "--no-images") == files | {"poses_journal.jsonl"}
    assert written(folder, "--no-images", "--sheet") == files | {"poses_journal.jsonl", "sheet.jpg"}
    assert "sheet.jpg" not in written(folder, "--no-sheet")
    (tmp_path / "out/sheet.jpg").write_bytes(b"")
    Image.new("RGB", (20, 20)).save(tmp_path / "out/sheet.jpg")
    (tmp_path / "out/photo_00000.png").unlink()
    assert run(monkeypatch, *words, tmp_path / "out", tmp_path / "out/sheet.jpg", folder) == 2
    assert "would overwrite the input image" in capsys.readouterr().err


def test_an_interrupted_run_goes_on(monkeypatch, tmp_path, tiny_weights, everybody, capsys):
    folder, out = photos(tmp_path / "in", 6), tmp_path / "out"
    words = ("predict", folder, "--weights", tiny_weights, "--out", out)
    assert run(monkeypatch, *words) == 0
    expected, document = poses(out), json.loads((out / "poses_coco.json").read_text())
    shutil.rmtree(out)

    real = writing.write_image

    def stopped(path, image):
        if path.name == "photo_00003.png":
            raise KeyboardInterrupt
        real(path, image)

    capsys.readouterr()
    with monkeypatch.context() as patch:
        patch.setattr(writing, "write_image", stopped)
        assert run(monkeypatch, *words) == 130
    said = capsys.readouterr().out
    assert f"Interrupted with 3 of 6 images done, which are kept in {out / 'poses_journal.jsonl'}." in said
    assert not (out / "poses.json").exists()

    assert run(monkeypatch, *words) == 2
    assert "holds an interrupted run with 3 images done. Continue it with --resume" in capsys.readouterr().err
    assert run(monkeypatch, *words, "--resume", "--min-score", "0.5", "--flip-test") == 2
    error = capsys.readouterr().err
    assert "were made with other settings, and would be mixed: --min-score was 0.3 and is 0.5; --flip-test" in error
    assert run(monkeypatch, *words[:3], everybody, *words[4:], "--resume") == 2
    assert "--weights was tiny.safetensors (" in capsys.readouterr().err

    with (out / "poses_journal.jsonl").open("ab") as file:
        file.write(b'{"key": "half a li')  # as a machine that lost power leaves it
    assert run(monkeypatch, *words, "--resume") == 0
    assert "--resume: skipped 3 of 6 images, which are done." in capsys.readouterr().out
    assert poses(out) == expected
    assert json.loads((out / "poses_coco.json").read_text()) == document
    assert {p.name for p in out.glob("*.png")} == {f"photo_0000{i}.png" for i in range(6)}

    # a run that came to its end goes on with new and changed images, and without those that are gone
    shutil.copy(folder / "photo_00000.bmp", folder / "photo_00009.bmp")
    shutil.copy(folder / "photo_00000.bmp", folder / "photo_00001.bmp")
    (folder / "photo_00002.bmp").unlink()
    assert run(monkeypatch, *words, "--resume") == 0
    said = capsys.readouterr().out
    assert "--resume: skipped 4 of 6 images, which are done." in said
    assert "Changed since, and processed again: photo_00001.bmp." in said
    assert "1 images that were done are not among those given, and left out" in said
    found = {Path(record["file_name"]).name: record for record in poses(out)}
    assert list(found) == [f"photo_0000{i}.bmp" for i in (0, 1, 3, 4, 5, 9)]
    assert found["photo_00001.bmp"]["keypoints"] == found["photo_00000.bmp"]["keypoints"]
    assert [record["image_id"] for record in poses(out)] == [0, 1, 2, 3, 4, 5]
    assert run(monkeypatch, *words) == 0  # a new run replaces one that came to its end
    assert run(monkeypatch, *words[:-1], tmp_path / "new", "--resume") == 0
    assert "holds no images that are done; all are processed." in capsys.readouterr().out
    (out / "poses_journal.jsonl").write_text("nonsense")
    assert run(monkeypatch, *words) == 2
    assert "is not a journal of poseglass predict" in capsys.readouterr().err


def test_two_programs_do_not_write_one_journal(tmp_path):
    file = tmp_path / "0.png"
    file.write_bytes(b"0")
    first, second = (Journal.start(tmp_path / "out", {"--weights": "a"}) for _ in range(2))
    first.add(file, "0", {"id": 1}, [])
    with pytest.raises(BlockingIOError, match=r"Another program is writing poses to .*out, and both would mix"):
        second.add(file, "0", {"id": 1}, [])
    first.close(finished=True)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["poses_journal.jsonl"]
    second.add(file, "0", {"id": 1}, [])
    second.close(finished=True)


def test_a_journal_holds_only_places(tmp_path):
    journal = Journal.start(tmp_path / "out", {"--weights": "a"})
    assert not (tmp_path / "out").exists()
    files = [tmp_path / f"{i}.png" for i in range(3)]
    for file in files:
        file.write_bytes(b"x")
        journal.add(file, file.stem, {"id": 1}, [{"number": 1}])
    assert [file.name for file, _, _ in journal.entries(reversed(files))] == ["2.png", "1.png", "0.png"]
    assert journal.has(files[0], "0")
    assert journal.has_other(files[0], "0-2")
    journal.close(finished=False)
    again = Journal.resume(tmp_path / "out", {"--weights": "a"})
    assert (len(again), again.finished) == (3, False)
    again.close(finished=True)
    assert Journal.resume(tmp_path / "out", {"--weights": "a"}).finished


@pytest.mark.slow
def test_ten_thousand_images_in_bounded_memory(monkeypatch, tmp_path, capsys):
    """One file is corrupt. The network is tiny, so this is the time of everything else."""
    (tmp_path / "in").mkdir()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)).save(tmp_path / "0.bmp")
    content = (tmp_path / "0.bmp").read_bytes()
    for i in range(10_000):
        (tmp_path / "in" / f"{i:06}.bmp").write_bytes(content if i != 5000 else content[:100])
    torch.manual_seed(0)
    table = {"name": "stacked_hourglass", "num_keypoints": 14, "num_stacks": 1, "width": 8, "depth": 1}
    card = pg.WeightCard("t", table, {"name": "heatmap"}, pg.core.skeletons.LSP14, pg.InputSpec((32, 32), 1.0))
    save_weights(
        tmp_path / "t.safetensors",
        pg.build(NETWORKS, table["name"], **{key: value for key, value in table.items() if key != "name"}).state_dict(),
        card,
    )

    held, most = set(), [0]
    real = images_module.read_with_levels

    def watched(path, **options):
        image, levels = real(path, **options)
        held.add(id(image))
        weakref.finalize(image, held.discard, id(image))
        most[0] = max(most[0], len(held))
        return image, levels

    monkeypatch.setattr(images_module, "read_with_levels", watched)
    out = tmp_path / "out"
    words = ("predict", tmp_path / "in", "--weights", tmp_path / "t.safetensors", "--out", out, "--no-images")
    assert run(monkeypatch, *words) == 1
    said, error = capsys.readouterr()
    assert "005000.bmp" in error
    assert said.splitlines()[-1].startswith("Processed 9,999 of 10,000 images with 9,999 poses; 1 could not")
    assert len(said) < 20_000
    assert most[0] <= writing.MOST_IMAGES + writing.MOST_AHEAD + writing.WRITERS + 5
    assert len(poses(out)) == 9_999
    assert run(monkeypatch, *words, "--resume") == 1
    assert "--resume: skipped 9,999 of 10,000 images" in capsys.readouterr().out


@pytest.mark.parametrize("line", ["{}", '{"key": 1, "version": "x"}', "[]", '{"key": "a"}'])
def test_a_damaged_line_of_a_journal_ends_it(tmp_path, line):
    file = tmp_path / "0.png"
    file.write_bytes(b"x")
    journal = Journal.start(tmp_path, {"--weights": "a"})
    journal.add(file, "0", {"id": 1}, [])
    journal.close(finished=False)
    with journal.path.open("a") as text:
        text.write(line + "\n")
    assert len(Journal.resume(tmp_path, {"--weights": "a"})) == 1


def test_settings_that_are_none_are_no_journal(tmp_path):
    (tmp_path / "poses_journal.jsonl").write_text('{"settings": []}\n')
    with pytest.raises(ValueError, match="is not a journal of poseglass predict"):
        Journal.resume(tmp_path, {"--weights": "a"})


def test_no_output_replaces_another_input(monkeypatch, tmp_path, tiny_weights, capsys):
    image = np.zeros((20, 20, 3), np.uint8)
    for name in ("a.jpg", "a.png"):
        write_image(tmp_path / name, image)
    before = (tmp_path / "a.png").read_bytes()
    words = ("predict", tmp_path, "--weights", tiny_weights, "--whole-image", "--out", tmp_path)
    assert run(monkeypatch, *words) == 2
    assert "would overwrite the input image" in capsys.readouterr().err
    assert (tmp_path / "a.png").read_bytes() == before


def test_classes_are_written_by_name(monkeypatch, tmp_path):
    weights = one_stage(tmp_path / "everything.safetensors", PEOPLE)
    state, card = pg.estimators.weights_file.read_weights(weights)
    network = pg.build(
        NETWORKS, "centernet_hourglass", **{k: v for k, v in (card.network | {"num_classes": 2}).items() if k != "name"}
    )
    more = network.state_dict() | {k: v for k, v in state.items() if v.shape == network.state_dict()[k].shape}
    card = pg.WeightCard(
        "two", card.network | {"num_classes": 2}, card.codec, PEOPLE, card.input, classes=("cat", "dog")
    )
    save_weights(tmp_path / "two.safetensors", more, card)
    write_image(tmp_path / "a.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))
    out = tmp_path / "out"
    words = (
        "predict",
        tmp_path / "a.png",
        "--weights",
        tmp_path / "two.safetensors",
        "--detector-score",
        "0.01",
        "--out",
        out,
    )
    assert run(monkeypatch, *words) == 0
    seen = {(record["category_id"], record["category"]) for record in poses(out)}
    assert seen == {(1, "cat"), (2, "dog")}
    categories = json.loads((out / "poses_coco.json").read_text())["categories"]
    assert [(c["id"], c["name"]) for c in categories] == [(1, "cat"), (2, "dog")]


def test_parts_are_read_of_an_image_that_is_too_large(tmp_path, monkeypatch, capsys):
    """A TIFF of more pixels than may be decoded at once gives the poses that it gives as an array."""
    image = np.asarray(synthetic_people(1, seed=4, size_wh=(160, 120))[0].image)
    Image.fromarray(image).save(tmp_path / "scan.tif", compression="tiff_lzw")
    words = ("predict", tmp_path / "scan.tif", "--box", "20,10,140,115", "--sheet")
    assert run(monkeypatch, *words, "--out", tmp_path / "whole") == 0

    def refuse(path, **options):
        raise TooLargeError(f"{path} is too large.")

    monkeypatch.setattr(images_module, "read_with_levels", refuse)
    monkeypatch.setattr(writing, "read_with_levels", refuse)
    monkeypatch.setattr(writing, "LARGEST_DRAWN_PX", 64)
    capsys.readouterr()
    assert run(monkeypatch, *words, "--out", tmp_path / "parts") == 0
    assert "too large to draw at full size: scan at 1/3. poses.json is in original pixels." in capsys.readouterr().out
    whole, parts = (np.array(poses(tmp_path / name)[0]["keypoints"]) for name in ("whole", "parts"))
    np.testing.assert_allclose(parts, whole, atol=0.1)
    with Image.open(tmp_path / "parts" / "scan.png") as drawn:
        assert drawn.size == (54, 40)
    Image.fromarray(image).save(tmp_path / "scan.png")
    assert run(monkeypatch, "predict", tmp_path / "scan.png", "--out", tmp_path / "png") != 0
    assert "scan.png is too large to decode at once, and no TIFF" in capsys.readouterr().err


def test_a_large_image_that_cannot_be_read_does_not_stop_the_others(tmp_path, monkeypatch, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    image = np.asarray(synthetic_people(1, seed=4, size_wh=(160, 120))[0].image)
    for name in ("a.png", "c.png"):
        Image.fromarray(image).save(folder / name)
    for name in ("b.tif", "d.tif"):
        Image.fromarray(image).save(folder / name, compression="tiff_deflate", tiffinfo={278: 16})
    data = bytearray((folder / "b.tif").read_bytes())
    data[200:2000] = b"\0" * 1800  # the strips, not the tags at the end
    (folder / "b.tif").write_bytes(data)
    real = images_module.read_with_levels

    def refuse(path, **options):
        if path.suffix == ".tif":
            raise TooLargeError(f"{path} is too large.")
        return real(path, **options)

    monkeypatch.setattr(images_module, "read_with_levels", refuse)
    assert run(monkeypatch, "predict", folder, "--whole-image", "--out", tmp_path / "out", "--no-images") == 1
    said, error = capsys.readouterr()
    assert "b.tif: part 1 of 8 cannot be decoded" in error
    assert "Processed 3 of 4 images" in said
    assert len(poses(tmp_path / "out")) == 3


@pytest.mark.parametrize(("options", "says"), [
    (("--chips", "--scales", "0.5,1"), "--chips looks at each image at several scales, and so does --scales"),
    (("--chips", "--box", "1,1,9,9"), "--chips says how to look for people, but with --box none are looked for"),
    (("--chips", "--whole-image"), "but with --whole-image none are looked for. Omit one of them"),
])  # fmt: skip
def test_chips_contradict_scales_and_boxes(tmp_path, monkeypatch, capsys, options, says):
    write_image(tmp_path / "a.png", np.zeros((40, 40, 3), np.uint8))
    assert run(monkeypatch, "predict", tmp_path / "a.png", "--out", tmp_path / "out", *options) == 2
    assert says in capsys.readouterr().err
