import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from poseglass.core.image import write_image
from poseglass.core.input_spec import InputSpec
from poseglass.core.sample import boxes_complete, classes_of
from poseglass.data import DATASETS
from poseglass.data.composed_scenes import SEEN, ComposedScenes, composed
from poseglass.data.crops import Crops
from poseglass.runs.build import make

COLORS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0))


def photographs(folder: Path, *, visible: int = 2, box: tuple[int, ...] = (24, 16, 30, 60), change=None) -> Path:
    """Write four grey photographs of one coloured block each, with keypoints at its corners and in its middle."""
    images, annotations = [], []
    x, y, w, h = box
    for i, color in enumerate(COLORS, 1):
        image = np.full((96, 80, 3), 120, np.uint8)
        image[y : y + h, x : x + w] = color
        write_image(folder / f"{i}.png", image)
        images.append({"id": i, "file_name": f"{i}.png", "width": 80, "height": 96, "split": "ab"[i % 2]})
        points = [x + 4, y + 4, 2, x + w - 5, y + 4, visible, x + w // 2, y + h // 2, 2]
        annotations.append(
            {"id": i, "image_id": i, "category_id": 1, "keypoints": points, "bbox": list(box), "area": w * h}
        )
    names = ["left_top", "right_top", "middle"]
    document = {
        "images": images, "annotations": annotations,
        "categories": [{"id": 1, "name": "block", "keypoints": names, "sigmas": [0.1] * 3}],
    }  # fmt: skip
    if change is not None:
        change(document)
    path = folder / "blocks.json"
    path.write_text(json.dumps(document))
    return path


def scenes(folder: Path, **options) -> ComposedScenes:
    return composed(photographs(folder), **{"scenes": 12, "size_wh": (200, 160), "most": 4} | options)


def test_a_scene_depends_on_seed_and_index_only(tmp_path):
    data, again = scenes(tmp_path), scenes(tmp_path, scenes=500)
    forward = [data.image(i) for i in range(12)]
    again.instances(3)
    copied = pickle.loads(pickle.dumps(data))
    for i in reversed(range(12)):
        assert (forward[i] == again.image(i)).all()
        assert (forward[i] == copied.image(i)).all()
        np.testing.assert_array_equal(data.instances(i).xy, again.instances(i).xy)
    assert not (forward[0] == forward[1]).all()
    assert not (forward[0] == scenes(tmp_path, seed=1).image(0)).all()


def test_is_a_dataset(tmp_path):
    table = {"name": "composed", "annotations": str(photographs(tmp_path)), "scenes": 6, "size_wh": [96, 80], "most": 2}
    data = make(DATASETS, table, "dataset")
    sample = data[5]
    assert len(data) == 6
    assert sample.image.shape == data.image(5, reduce=4).shape == (80, 96, 3)
    assert sample.size_wh == data.size_wh(5) == (96, 80)
    assert sample.source == data.source(-1) == "composed-blocks-0-5"
    np.testing.assert_array_equal(sample.instances.xy, data.instances(5).xy)
    assert classes_of(data) == ("block",)
    assert boxes_complete(data, 0)
    assert data.notes[-1] == "Scenes are composed of 4 of the file's 4 instances."
    assert len(Crops(data, InputSpec((32, 32))).people)
    with pytest.raises(IndexError, match="ComposedScenes has 6 scenes, 0 to 5; got index 6"):
        data.instances(6)
    with pytest.raises(ValueError, match="reduce must be 1, 2, 4 or 8, got 3"):
        data.image(0, reduce=3)


def test_boxes_alone(tmp_path):
    posed, boxed = scenes(tmp_path), scenes(tmp_path, boxes_only=True)
    assert len(boxed.skeleton) == 0
    for i in range(12):
        with_keypoints, without = posed.instances(i), boxed.instances(i)
        assert without.xy.shape == (len(with_keypoints), 0, 2)
        np.testing.assert_array_equal(without.box_xyxy, with_keypoints.box_xyxy)
        np.testing.assert_array_equal(without.extra["area"], with_keypoints.extra["area"])
    assert (posed.image(3) == boxed.image(3)).all()


@pytest.mark.parametrize("mirror", [0.0, 1.0])
def test_labels_lie_on_the_pasted_people(tmp_path, mirror):
    data = scenes(tmp_path, mirror=mirror)
    counts = []
    for i in range(len(data)):
        image, labels = data.image(i), data.instances(i)
        counts.append(len(labels))
        for person, pasted in zip(range(len(labels)), data.plan(i), strict=True):
            color = np.array(COLORS[pasted.patch.photo])
            for x, y in labels.xy[person][labels.known[person]]:
                assert np.abs(image[round(y), round(x)].astype(int) - color).max() < 140
            x0, y0, x1, y1 = labels.box_xyxy[person]
            assert -0.5 <= x0 < x1 <= 199.5
            assert -0.5 <= y0 < y1 <= 159.5
            assert labels.extra["area"][person] == pytest.approx((x1 - x0) * (y1 - y0), rel=1e-4)
            left, right = labels.xy[person, :2, 0]
            assert not left > right  # a mirrored block has exchanged names
    assert min(counts) >= 1
    assert max(counts) > 2


@pytest.mark.parametrize("visible", [1, 2])
def test_covered_keypoints_are_hidden_where_the_file_tells_and_unlabelled_where_not(tmp_path, visible):
    data = composed(photographs(tmp_path, visible=visible), scenes=150, size_wh=(120, 100), most=5)
    covered = 0
    for i in range(len(data)):
        for person, labels in enumerate(data.plan(i)):
            row = data.instances(i)[person]
            hidden = labels.covered & labels.labels.known[0] & (row.known[0] if visible == 1 else True)
            covered += int(hidden.sum())
            assert labels.covered.sum() <= (1 - SEEN) * 3 + 1
            if visible == 1:
                assert row.keypoint_extra["occluded"][0][hidden].all()
            else:
                assert not row.known[0][labels.covered].any()
                assert not row.keypoint_extra["occluded"].any()
    assert covered > 0


def test_who_is_not_pasted(tmp_path):
    def change(document):
        first, second, third, _ = document["annotations"]
        first["bbox"] = [24, 16, 12, 12]
        second["iscrowd"] = 1
        document["annotations"].append(third | {"id": 9, "bbox": [40, 30, 30, 60]})

    data = composed(photographs(tmp_path, change=change), scenes=3)
    assert data.people.tolist() == [[3, 0]]
    assert data.notes[-4:] == (
        "1 instance not pasted: a crowd or without a labelled keypoint.",
        "1 instance not pasted: smaller than 24 pixels.",
        "2 instances not pasted: close to another person.",
        "Scenes are composed of 1 of the file's 5 instances.",
    )
    chosen = composed(photographs(tmp_path), where={"split": "a"})
    assert len(chosen.people) == 2
    tiny = photographs(tmp_path, box=(24, 16, 12, 12))
    with pytest.raises(ValueError, match=r"nobody can be pasted into a scene\. 4 instances not pasted: smaller"):
        composed(tiny)


def test_people_of_unknown_sides_are_not_mirrored(tmp_path):
    def change(document):
        document["categories"][0]["keypoints"] = ["a", "b", "c"]

    data = composed(photographs(tmp_path, change=change), scenes=2)
    assert data.mirror == 0
    assert any(note.startswith("People are not flipped: no two of the names differ") for note in data.notes)


def test_photographs_without_free_surroundings_get_a_plain_background(tmp_path):
    data = composed(photographs(tmp_path, box=(0, 0, 80, 96)), scenes=2, size_wh=(200, 160), most=1)
    assert data.image(0).shape == (160, 200, 3)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"scenes": 0}, "scenes must be 1 or more, got 0"),
        ({"size_wh": (32, 480)}, r"size_wh must be \(width, height\) with 64 to 4096 pixels each"),
        ({"most": 31}, "most must be the most people in a scene, 1 to 30, got 31"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"mirror": 1.5}, "mirror must be a share of people from 0 to 1, got 1.5"),
        ({"enlarge": 0.1}, "enlarge must be a factor from 0.25 to 8, got 0.1"),
    ],
)
def test_numbers_out_of_range(tmp_path, options, says):
    with pytest.raises(ValueError, match=says):
        scenes(tmp_path, **options)
