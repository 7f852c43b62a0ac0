"""The protocols against the public conventions written out in plain numpy, from the same heatmaps."""

import contextlib
import copy
import io
import json
from dataclasses import replace
from pathlib import Path

import cv2
import h5py
import numpy as np
import pytest
import torch
from scipy.io import loadmat
from torch import nn

from poseglass.codecs.heatmap import HeatmapCodec
from poseglass.core.image import read_image
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.skeletons import COCO17, MPII16
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.evaluation.coco import CocoProtocol, pose_score
from poseglass.evaluation.mpii import MpiiProtocol
from poseglass.networks import StackedHourglass
from poseglass.programs.torch_program import TorchProgram
from poseglass.readers.coco import coco
from poseglass.readers.labelled import LabelledImages
from poseglass.readers.mpii import mpii
from poseglass.synthetic.people import synthetic_people

CROP = ["edges", "msra"]
"""Where the box's centre lands: the middle of the crop's pixel centres, or half a pixel further (public code)."""


class Sharp(nn.Module):
    """A random hourglass whose maps are of (0, 1), peaked, and highest away from the border."""

    def __init__(self, keypoints: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.inner = StackedHourglass(keypoints, num_stacks=1, width=16, depth=2)

    def forward(self, images):
        maps = self.inner(images)[-1]["heatmap"]
        maps = (maps - maps.mean((-1, -2), keepdim=True)) / maps.std((-1, -2), keepdim=True)
        inner = torch.zeros_like(maps)
        inner[..., 3:-3, 3:-3] = torch.sigmoid(1.5 * (maps[..., 3:-3, 3:-3] - 3.0))
        return [{"heatmap": inner}]


class Recorder:
    """Runs a network and keeps what went in and what came out."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network.eval()
        self.calls: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, images):
        with torch.inference_mode():
            prediction = self.network(images)[-1]
        self.calls.append((images.numpy().copy(), prediction["heatmap"].numpy().copy()))
        return {name: value.clone() for name, value in prediction.items()}

    def joined(self, flip: bool):
        """Return crops, their maps, and the flipped crops' maps."""
        if not flip:
            return *(np.concatenate([c[i] for c in self.calls]) for i in (0, 1)), None
        straight, mirrored = self.calls[0::2], self.calls[1::2]
        for (a, _), (b, _) in zip(straight, mirrored, strict=True):
            np.testing.assert_array_equal(a[..., ::-1], b)
        return *(np.concatenate([c[i] for c in straight]) for i in (0, 1)), np.concatenate([c[1] for c in mirrored])


def estimator_of(skeleton, size_wh, alignment="corner", crop="edges") -> tuple[TopDownEstimator, Recorder]:
    recorder = Recorder(Sharp(len(skeleton)))
    spec = InputSpec(size_wh, 1.25, crop=crop)
    codec = HeatmapCodec(stride=4, sigma=2.0, alignment=alignment)
    return TopDownEstimator(
        TorchProgram(recorder.network, codec, skeleton, spec, forward=recorder), batch_size=7
    ), recorder


# ---------------------------------------------------------------------------------------------------------------------
# The public conventions, written out.


def center_and_size(box_xywh, aspect):
    """Return the centre and the enlarged width and height of a box."""
    x, y, w, h = box_xywh
    center = np.array([x + w * 0.5, y + h * 0.5])
    if w > aspect * h:
        h = w / aspect
    elif w < aspect * h:
        w = h * aspect
    return center, np.array([w, h]) * 1.25


def cleaned(box_xywh, width, height):
    x, y, w, h = box_xywh
    x1, y1 = max(0.0, x), max(0.0, y)
    x2, y2 = min(width - 1.0, x1 + max(0.0, w - 1)), min(height - 1.0, y1 + max(0.0, h - 1))
    return [x1, y1, x2 - x1, y2 - y1]


def decoded(heatmap, center, size, size_wh, crop, alignment):
    """Return points in image pixels and peaks of one crop's maps ``(K, h, w)``."""
    k, rows, columns = heatmap.shape
    points, peaks = np.zeros((k, 2)), np.zeros(k)
    for j in range(k):
        at = int(heatmap[j].argmax())
        x, y = at % columns, at // columns
        peaks[j] = heatmap[j, y, x]
        points[j] = x, y
        if 1 < x < columns - 1 and 1 < y < rows - 1:
            dx = heatmap[j, y, x + 1] - heatmap[j, y, x - 1]
            dy = heatmap[j, y + 1, x] - heatmap[j, y - 1, x]
            points[j] += 0.25 * np.sign([dx, dy])
    # heatmap -> crop -> image; by the width alone, as sides are in proportion
    in_crop = points * 4.0 if alignment == "corner" else (points + 0.5) * 4.0 - 0.5
    middle = np.array(size_wh) / 2.0 if crop == "msra" else (np.array(size_wh) - 1.0) / 2.0
    return (in_crop - middle) * size[0] / size_wh[0] + center, peaks


def flip_averaged(straight, mirrored, skeleton, shift):
    names = list(skeleton.keypoints)
    partner = [names.index(n.replace("left_", "@").replace("right_", "left_").replace("@", "right_")) for n in names]
    back = mirrored[partner][:, :, ::-1].copy()
    if shift:
        back[:, :, 1:] = back[:, :, :-1].copy()
    return (straight + back) * 0.5


def suppressed(people, sigmas, threshold):
    """Return the people that are kept; each has "keypoints", "score" and "area"."""
    kept = []
    for person in sorted(people, key=lambda p: -p["score"]):
        for other in kept:
            d2 = ((person["keypoints"] - other["keypoints"]) ** 2).sum(-1)
            scale = (person["area"] + other["area"]) / 2 + np.spacing(1)
            if np.exp(-d2 / (2 * np.asarray(sigmas)) ** 2 / scale / 2).mean() > threshold:
                break
        else:
            kept.append(person)
    return kept


def ap_by_pycocotools(annotations, results, sigmas):
    coco, cocoeval = pytest.importorskip("pycocotools.coco"), pytest.importorskip("pycocotools.cocoeval")
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco.COCO()
        truth.dataset = copy.deepcopy(annotations)
        for person in truth.dataset["annotations"]:  # CrowdPose has none; its own evaluation takes this
            person.setdefault("area", 0.53 * person["bbox"][2] * person["bbox"][3])
        truth.createIndex()
        evaluation = cocoeval.COCOeval(truth, truth.loadRes(results), "keypoints")
        evaluation.params.kpt_oks_sigmas = np.asarray(sigmas)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("threshold", [0.9, 0.3])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("boxes", ["detections", "truth"])
@pytest.mark.parametrize("alignment", ["corner", "center"])
@pytest.mark.parametrize("crop", CROP)
@pytest.mark.parametrize(
    ("folder", "labels", "detections"),
    [
        ("coco", "test_coco.json", "test_coco_det_AP_H_56.json"),
        ("crowdpose", "test_crowdpose.json", "test_crowdpose_det_AP_40.json"),
    ],
)
def test_coco_equals_the_public_convention(shared, folder, labels, detections, crop, alignment, boxes, flip, threshold):
    root = shared / "data/samples" / folder
    data = json.loads((root / labels).read_text())
    dataset = coco(root / labels)
    sigmas = tuple(8 * s for s in dataset.skeleton.sigmas)  # wide enough for guesses to count for something
    size_wh = (96, 128)
    estimator, recorder = estimator_of(dataset.skeleton, size_wh, alignment, crop)
    protocol = CocoProtocol(
        root / detections if boxes == "detections" else None,
        flip_test=flip,
        nms_threshold=threshold,
        sigmas=sigmas,
        box_area_factor=0.53 if folder == "crowdpose" else None,
    )
    ours = protocol.evaluate(estimator, dataset)

    # the same from the maps that the network gave
    crops, straight, mirrored = recorder.joined(flip)
    images = {image["id"]: image for image in data["images"]}
    starts = []
    for image_id in sorted(images):
        if boxes == "detections":
            found = [r for r in json.loads((root / detections).read_text()) if r["image_id"] == image_id]
            starts += [(image_id, r["bbox"], r["score"]) for r in found]
            continue
        size = images[image_id]["width"], images[image_id]["height"]
        for person in data["annotations"]:
            if person["image_id"] == image_id and not person["iscrowd"] and max(person["keypoints"]) > 0:
                starts.append((image_id, cleaned(person["bbox"], *size), 1.0))
    assert len(starts) == len(straight)

    people = {image_id: [] for image_id in images}
    for n, (image_id, box, box_score) in enumerate(starts):
        center, size = center_and_size(box, size_wh[0] / size_wh[1])
        if size[0] < 2 * size_wh[0]:  # beyond, crops are shrunk by areas first
            image_number = read_image(root / images[image_id]["file_name"])
            middle = np.array(size_wh) / 2.0 if crop == "msra" else (np.array(size_wh) - 1.0) / 2.0
            scale = size_wh[0] / size[0]
            matrix = np.array([[scale, 0, middle[0] - scale * center[0]], [0, scale, middle[1] - scale * center[1]]])
            expected = cv2.warpAffine(image_number, matrix, size_wh, flags=cv2.INTER_LINEAR).transpose(2, 0, 1) / 255.0
            assert np.abs(crops[n] - expected).max() < 2 / 255
        heatmap = straight[n]
        if flip:
            heatmap = flip_averaged(straight[n], mirrored[n], dataset.skeleton, alignment == "corner")
        points, peaks = decoded(heatmap, center, size, size_wh, crop, alignment)
        sure = peaks[peaks > 0.2]
        score = box_score * (float(sure.mean()) if len(sure) else 0.0)
        people[image_id].append({"keypoints": points, "score": score, "area": float(size.prod())})
    kept = {image_id: suppressed(mine, sigmas, threshold) for image_id, mine in people.items()}
    if boxes == "detections" and folder == "coco":
        assert sum(map(len, kept.values())) < len(starts)
    assert any(0 < p["score"] < 1 for mine in kept.values() for p in mine)

    results = []
    assert [dataset.image_ids[i] for i in ours.indices] == sorted(images)
    for image_id, mine in zip(sorted(images), ours.predicted, strict=True):
        assert len(mine) == len(kept[image_id])
        for row, person in enumerate(kept[image_id]):
            np.testing.assert_allclose(mine.xy[row], person["keypoints"], rtol=0, atol=1e-3)
            np.testing.assert_allclose(mine.box_score[row], person["score"], rtol=0, atol=1e-6)
            flat = np.concatenate([person["keypoints"], np.ones((len(sigmas), 1))], -1).ravel().tolist()
            results.append({"image_id": image_id, "category_id": 1, "keypoints": flat, "score": person["score"]})
    stats = ap_by_pycocotools(data, results, sigmas)
    assert stats[0] > 0
    np.testing.assert_allclose(list(ours.results.values()), stats, rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("adjustment", ["once", "twice", "none"])
@pytest.mark.parametrize("add_one", [True, False])
@pytest.mark.parametrize("crop", CROP)
def test_mpii_equals_the_public_convention(shared, crop, add_one, adjustment, flip):
    path = shared / "data/samples/mpii/test_mpii.json"
    records = json.loads(path.read_text())
    rng = np.random.default_rng(0)
    head_px = dict(enumerate(rng.uniform(40, 90, len(records))))
    dataset = mpii(path, images=path.parent)
    labels = [
        replace(one, extra=one.extra | {"head_px": np.array([head_px[int(i)] for i in one.extra["annotation_id"]])})
        for one in dataset.labels
    ]
    dataset = replace(dataset, labels=labels)
    estimator, recorder = estimator_of(MPII16, (128, 128), crop=crop)
    thresholds = (2.0, 4.0, 8.0)  # guesses are far off
    protocol = MpiiProtocol(adjustment, flip_test=flip, add_one=add_one, thresholds=thresholds)
    ours = protocol.evaluate(estimator, dataset)

    _, straight, mirrored = recorder.joined(flip)
    in_order = [int(i) for i in np.concatenate([one.extra["annotation_id"] for one in dataset.labels])]
    right, counted = np.zeros(len(thresholds)), 0
    for n, row in enumerate(in_order):
        record = records[row]
        center, scale = np.array(record["center"], float), float(record["scale"])
        for _ in range({"once": 1, "twice": 2, "none": 0}[adjustment]):
            center[1] += 15 * scale
            scale *= 1.25
        heatmap = straight[n] if not flip else flip_averaged(straight[n], mirrored[n], MPII16, True)
        points, _ = decoded(heatmap, center - 1, np.full(2, 200 * scale), (128, 128), crop, "corner")
        if add_one:
            points = points + 1
        labelled = np.array(record["joints_vis"], bool)
        labelled[[6, 7]] = False  # pelvis and thorax
        distance = np.linalg.norm(points - np.array(record["joints"], float), axis=-1)[labelled] / head_px[row]
        counted += labelled.sum()
        right += [(distance <= threshold).sum() for threshold in thresholds]
    assert 0 < right[0] < right[2]
    for threshold, expected in zip(thresholds, right / counted, strict=True):
        assert ours.results[f"pckh@{threshold:g}"] == pytest.approx(expected, abs=1e-9)


@pytest.mark.shared
def test_published_predictions_of_the_hourglass_by_the_protocol(shared):
    """88.035 and 28.647, as HRNet's evaluation gives for the same file; forgetting to add one costs points at 0.1."""
    root = shared / "data/mpii"
    with h5py.File(root / "valid-ours.h5") as file:
        published = np.asarray(file["preds"])
    official = loadmat(root / "detections_our_format.mat")
    joints = np.where(official["jnt_missing"].T[..., None] == 0, official["pos_gt_src"].transpose(2, 0, 1), np.nan)
    head_px = 0.6 * np.linalg.norm(official["headboxes_src"][1] - official["headboxes_src"][0], axis=0)
    truth = Instances.from_keypoints(MPII16, joints - 1.0, extra={"head_px": head_px})  # counted from 0
    found = Instances.from_keypoints(MPII16, published - 1.0)
    results = {}
    for add_one in (True, False):
        protocol = MpiiProtocol(add_one=add_one)
        metric = protocol.metric()
        metric.update(*protocol.compared(found, truth))
        results[add_one] = metric.compute()
    assert results[True]["pckh@0.5"] == pytest.approx(0.88035, abs=5e-6)
    assert results[True]["pckh@0.1"] == pytest.approx(0.28647, abs=5e-6)
    assert results[False]["pckh@0.5"] == pytest.approx(0.87923, abs=5e-6)
    assert results[False]["pckh@0.1"] == pytest.approx(0.27913, abs=5e-6)


# ---------------------------------------------------------------------------------------------------------------------
# Each option does what it says, on two people that are drawn.


@pytest.fixture
def two():
    """One image of two people with COCO's names; the first is labelled all over, the second nowhere."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (80, 100, 3), np.uint8)
    xy = rng.uniform(10, 60, (2, 17, 2)).astype(np.float32)
    xy[1] = np.nan
    box = np.array([[-4.0, 5.0, 50.0, 70.0], [20.0, 10.0, 90.0, 79.5]])
    people = Instances.from_keypoints(
        COCO17, xy, box_xyxy=box,
        extra={"area": np.array([900.0, 1000.0]), "crowd": np.zeros(2, bool), "category_id": np.ones(2, np.int64)},
    )  # fmt: skip

    class OnePicture(LabelledImages):
        def image(self, index, *, reduce=1):
            return image

    return OnePicture("two", COCO17, (Path("two.png"),), (people,), (7,), np.array([[100, 80]]))


def found(tmp_path, *records, **more):
    path = tmp_path / "found.json"
    whole = {"image_id": 7, "category_id": 1, "score": 0.5, "bbox": [10, 10, 40, 50]} | more
    path.write_text(json.dumps([whole | record for record in records]))
    return path


def test_true_boxes_are_of_the_labelled_and_cut(two):
    estimator, _ = estimator_of(COCO17, (32, 32))
    (people,) = CocoProtocol().evaluate(estimator, two).predicted
    np.testing.assert_allclose(people.box_xyxy, [[0, 5, 53, 69]])
    (people,) = CocoProtocol(clip_boxes="none").evaluate(estimator, two).predicted
    np.testing.assert_allclose(people.box_xyxy, [[-4, 5, 50, 70]])


def test_detections_are_chosen_by_score_and_number(two, tmp_path):
    estimator, _ = estimator_of(COCO17, (32, 32))
    path = found(tmp_path, {"score": 0.9}, {"score": 0.1}, {"score": 0.6}, {"score": 0.3})

    def boxes(**options):
        protocol = CocoProtocol(path, nms="none", rescoring="box", **options)
        return protocol.evaluate(estimator, two).predicted[0].box_score.astype(float).round(3).tolist()

    assert boxes() == [0.9, 0.6, 0.3, 0.1]
    assert boxes(min_box_score=0.3) == [0.9, 0.6, 0.3]
    assert boxes(max_boxes=2) == [0.9, 0.6]


def test_equal_boxes_are_one_person_for_hard_nms_and_lower_one_another_for_soft(two, tmp_path):
    estimator, _ = estimator_of(COCO17, (32, 32))
    path = found(tmp_path, {"score": 0.9}, {"score": 0.8})

    def scores(nms):
        protocol = CocoProtocol(path, nms=nms, rescoring="box")
        return protocol.evaluate(estimator, two).predicted[0].box_score

    np.testing.assert_allclose(scores("hard"), [0.9])
    np.testing.assert_allclose(scores("none"), [0.9, 0.8])
    np.testing.assert_allclose(scores("soft"), [0.9, 0.8 * np.exp(-1 / 0.9)], rtol=1e-6)


@pytest.mark.parametrize("nms_area", ["enlarged_box", "box", "annotation"])
def test_the_area_that_nms_goes_by(two, monkeypatch, nms_area):
    seen = []
    monkeypatch.setattr(
        "poseglass.evaluation.coco.oks_nms",
        lambda xy, score, area, sigmas, threshold: seen.append(area) or np.arange(len(xy)),
    )
    estimator, _ = estimator_of(COCO17, (32, 32))
    CocoProtocol(clip_boxes="none", nms_area=nms_area).evaluate(estimator, two)
    expected = {"enlarged_box": (65 * 1.25) ** 2, "box": 54 * 65, "annotation": 900}[nms_area]
    np.testing.assert_allclose(seen, [[expected]])


@pytest.mark.parametrize(
    ("rescoring", "expected"),
    [("box_times_joints", [0.3, 0.0]), ("joints", [0.6, 0.0]), ("box", [0.5, 0.4])],
)
def test_pose_scores(rescoring, expected):
    joints = np.array([[0.2, 0.4, 0.8], [0.0, 0.2, 0.1]], np.float32)  # 0.2 itself is not above
    np.testing.assert_allclose(pose_score(joints, np.array([0.5, 0.4]), 0.2, rescoring), expected, rtol=1e-6)


def test_convention_in_one_line(tmp_path):
    estimator, _ = estimator_of(COCO17, (96, 128))
    assert CocoProtocol().convention(estimator) == (
        "protocol coco: ground-truth boxes, clipped to the image and a pixel smaller, x1.25, edges crops in RGB; "
        "flip test, flipped maps moved right by a pixel; score: box score x mean of joints above 0.2; hard OKS-NMS at "
        "0.9 by enlarged box area; at most 20 poses per image"
    )
    line = CocoProtocol("a/b.json", flip_test=False, nms="none", rescoring="box").convention(estimator)
    assert (
        "boxes from b.json (score >= 0), as given, x1.25, edges crops in RGB; no flip test; score: box score; no NMS;"
        in line
    )
    assert "adjusted once, edges crops in RGB; flip test" in MpiiProtocol().convention(estimator)
    assert "without pelvis, thorax; no rescoring, no NMS" in MpiiProtocol().convention(estimator)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CocoProtocol(nms="sotf"), "nms must be 'hard' or 'soft' or 'none', got 'sotf'"),
        (lambda: CocoProtocol(rescoring="all"), "rescoring must be 'box_times_joints' or 'joints' or 'box'"),
        (lambda: CocoProtocol(max_boxes=0), "max_boxes must be above 0, got 0"),
        (lambda: CocoProtocol("x.json", nms_area="annotation"), "needs ground-truth boxes"),
        (lambda: MpiiProtocol("thrice"), "adjustment must be 'once' or 'twice' or 'none', got 'thrice'"),
        (lambda: MpiiProtocol(comparator="=<"), "comparator must be '<=' or '<'"),
        (lambda: MpiiProtocol(head_factor=0), "head_factor must be above 0"),
    ],
)
def test_options_that_make_no_sense(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"image_id": 8}, "1 of 1 detections are of images that two does not have, such as image_id 8"),
        ({"category_id": 3}, r"none of 1 detections is of a category of two \(1\); 'category_id' is 3"),
        ({"bbox": [200, 5, 10, 10]}, r"100 x 80 pixels, and the box \[200.0, 5.0, 210.0, 15.0\] .* lies outside"),
        ({"score": -1}, "None of the 1 images has an input box"),
    ],
)
def test_detections_of_something_else(two, tmp_path, record, message):
    estimator, _ = estimator_of(COCO17, (32, 32))
    with pytest.raises(ValueError, match=message):
        CocoProtocol(found(tmp_path, record)).evaluate(estimator, two)


def test_weights_must_predict_what_a_protocol_measures(two):
    estimator, _ = estimator_of(MPII16, (32, 32))
    for protocol in (CocoProtocol(), MpiiProtocol()):
        with pytest.raises(ValueError, match="these weights do not predict nose, left_eye"):
            protocol.evaluate(estimator, two)


def test_an_image_in_which_nothing_was_found_counts(two, tmp_path):
    """Its person is missed, and an image without people adds what is found there."""
    estimator, _ = estimator_of(COCO17, (32, 32))
    more = replace(
        two, paths=(*two.paths, Path("b.png")), labels=(*two.labels, two.labels[0][[]]), image_ids=(7, 3),
        sizes_wh=np.array([[100, 80]] * 2),
    )  # fmt: skip
    ours = CocoProtocol(found(tmp_path, {"image_id": 3})).evaluate(estimator, more)
    assert ours.indices == [1, 0]  # by id
    assert [len(people) for people in ours.predicted] == [1, 0]
    assert ours.results["AR"] == 0.0


@pytest.mark.parametrize("head_factor", [0.6, 1.2])
def test_head_factor(head_factor):
    data = synthetic_people(1, seed=0, size_wh=(64, 64))
    people = data.instances(0)
    people = replace(people, extra={"head_px": np.full(len(people), 10.0)})
    _, truth = MpiiProtocol(head_factor=head_factor).compared(people, people)
    np.testing.assert_allclose(truth.extra["head_px"], 10.0 * head_factor / 0.6)


def test_mpii_without_head_sizes_says_so(two):
    estimator, _ = estimator_of(COCO17, (32, 32))
    with pytest.raises(ValueError, match=r"labels have no head boxes .* use --set data.head_boxes="):
        MpiiProtocol(excluded=()).evaluate(estimator, two)
