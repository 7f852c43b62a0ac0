"""poseglass: a PyTorch toolkit to train, evaluate and deploy keypoint models.

Four lines from a photograph to a pose::

    import poseglass as pg

    estimate = pg.load()
    image = pg.read_image("street.jpg")
    people = estimate(image, boxes=[[40, 10, 220, 400]])
    pg.write_image("out.png", pg.draw(image, people))
"""

__version__ = "0.1.0"

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from poseglass.core.affine import Affine as Affine
    from poseglass.core.card import WeightCard as WeightCard
    from poseglass.core.image import read_image as read_image
    from poseglass.core.image import write_image as write_image
    from poseglass.core.input_spec import InputSpec as InputSpec
    from poseglass.core.instances import Instances as Instances
    from poseglass.core.sample import PoseSample as PoseSample
    from poseglass.core.skeleton import Skeleton as Skeleton
    from poseglass.core.table import build as build
    from poseglass.drawing.pose import draw as draw
    from poseglass.estimators.load import load as load
    from poseglass.estimators.load import load_detector as load_detector
    from poseglass.estimators.load import load_top_down as load_top_down
    from poseglass.estimators.onestage import OneStageEstimator as OneStageEstimator
    from poseglass.estimators.topdown import TopDownEstimator as TopDownEstimator
    from poseglass.estimators.twostage import TwoStageEstimator as TwoStageEstimator

_HOMES = {
    "Affine": "poseglass.core.affine",
    "WeightCard": "poseglass.core.card",
    "read_image": "poseglass.core.image",
    "write_image": "poseglass.core.image",
    "InputSpec": "poseglass.core.input_spec",
    "Instances": "poseglass.core.instances",
    "PoseSample": "poseglass.core.sample",
    "Skeleton": "poseglass.core.skeleton",
    "build": "poseglass.core.table",
    "draw": "poseglass.drawing.pose",
    "load": "poseglass.estimators.load",
    "load_detector": "poseglass.estimators.load",
    "load_top_down": "poseglass.estimators.load",
    "OneStageEstimator": "poseglass.estimators.onestage",
    "TopDownEstimator": "poseglass.estimators.topdown",
    "TwoStageEstimator": "poseglass.estimators.twostage",
}
"""The module of each name. It is imported when the name is used for the first time, since PyTorch takes a second."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'poseglass' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*_HOMES, *(name for name in globals() if name.startswith("__"))})
