import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

from poseglass.core.affine import Affine
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import COCO17
from poseglass.evaluation.evaluate import class_numbers, people_to_judge
from poseglass.evaluation.found import evaluate_found
from poseglass.evaluation.summary import report_of
from poseglass.metrics import BoxAp, OksAp, Pck


def people(*corners_xy: tuple[float, float], skeleton: Skeleton = COCO17, score: float = 1.0) -> Instances:
    """Return people of 100 x 200 pixels, each with the same pose in its box."""
    box = np.array([[x, y, x + 100, y + 200] for x, y in corners_xy], np.float32).reshape(-1, 4)
    pose = np.random.default_rng(1).uniform(0.1, 0.9, (len(skeleton), 2)) * [100, 200]
    xy = (box[:, None, :2] + pose).astype(np.float32)
    keypoint_score = np.ones(xy.shape[:2], np.float32)
    return Instances(skeleton, xy, keypoint_score, box, np.full(len(box), score, np.float32))


@dataclasses.dataclass
class Labels:
    """Black images with these labels."""

    images: list[Instances]
    incomplete: tuple[int, ...] = ()
    skeleton: Skeleton = COCO17

    def __len__(self) -> int:
        return len(self.images)

    def instances(self, index: int) -> Instances:
        return self.images[index]

    def source(self, index: int) -> str:
        return f"{index}.png"

    def size_wh(self, index: int) -> tuple[int, int]:
        return 640, 480

    def image(self, index: int, *, reduce: int = 1) -> np.ndarray:
        return np.full((480, 640, 3), index, np.uint8)

    def __getitem__(self, index: int) -> PoseSample:
        return PoseSample(self.image(index), self.images[index], Affine.identity(), self.source(index))

    def boxes_complete(self, index: int) -> bool:
        return index not in self.incomplete


@dataclasses.dataclass
class Finds:
    """Finds the given instances in the image with their number."""

    found: list[Instances]

    @property
    def skeleton(self) -> Skeleton:
        return self.found[0].skeleton

    def __call__(self, image: np.ndarray, boxes: object = None) -> Instances:
        assert boxes is None
        return self.found[int(image[0, 0, 0])]

    def stream(self, frames, *, causal: bool = False) -> Iterator[Instances]:
        return map(self, frames)


def metrics() -> list:
    return [Pck("box_diagonal", (0.05,)), BoxAp(), OksAp(box_area_factor=0.53)]


def test_what_is_found_exactly_has_full_marks_in_any_order():
    data = Labels([people((0, 0), (300, 100)), people((50, 50))])
    result = evaluate_found(Finds([people((300, 100), (0, 0)), people((50, 50))]), data, metrics())
    assert [result.results["pck@0.05"], result.results["box_AP"], result.results["AP"]] == pytest.approx([1.0] * 3)
    assert result.paired
    np.testing.assert_array_equal(result.predicted[0].xy, data.images[0].xy)
    assert result.indices == [0, 1]


def test_who_is_missed_misses_all_keypoints():
    data = Labels([people((0, 0), (300, 100))])
    result = evaluate_found(Finds([people((0, 0))]), data, metrics())
    assert result.results["pck@0.05"] == pytest.approx(0.5)
    assert result.results["box_AR100"] == pytest.approx(0.5)
    assert np.isnan(result.predicted[0].xy[1]).all()


def test_low_scores_count_for_average_precision_alone():
    data = Labels([people((0, 0))])
    result = evaluate_found(Finds([people((0, 0), score=0.1)]), data, metrics())
    assert result.results["pck@0.05"] == 0.0
    assert [result.results["box_AP"], result.results["AP"]] == pytest.approx([1.0] * 2)
    assert evaluate_found(Finds([people((0, 0), score=0.1)]), data, metrics(), least_score=0.1).results[
        "pck@0.05"
    ] == pytest.approx(1.0)


def test_somebody_who_is_not_there_lowers_precision_even_in_an_empty_image():
    data = Labels([people((0, 0)), people()])
    exact = evaluate_found(Finds([people((0, 0)), people()]), data, metrics()).results
    more = evaluate_found(Finds([people((0, 0), score=0.5), people((0, 0), score=0.9)]), data, metrics()).results
    assert exact["box_AP"] == pytest.approx(1.0)
    assert [more["box_AP"], more["AP"]] == pytest.approx([0.5] * 2)
    assert more["pck@0.05"] == pytest.approx(1.0)


def test_crowds_and_people_without_keypoints_do_not_count_where_poses_are_compared():
    labels = people((0, 0), (300, 100))
    xy, score = labels.xy.copy(), labels.score.copy()
    xy[1], score[1] = np.nan, 0.0
    unposed = dataclasses.replace(labels, xy=xy, score=score)
    crowd = dataclasses.replace(labels, extra={"crowd": np.array([False, True])})
    for each in (unposed, crowd):
        found = evaluate_found(Finds([people((0, 0), (300, 100))]), Labels([each]), metrics()).results
        assert [found["AP"], found["box_AP"], found["pck@0.05"]] == pytest.approx([1.0] * 3)
    missed = evaluate_found(Finds([people((0, 0))]), Labels([unposed]), metrics()).results
    assert [missed["AP"], missed["pck@0.05"]] == pytest.approx([1.0] * 2)
    assert missed["box_AP"] < 1  # a box is a box


def test_boxes_are_compared_only_where_everything_is_labelled():
    data = Labels([people((0, 0)), people((0, 0))], incomplete=(1,))
    found = [people((0, 0), score=0.5), people((0, 0), (300, 100))]
    assert evaluate_found(Finds(found), data, metrics()).results["box_AP"] == pytest.approx(1.0)
    assert evaluate_found(Finds(found), Labels(data.images), metrics()).results["box_AP"] < 1.0
    with pytest.raises(ValueError, match=r"In none of the 2 images is everything labelled .* Leave out BoxAp"):
        evaluate_found(Finds(found), Labels(data.images, incomplete=(0, 1)), metrics())


def test_boxes_alone_are_evaluated_and_reported():
    thing = Skeleton("thing", ())
    data = Labels([people((0, 0), (300, 100), skeleton=thing)], skeleton=thing)
    assert len(people_to_judge(data.images[0])) == 2
    result = evaluate_found(Finds([people((0, 0))]), data, [BoxAp()])
    assert result.results["box_AR100"] == pytest.approx(0.5)
    report = report_of(result, data, title="boxes")
    assert report.headline["box_AR100"] == pytest.approx(0.5)
    assert report.headline["people"] == 2


def test_found_people_are_reported_like_those_in_given_boxes():
    data = Labels([people((0, 0), (300, 100)), people()])
    result = evaluate_found(Finds([people((0, 0)), people()]), data, metrics())
    report = report_of(result, data, title="found")
    assert len(report.examples) == 2
    assert report.pck_curve is not None


def test_labels_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match=r"predict 'toy' .* or compare only boxes \(a data set read"):
        evaluate_found(
            Finds([people((0, 0), skeleton=Skeleton("toy", ("wheel",)))]), Labels([people((0, 0))]), metrics()
        )
    with pytest.raises(ValueError, match=r"None of the 2 images has a labelled instance with a box"):
        evaluate_found(Finds([people((0, 0))]), Labels([people(), people()]), metrics())


def test_a_person_found_as_something_else_is_not_found():
    truth = people((0, 0), (300, 100))
    truth = dataclasses.replace(truth, label=np.array([0, 1]))
    found = dataclasses.replace(people((0, 0), (300, 100)), label=np.array([1, 1]))
    result = evaluate_found(Finds([found]), Labels([truth]), metrics())
    assert result.results["pck@0.05"] == pytest.approx(0.5)
    assert result.predicted[0].box_score.tolist() == [0.0, 1.0]
    assert result.predicted[0].label.tolist() == [0, 1]


def test_classes_are_numbered_by_name():
    assert class_numbers(("a", "b"), ("b", "c", "a")).tolist() == [2, 0]
    assert class_numbers(("a", "b"), ("b",)).tolist() == [-1, 0]
    for found, labelled in ((("a",), ("b",)), ((), ("a",)), (("a", "b"), ("a", "b"))):
        assert class_numbers(found, labelled) is None  # one class is the same class
    found = dataclasses.replace(people((0, 0), (300, 100)), label=np.array([1, 2]))  # 2 has no name in the card
    data = Labels([people((0, 0))])
    data.classes = ("b",)
    result = evaluate_found(Finds([found]), data, metrics(), classes=("a", "b"))
    assert result.results["box_AP"] == pytest.approx(1.0)
