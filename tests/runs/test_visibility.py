"""Runs that learn visibility: from labels that mark occlusion, from older weights, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from poseglass.codecs.centernet import CenterNetCodec
from poseglass.core.input_spec import InputSpec
from poseglass.data.loader import collate
from poseglass.data.whole_images import WholeImages
from poseglass.estimators.load import load_detector
from poseglass.readers import coco, write_coco
from poseglass.runs.prepare import prepare
from poseglass.runs.recipe import Recipe, RecipeError
from poseglass.synthetic import synthetic_people
from poseglass.transforms import RandomAffine

pytestmark = pytest.mark.usefixtures("plain_reports")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_coco(synthetic_people(8, seed=1, size_wh=(48, 48)), folder / "train.json", write_images=True)
    return folder / "train.json"


def tiny(data: Path, *overrides: str, visibility: bool = True) -> Recipe:
    table = {"name": "coco", "annotations": str(data)}
    more = {"visibility": True} if visibility else {}
    network = {"name": "centernet_hourglass", "num_stacks": 1, "widths": [16, 16], "blocks": [1, 1], "head_width": 8}
    return Recipe.from_dict(
        {
            "name": "tiny", "network": network | more, "codec": {"name": "centernet"} | more,
            "criterion": {"name": "centernet"}, "input": {"size_wh": [32, 32]},
            "data": {"train": table, "val": table},
            "train": {"epochs": 2, "batch_size": 4, "workers": 0, "optimizer": {"name": "adamw", "lr": 0.003}},
            "evaluate": {"metrics": [{"name": "box_ap"}], "flip_test": False},
        },
        overrides=overrides,
    )  # fmt: skip


def test_keypoints_that_an_augmented_view_cuts_off_are_absent_and_others_as_labelled(data: Path) -> None:
    zoom = RandomAffine(scale=(1.5, 2.5), degrees=20.0, shift=0.3)
    examples = WholeImages(coco(data), InputSpec((64, 64)), (zoom,), seed=0)
    samples = [examples[0, i, 64, 64] for i in range(len(examples))]
    batch = collate(samples)
    target = CenterNetCodec(visibility=True).encode(batch.targets, batch.size_wh)
    counts = np.zeros(3, int)
    for i, sample in enumerate(samples):
        for n, row in enumerate(sample.instances.xy):
            for k, (x, y) in enumerate(row):
                counted = bool(sample.instances.known[n, k]) and not batch.targets.crowd[i, n]
                assert bool(target["visibility_weight"][i, n, k]) == counted
                if counted:
                    inside = -0.5 <= x < 63.5 and -0.5 <= y < 63.5
                    hidden = bool(sample.instances.keypoint_extra["occluded"][n, k])
                    state = int(target["visibility"][i, k].flatten(1)[:, target["index"][i, n]].argmax())
                    assert state == (int(hidden) if inside else 2)
                    counts[state] += 1
    assert (counts > 0).all()


@pytest.mark.slow
def test_a_run_lowers_the_term_and_its_weights_tell(data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    run = prepare(tiny(data, "train.epochs=20"), tmp_path / "run", device="cpu")
    run.train()
    first, last = (row["visibility"] for row in (run.loop.progress.rows[0], run.loop.progress.rows[-1]))
    assert last < 0.9 * first
    found = load_detector(tmp_path / "run" / "last.safetensors", min_box_score=0.0)(
        synthetic_people(1, seed=1, size_wh=(48, 48))[0].image
    )
    assert len(found) == 0 or found.visibility is not None


def test_a_run_starts_from_weights_that_predict_no_visibility(data: Path, tmp_path: Path) -> None:
    torch.set_num_threads(1)
    prepare(tiny(data, visibility=False), tmp_path / "old", device="cpu").train()
    weights = tmp_path / "old" / "last.safetensors"
    run = prepare(tiny(data, f"train.init_from={weights}"), tmp_path / "new", device="cpu")
    assert "all of its other weights. The weights predict no visibility: this output has initial values." in run.note
    again = prepare(tiny(data, f"train.init_from={weights}", visibility=False), tmp_path / "again", device="cpu")
    assert "visibility" not in again.note


def test_what_cannot_teach_visibility_is_refused(data: Path, tmp_path: Path) -> None:
    labels = json.loads(data.read_text())
    for record in labels["annotations"]:
        record["keypoints"][2::3] = [2 if v else 0 for v in record["keypoints"][2::3]]
    all_visible = data.with_name("all_visible.json")
    all_visible.write_text(json.dumps(labels))
    with pytest.raises(RecipeError, match=r"codec.visibility is true, but no keypoint .* Omit codec.visibility, or"):
        prepare(tiny(all_visible), tmp_path / "run", device="cpu")
    prepare(tiny(all_visible, visibility=False), tmp_path / "plain", device="cpu")
    without = tiny(data, "codec.visibility=true", visibility=False)
    with pytest.raises(RecipeError, match=r"encodes 'visibility', but stage 0 .*Set network.head.visibility = true"):
        prepare(without, tmp_path / "other", device="cpu")
