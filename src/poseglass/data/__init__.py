"""Layer 6: from data sets to batches."""

from collections.abc import Callable

from poseglass.core.sample import Dataset
from poseglass.data.composed_scenes import composed
from poseglass.readers import READERS
from poseglass.synthetic import SYNTHETIC

DATASETS: dict[str, Callable[..., Dataset]] = READERS | SYNTHETIC | {"composed": composed}
"""Every data set that a recipe can name."""
