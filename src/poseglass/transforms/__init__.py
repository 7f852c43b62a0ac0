"""Layer 1: augmentation. There are three kinds, each identified by its one method.

| kind | method | acts on | examples |
|---|---|---|---|
| ViewTransform | ``choose_view(view, person, spec, rng)`` | what is read of the image | RandomAffine, HalfBody |
| Transform | ``__call__(sample, rng)`` | image, keypoints and boxes together | your own |
| Photometric | ``repaint(image, rng)`` | colours only | ColorJitter, Occlusion |

All maps that ViewTransforms draw are composed into one, and the image is warped once; a HalfBody is drawn first,
because it chooses the box. Transforms and Photometrics then follow in the order in which they are listed. The generator
is passed in and is the only source of randomness. Custom ones are tested before training by ``check_augmentation``.
"""

from poseglass.transforms.color import ColorJitter, Occlusion
from poseglass.transforms.geometry import RandomAffine
from poseglass.transforms.half_body import HalfBody
from poseglass.transforms.probe import check_augmentation
from poseglass.transforms.transform import (
    Augmentation,
    Photometric,
    Transform,
    TransformError,
    ViewTransform,
    kind_of,
    on_samples,
)

TRANSFORMS: dict[str, type] = {
    "random_affine": RandomAffine,
    "half_body": HalfBody,
    "color_jitter": ColorJitter,
    "occlusion": Occlusion,
}

__all__ = [
    "TRANSFORMS",
    "Augmentation",
    "ColorJitter",
    "HalfBody",
    "Occlusion",
    "Photometric",
    "RandomAffine",
    "Transform",
    "TransformError",
    "ViewTransform",
    "check_augmentation",
    "kind_of",
    "on_samples",
]
