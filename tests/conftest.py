"""What many tests share: a tiny trained-looking estimator in a file, and the folder beside the checkout."""

from pathlib import Path

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that want ../shared are skipped without it; with it they run."""
    if not SHARED.is_dir():
        for item in items:
            if item.get_closest_marker("shared"):
                item.add_marker(pytest.mark.skip(reason="needs the folder ../shared beside the checkout"))


@pytest.fixture
def shared() -> Path:
    if not SHARED.is_dir():
        pytest.skip("needs the folder ../shared beside the checkout")
    return SHARED


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
