"""Criteria that a recipe can name; others are given as "package.module:name"."""

from collections.abc import Callable
from typing import Any

from poseglass.training.centernet import CenterNetCriterion
from poseglass.training.centernet_levels import CenterNetLevelsCriterion

CRITERIA: dict[str, Callable[..., Any]] = {
    "centernet": CenterNetCriterion,
    "centernet_levels": CenterNetLevelsCriterion,
}
"""Criteria of codecs of several instances, by the name of their codec."""
