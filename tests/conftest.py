"""What many tests share: a tiny trained-looking estimator in a file, and the folder beside the checkout."""

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # a worker has one core; set before anything starts threads
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"

import cv2
import numpy as np
import pytest
import torch

from poseglass.core.card import WeightCard
from poseglass.core.image import write_image
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeletons import LSP14
from poseglass.estimators.weights_file import save_weights
from poseglass.networks import StackedHourglass
from poseglass.synthetic.people import synthetic_people

SHARED = Path(__file__).resolve().parents[2] / "shared"


if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)
    cv2.setNumThreads(1)

LARGE = (
    "stacked_hourglass", "hg2", "hg4", "hg8", "unet", "pose_machine", "cpm", "cpn", "hrnet", "corner_hourglass",
    "hourglass", "simple_baseline", "dilated", "centernet",
)  # fmt: skip
"""Names, or their beginnings, of networks of published size, but for those that end in "_light"."""


def is_large(name: str) -> bool:
    """Tell whether a parameter of a test names a large network, or a recipe that trains one."""
    stem = Path(name).stem
    return not stem.endswith("_light") and any(stem == large or stem.startswith(f"{large}_") for large in LARGE)


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that want ../shared are skipped without it; with it they run. Those of large networks are slow."""
    for item in items:
        values = (
            item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()
        )
        if item.get_closest_marker("slow_when_large") and any(isinstance(v, str) and is_large(v) for v in values):
            item.add_marker(pytest.mark.slow)
    if not SHARED.is_dir():
        for item in items:
            if item.get_closest_marker("shared"):
                item.add_marker(pytest.mark.skip(reason="needs the folder ../shared next to the checkout"))


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs the folder ../shared next to the checkout")
    return SHARED


@pytest.fixture
def no_detector(monkeypatch):
    """Commands as they are where no detector ships: an image without boxes is one person who fills it."""
    monkeypatch.setattr("poseglass.estimators.load.DEFAULT_DETECTOR", None)


@pytest.fixture(scope="module")
def plain_reports():
    """Reports without figures, which take seconds; the whole page is tested in test_finish and test_report."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("poseglass.runs.finish.write_report", lambda path, report: path.write_text(str(report.notes)))
        yield


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file of a very small hourglass with random weights, 14 keypoints, 64 px."""
    torch.manual_seed(0)
    network = StackedHourglass(14, num_stacks=1, width=16, depth=2)
    card = WeightCard(
        name="tiny",
        network={"name": "stacked_hourglass", "num_keypoints": 14, "num_stacks": 1, "width": 16, "depth": 2},
        codec={"name": "heatmap", "activation": "softmax"},
        skeleton=LSP14,
        input=InputSpec((64, 64), 1.1),
    )
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    save_weights(path, network.state_dict(), card)
    return path


@pytest.fixture(scope="session")
def synthetic_person(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An image file of one synthetic person."""
    path = tmp_path_factory.mktemp("images") / "person.png"
    write_image(path, synthetic_people(1, seed=5, size_wh=(96, 120)).image(0))
    return path


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)
