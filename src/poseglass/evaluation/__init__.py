"""Layer 8: evaluation of weights on a dataset, with the same estimator that users call."""

from collections.abc import Callable

from poseglass.evaluation.coco import CocoProtocol
from poseglass.evaluation.mpii import MpiiProtocol

PROTOCOLS: dict[str, Callable[..., CocoProtocol | MpiiProtocol]] = {
    "coco": CocoProtocol,
    "mpii": MpiiProtocol,
}
"""Protocols by name, for ``poseglass evaluate --protocol NAME``."""
