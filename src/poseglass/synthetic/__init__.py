"""Layer 2: synthetic people, rendered with exact labels."""

from collections.abc import Callable

from poseglass.core.sample import Dataset
from poseglass.synthetic.people import SyntheticPeople, synthetic_people

SYNTHETIC: dict[str, Callable[..., Dataset]] = {
    "synthetic": synthetic_people,
}
"""Synthetic sets by name; ``poseglass.data.DATASETS`` has the readers besides."""

__all__ = ["SYNTHETIC", "SyntheticPeople", "synthetic_people"]
