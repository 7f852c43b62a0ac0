"""Layer 2: synthetic people, rendered with exact labels."""

from collections.abc import Callable

from poseglass.core.sample import Dataset
from poseglass.synthetic.people import SyntheticPeople, synthetic_people

SYNTHETIC: dict[str, Callable[..., Dataset]] = {
    "synthetic": synthetic_people,
}
"""Synthetic data sets by name; ``poseglass.data.DATASETS`` also has the readers."""

__all__ = ["SYNTHETIC", "SyntheticPeople", "synthetic_people"]
