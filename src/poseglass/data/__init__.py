"""Layer 6: from data sets to batches."""

from collections.abc import Callable

from poseglass.core.sample import Dataset
from poseglass.readers import READERS
from poseglass.synthetic import SYNTHETIC

DATASETS: dict[str, Callable[..., Dataset]] = READERS | SYNTHETIC
"""Every data set that a recipe can name."""
