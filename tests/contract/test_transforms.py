"""Every augmentation that ships passes the probe that one's own has to pass, and draws from its generator alone."""

import numpy as np
import pytest

from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import SKELETONS
from poseglass.transforms import TRANSFORMS, check_augmentation, kind_of

KINDS = {"random_affine": "view", "half_body": "view", "color_jitter": "photometric", "occlusion": "photometric"}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRANSFORMS)
@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
@pytest.mark.parametrize("size_wh", [(32, 32), (96, 128)])
def test_every_transform_passes_the_probe(name: str, skeleton: Skeleton, size_wh: tuple[int, int]) -> None:
    person = Instances.from_keypoints(skeleton, np.random.default_rng(0).uniform(0, 99, (1, len(skeleton), 2)))
    check_augmentation(TRANSFORMS[name](), person, InputSpec(size_wh), (size_wh, (64, 64)), name=name)


@pytest.mark.parametrize("name", TRANSFORMS)
def test_every_transform_is_of_one_kind(name: str) -> None:
    assert kind_of(TRANSFORMS[name](), name) == KINDS[name]
