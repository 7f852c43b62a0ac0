"""Layer 1: metrics compare predicted with true instances, in source pixels."""

from collections.abc import Callable

from poseglass.metrics.box_ap import BoxAp
from poseglass.metrics.center_f1 import CenterF1
from poseglass.metrics.errors import KeypointErrors
from poseglass.metrics.kitti_ap import KittiAp
from poseglass.metrics.metric import Metric
from poseglass.metrics.oks import OksAp
from poseglass.metrics.pck import Pck, pckh

METRICS: dict[str, Callable[..., Metric]] = {
    "pck": Pck,
    "pckh": pckh,
    "oks_ap": OksAp,
    "box_ap": BoxAp,
    "center_f1": CenterF1,
    "kitti_ap": KittiAp,
    "errors": KeypointErrors,
}
"""Metrics by name, for ``poseglass.core.table.build(METRICS, "pck", thresholds=(0.2,))``."""
