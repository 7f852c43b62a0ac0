"""Layer 2: synthetic people, pages and streets, rendered with exact labels."""

from collections.abc import Callable

from poseglass.core.sample import Dataset
from poseglass.synthetic.pages import Pages, pages
from poseglass.synthetic.people import SyntheticPeople, synthetic_people
from poseglass.synthetic.streets import Streets, streets

SYNTHETIC: dict[str, Callable[..., Dataset]] = {
    "synthetic": synthetic_people,
    "pages": pages,
    "streets": streets,
}
"""Synthetic data sets by name; ``poseglass.data.DATASETS`` also has the readers."""

__all__ = ["SYNTHETIC", "Pages", "Streets", "SyntheticPeople", "pages", "streets", "synthetic_people"]
