"""Thousands of classes: one map of centres, and classes from features at the centres."""

import subprocess
import sys

import pytest
import torch

from poseglass.codecs.centernet import CenterNetCodec, classified
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import ModelInput, Targets
from poseglass.heads.centernet import CenterNetHead
from poseglass.heads.stacked_centernet import StackedCenterNetHead
from poseglass.training.centernet import CenterNetCriterion

CODEC = CenterNetCodec(poses=False, features=6, most=10)
NOTHING = Skeleton("boxes", ())


def targets(labels: list[list[int]]) -> Targets:
    """Boxes of 8 px, 16 px apart, of these labels."""
    batch, count = len(labels), len(labels[0])
    low = torch.arange(count).float()[:, None] * 16 + 3.7
    box = torch.cat([low, torch.full((count, 1), 9.3), low + 8, torch.full((count, 1), 17.3)], 1)
    return Targets(
        xy=torch.zeros(batch, count, 0, 2), known=torch.zeros(batch, count, 0), box_xyxy=box.expand(batch, -1, -1),
        label=torch.tensor(labels), valid=torch.ones(batch, count, dtype=torch.bool),
        crowd=torch.zeros(batch, count, dtype=torch.bool),
    )  # fmt: skip


def perfect(found: dict[str, torch.Tensor], classes: int) -> dict[str, torch.Tensor]:
    """Return what a perfect network gives for encoded targets: features that spell the class in bits."""
    bits = ((torch.arange(classes)[:, None] >> torch.arange(6)) & 1).float() * 2 - 1
    height, width = found["center"].shape[2:]
    features = torch.zeros(len(found["label"]), 6, height * width)
    for view, (label, index) in enumerate(zip(found["label"], found["index"], strict=True)):
        features[view, :, index] = bits[label].T
    classifier = torch.cat([9 * bits, torch.zeros(classes, 1)], 1)[None].expand(len(features), -1, -1)
    center = torch.logit(found["center"].clamp(1e-4, 1 - 1e-4))
    return {
        "center": center, "size": found["size"], "center_offset": found["center_offset"],
        "features": features.unflatten(2, (height, width)), "classifier": classifier,
    }  # fmt: skip


def test_there_is_one_map_however_many_classes():
    found = CODEC.encode(targets([[0, 5, 63], [7, 7, 2]]), (64, 32))
    assert found["center"].shape == (2, 1, 8, 16)
    assert found["label"].tolist() == [[0, 5, 63], [7, 7, 2]]
    assert CODEC.spec.shapes(0, (64, 32), 64) == {
        "center": (1, 8, 16), "size": (2, 8, 16), "center_offset": (2, 8, 16), "features": (6, 8, 16),
        "classifier": (64, 7),
    }  # fmt: skip


def test_boxes_and_classes_come_back():
    wanted = targets([[0, 5, 63], [7, 7, 2]])
    decoded = CODEC.decode(perfect(CODEC.encode(wanted, (64, 32)), 64))
    for view in range(2):
        order = decoded.box_xyxy[view, :3, 0].argsort()
        assert decoded.label[view, :3][order].tolist() == wanted.label[view].tolist()
        torch.testing.assert_close(decoded.box_xyxy[view, :3][order], wanted.box_xyxy[view], atol=1e-3, rtol=0)
        assert (decoded.box_score[view, :3] > 0.99).all()


def test_the_best_come_first_after_their_classes_are_known():
    prediction = perfect(CODEC.encode(targets([[0, 5, 63]]), (64, 32)), 64)
    prediction["features"][..., :3] *= 0.05  # the first character is hardly told from others
    decoded = CODEC.decode(prediction)
    assert decoded.box_score[0].tolist() == sorted(decoded.box_score[0].tolist(), reverse=True)
    assert decoded.box_xyxy[0, 2, 0] == pytest.approx(3.7, abs=1e-3)


def test_the_flip_test_keeps_the_classifier():
    wanted = targets([[0, 5, 63]])
    prediction = perfect(CODEC.encode(wanted, (64, 32)), 64)
    mirrored = {name: maps.flip(-1) if name != "classifier" else maps for name, maps in prediction.items()}
    back = prediction | CODEC.flip(mirrored, NOTHING)
    torch.testing.assert_close(back["features"], prediction["features"])
    assert CODEC.decode(back).label[0, :3].sort().values.tolist() == [0, 5, 63]


def test_the_head_gives_what_the_codec_decodes_and_learns():
    torch.manual_seed(0)
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 4, stride=4), torch.nn.ReLU())
    head = CenterNetHead(16, 0, num_classes=64, width=16, features=6)
    wanted = targets([[0, 5, 63], [7, 9, 2]])
    images = torch.randn(2, 3, 32, 64)
    encoded = CODEC.encode(wanted, (64, 32), num_classes=64)
    optimizer = torch.optim.Adam([*body.parameters(), *head.parameters()], 0.02)
    first = None
    for _ in range(120):
        terms = CenterNetCriterion()([head(body(images))], encoded, ModelInput(images, wanted))
        first = first or terms["class"].item()
        optimizer.zero_grad()
        sum(terms.values()).backward()
        optimizer.step()
    assert first == pytest.approx(4.16, abs=0.5)  # ln 64
    assert terms["class"].item() < 0.1
    stage = head.eval()(body(images))
    assert {name: tuple(maps.shape[1:]) for name, maps in stage.items()} == CODEC.spec.shapes(0, (64, 32), 64)
    assert classified(stage, encoded["index"]).argmax(-1).tolist() == wanted.label.tolist()


def test_stages_tell_classes_each():
    head = StackedCenterNetHead(16, 0, num_classes=64, width=8, features=6, stages=2)
    stages = head(torch.rand(2, 16, 8, 16))
    wanted = targets([[0, 5, 63], [7, 9, 2]])
    images = torch.zeros(2, 3, 32, 64)
    terms = CenterNetCriterion()(stages, CODEC.encode(wanted, (64, 32)), ModelInput(images, wanted))
    terms["class"].backward()
    assert head.first.classifier.weight.grad.abs().max() > 0
    assert head.further[0].classifier.weight.grad.abs().max() > 0


def test_nobody_in_the_batch_gives_no_class_term():
    head = CenterNetHead(16, 0, num_classes=64, features=6)
    empty = targets([[0, 0]])
    empty = Targets(**{**{name: getattr(empty, name) for name in ("xy", "known", "box_xyxy", "label", "crowd")},
                       "valid": torch.zeros(1, 2, dtype=torch.bool)})  # fmt: skip
    stage = head(torch.rand(1, 16, 8, 16))
    terms = CenterNetCriterion()([stage], CODEC.encode(empty, (64, 32)), ModelInput(torch.zeros(1, 3, 32, 64), empty))
    assert terms["class"].item() == 0
    sum(terms.values()).backward()


def test_what_does_not_fit_is_said():
    wanted = targets([[0, 5, 63]])
    encoded = CODEC.encode(wanted, (64, 32))
    batch = ModelInput(torch.zeros(1, 3, 32, 64), wanted)
    plain = CenterNetHead(16, 0, num_classes=64)(torch.rand(1, 16, 8, 16))
    with pytest.raises(ValueError, match=r"network returns only center, size, center_offset. Build its head with the"):
        CenterNetCriterion()([plain], encoded, batch)
    few = CenterNetHead(16, 0, num_classes=60, features=6)(torch.rand(1, 16, 8, 16))
    with pytest.raises(ValueError, match="A target has label 63, but the network tells 60 classes apart"):
        CenterNetCriterion()([few], encoded, batch)
    with pytest.raises(ValueError, match=r"CenterNetCodec.features must be 0 or more, got -1"):
        CenterNetCodec(features=-1)
    with pytest.raises(ValueError, match=r"0 keypoints and features, .* features=-1"):
        CenterNetHead(16, 0, features=-1)


MEMORY = """
import resource, sys, torch
from poseglass.codecs.centernet import CenterNetCodec
from poseglass.core.targets import ModelInput, Targets
from poseglass.networks.compose import ComposedNetwork
from poseglass.training.centernet import CenterNetCriterion
classes, count, batch = int(sys.argv[1]), 300, 4
torch.manual_seed(0)
network = ComposedNetwork(0, backbone={"name": "mobilenet_v3_small"}, neck={"name": "unet", "width": 32},
                          head={"name": "centernet", "num_classes": classes, "features": 64})
low = torch.rand(batch, count, 2) * 480
everybody = torch.ones(batch, count, dtype=torch.bool)
targets = Targets(xy=torch.zeros(batch, count, 0, 2), known=torch.zeros(batch, count, 0),
                  box_xyxy=torch.cat([low, low + 24], -1), label=torch.randint(0, classes, (batch, count)),
                  valid=everybody, crowd=~everybody)
codec = CenterNetCodec(poses=False, features=64)
images = torch.randn(batch, 3, 512, 512)
encoded = codec.encode(targets, (512, 512), num_classes=classes)
terms = CenterNetCriterion()(network(images), encoded, ModelInput(images, targets))
sum(terms.values()).backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_classes():
    """One map per class would take 4 * 4,212 * 128 * 128 * 4 bytes = 1.1 GB, and as much again several times over."""
    most = []
    for classes in (10, 4212):
        ran = subprocess.run([sys.executable, "-c", MEMORY, str(classes)], capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr
        most.append(int(ran.stdout))
    factor = 1024 if sys.platform == "linux" else 1
    assert most[1] - most[0] < 250e6 / factor
    assert most[1] < 8 * 2**30 / factor
