"""Layer 2: synthetic people and pages, rendered with exact labels."""

from collections.abc import Callable

from poseglass.core.sample import Dataset
from poseglass.synthetic.pages import Pages, pages
from poseglass.synthetic.people import SyntheticPeople, synthetic_people

SYNTHETIC: dict[str, Callable[..., Dataset]] = {
    "synthetic": synthetic_people,
    "pages": pages,
}
"""Synthetic data sets by name; ``poseglass.data.DATASETS`` also has the readers."""

__all__ = ["SYNTHETIC", "Pages", "SyntheticPeople", "pages", "synthetic_people"]
