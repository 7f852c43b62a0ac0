"""Layer 8: what weights reach: the estimator that a user calls, over a data set."""

from collections.abc import Callable

from poseglass.evaluation.coco import CocoProtocol
from poseglass.evaluation.mpii import MpiiProtocol

PROTOCOLS: dict[str, Callable[..., CocoProtocol | MpiiProtocol]] = {
    "coco": CocoProtocol,
    "mpii": MpiiProtocol,
}
"""Protocols by name, for ``poseglass evaluate --protocol NAME``."""
