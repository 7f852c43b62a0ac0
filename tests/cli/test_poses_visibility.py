"""``poses.json`` says what a network predicts of visibility, and the contact sheet reads it back."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import poseglass as pg
from poseglass import cli
from poseglass.cli.poses_file import people_of, result_records
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.estimators.weights_file import save_weights
from poseglass.networks import NETWORKS
from poseglass.readers import coco

TOY = Skeleton("toy3", ("nose", "left_eye", "right_eye"))


def people(**more: object) -> Instances:
    xy = np.array([[[4, 5], [6, 7], [8, 9]], [[1, 2], [np.nan, np.nan], [3, 4]]], np.float32)
    score = np.array([[0.9, 0.02, 0.5], [0.8, 0.0, 0.7]])
    return dataclasses.replace(Instances.from_keypoints(TOY, xy, score=score), **more)  # type: ignore[arg-type]


def test_records_have_words_where_visibility_is_predicted() -> None:
    plain = result_records(people(), 1, 1, "a.png")
    assert all("visibility" not in record for record in plain)
    told = result_records(people(visibility=np.array([[2, 0, 1], [2, 0, 0]])), 1, 1, "a.png")
    assert [record["visibility"] for record in told] == [["visible", "absent", "occluded"], ["visible", None, "absent"]]
    assert told[0]["keypoints"] == [4.0, 5.0, 2, 6.0, 7.0, 0, 8.0, 9.0, 1]
    assert told[0]["keypoint_scores"] == [0.9, 0.02, 0.5]
    flags = [0 if i % 3 == 2 else value for i, value in enumerate(told[0]["keypoints"])]
    assert flags == [0 if i % 3 == 2 else value for i, value in enumerate(plain[0]["keypoints"])]
    read = people_of(TOY, json.loads(json.dumps(told)))
    assert read.visibility_words == [["visible", "absent", "occluded"], ["visible", None, "absent"]]
    assert people_of(TOY, plain).visibility is None


@pytest.mark.slow
def test_predict_writes_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    torch.manual_seed(0)
    table = {
        "name": "centernet_hourglass", "num_keypoints": 3, "num_stacks": 1, "widths": [16, 16], "blocks": [1, 1],
        "head_width": 8, "visibility": True,
    }  # fmt: skip
    network = pg.build(NETWORKS, table["name"], **{key: value for key, value in table.items() if key != "name"})
    state = dict(network.state_dict())
    state["heads.0.outputs.size.last.bias"].fill_(4.0)
    state["heads.0.outputs.visibility.last.bias"].copy_(torch.tensor([9.0, 0, 0, 0, 9.0, 0, 0, 0, 9.0]))
    card = pg.WeightCard("told", table, {"name": "centernet", "visibility": True}, TOY, pg.InputSpec((64, 64)))
    save_weights(tmp_path / "told.safetensors", state, card)
    (tmp_path / "in").mkdir()
    for i in range(2):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 48, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{i}.png")
    words = ["predict", tmp_path / "in", "--weights", tmp_path / "told.safetensors", "--out", tmp_path / "out"]
    monkeypatch.setattr(sys, "argv", ["poseglass", *map(str, words), "--detector-score", "0"])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert not stop.value.code
    records = json.loads((tmp_path / "out" / "poses.json").read_text())
    assert records
    for record in records:
        assert record["visibility"] == ["visible", "occluded", "absent"]
        assert record["keypoints"][2::3] == [2, 1, 0]
        assert any(record["keypoints"][6:8])
        assert record["keypoint_scores"][2] > 0
    assert (tmp_path / "out" / "sheet.jpg").is_file()
    assert len(coco(tmp_path / "out" / "poses_coco.json").image_ids) == 2
