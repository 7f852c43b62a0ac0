"""What evaluation does with labels that contradict themselves, and with names in another spelling."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from poseglass.core.image import write_image
from poseglass.core.skeleton import Skeleton
from poseglass.estimators.load import load_top_down
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.evaluation.coco import CocoProtocol
from poseglass.evaluation.evaluate import evaluate
from poseglass.metrics import BoxAp, OksAp, Pck
from poseglass.readers import LabelledImages
from poseglass.synthetic import synthetic_people


@pytest.fixture(scope="module")
def people(tmp_path_factory) -> LabelledImages:
    """Return four synthetic people, their areas those of their boxes."""
    drawn = synthetic_people(4, seed=3, size_wh=(96, 96))
    folder = tmp_path_factory.mktemp("people")
    paths, labels = [], []
    for i in range(len(drawn)):
        sample = drawn[i]
        paths.append(folder / f"{i}.png")
        write_image(paths[-1], sample.image)
        box = sample.instances.box_xyxy
        area = (box[:, 2:] - box[:, :2]).prod(1) * 0.53
        labels.append(dataclasses.replace(sample.instances, extra={"area": area}))
    sigmas = tuple(np.full(len(drawn.skeleton), 0.08))
    skeleton = dataclasses.replace(drawn.skeleton, sigmas=sigmas)
    labels = [dataclasses.replace(one, skeleton=skeleton) for one in labels]
    return LabelledImages("people", skeleton, tuple(paths), labels, tuple(range(1, len(paths) + 1)))


@pytest.fixture(scope="module")
def estimator() -> TopDownEstimator:
    return load_top_down(size_wh=(96, 96))


def with_areas(people: LabelledImages, area: float) -> LabelledImages:
    labels = [
        dataclasses.replace(one, extra={"area": np.full(len(one), area)}) for one in map(people.instances, range(4))
    ]
    return dataclasses.replace(people, labels=labels)


def test_results_of_two_metrics_do_not_replace_each_other(people, estimator):
    with pytest.raises(ValueError, match=r"Names of results must differ .* got AP, .* from OksAp\); leave out one"):
        evaluate(estimator, people, [OksAp(), OksAp()])
    results = evaluate(estimator, people, [OksAp(), BoxAp()]).results
    assert results["box_AP"] == pytest.approx(1)  # the boxes are given
    assert "AP" in results


@pytest.mark.parametrize("area", [0.0, 1.0, 1e9])
def test_oks_is_not_measured_by_areas_that_cannot_be(people, estimator, area):
    wrong = with_areas(people, area)
    with pytest.raises(ValueError, match=r'OKS divides by the area of a person, and that of 4 of 4 .*area = "box"'):
        evaluate(estimator, wrong, [OksAp()])
    with pytest.raises(ValueError, match="cannot be that of their boxes"):
        CocoProtocol().check(wrong, wrong.skeleton)
    CocoProtocol(box_area_factor=0.53).check(wrong, wrong.skeleton)  # takes that of the boxes
    assert evaluate(estimator, wrong, [Pck("box_diagonal")]).results  # asks for none
    CocoProtocol().check(people, people.skeleton)


def test_names_in_another_spelling_are_compared(people, estimator):
    pck = evaluate(estimator, people, [Pck("box_diagonal")]).results
    renamed = dataclasses.replace(
        people.skeleton,
        keypoints=tuple(spelt(name) for name in people.skeleton.keypoints),
        bones=(),
        flip_pairs=None,
    )
    labels = [dataclasses.replace(people.instances(i), skeleton=renamed) for i in range(4)]
    other = dataclasses.replace(people, skeleton=renamed, labels=labels)
    assert evaluate(estimator, other, [Pck("box_diagonal")]).results == pck


def spelt(name: str) -> str:
    side, _, rest = name.partition("_")
    return f"{rest.title()}{side[0].upper()}" if side in ("left", "right") else name.title().replace("_", " ")


def test_a_flip_test_of_keypoints_without_known_pairs_is_refused_or_left_out(people, estimator):
    plain = Skeleton("plain", tuple(f"p{i}" for i in range(len(estimator.skeleton))))
    program = dataclasses.replace(estimator.torch_program, network_skeleton=plain)
    unsided = dataclasses.replace(estimator, program=program)
    with pytest.raises(ValueError, match=r"There is no flip test for skeleton 'plain': no two of the names differ"):
        unsided.with_flip_test(True)
    labels = [dataclasses.replace(people.instances(i), skeleton=plain) for i in range(4)]
    data = dataclasses.replace(people, skeleton=dataclasses.replace(plain), labels=labels)
    protocol = CocoProtocol(sigmas=tuple(people.skeleton.sigmas), flip_test=True)
    assert not protocol.adjusted(unsided).flip_test
    assert "no flip test, as no two of the names differ by left and right" in protocol.convention(unsided)
    protocol.check(data, plain)


def test_ids_that_are_texts_need_no_numbers_unless_detections_do(people, tmp_path: Path):
    named = dataclasses.replace(people, image_ids=("a", "b", "c", "d"))
    CocoProtocol().check(named, named.skeleton)
    (tmp_path / "det.json").write_text('[{"image_id": 1, "category_id": 1, "bbox": [1, 1, 9, 9], "score": 0.5}]')
    with pytest.raises(ValueError, match="has image ids that are strings, such as 'a'"):
        CocoProtocol(detections=str(tmp_path / "det.json")).check(named, named.skeleton)
