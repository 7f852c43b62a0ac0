"""The independent readings of public layouts give what the public implementations gave."""

import runpy
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from poseglass.convert.reference import blocks, conv, norm
from poseglass.convert.reference_mmpose import corner_hourglass, pose_machine
from poseglass.convert.reference_msra import hrnet, simple_baseline


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("simplebaseline_r50_coco", simple_baseline),
        ("hrnet_w32_coco", hrnet),
        ("mmpose_simplebaseline_r50_coco", partial(simple_baseline, body="backbone.", head="head.")),
        ("mmpose_hrnet_w32_coco", partial(hrnet, body="backbone.", head="head.")),
        ("mmpose_hourglass52_coco", corner_hourglass),
        ("mmpose_cpm_mpii", pose_machine),
    ],
)
def test_references_agree_with_the_public_code(name: str, reference: Callable[..., Tensor], shared: Path) -> None:
    tools = SimpleNamespace(**runpy.run_path(str(shared / "checkpoints" / "fill.py")))
    keys = tools.load_keys(shared / "checkpoints" / f"{name}.json")
    expected = np.load(shared / "checkpoints" / f"{name}.npz")["heatmaps"][:1]
    stride = 8 if "cpm" in name else 4
    images = tools.image(expected.shape[2] * stride, expected.shape[3] * stride)[:1]
    with torch.no_grad():
        maps = reference(tools.fill(keys), images).numpy()
    assert np.abs(maps - expected).max() / np.abs(expected).max() < 1e-4


def test_blocks_end_where_their_names_do() -> None:
    """A basic block by hand: two convolutions, the stride in the first, and the shortcut of another shape."""
    random = torch.Generator().manual_seed(0)
    state: dict[str, Tensor] = {}
    for name, shape in (("conv1", (4, 2, 3, 3)), ("conv2", (4, 4, 3, 3)), ("downsample.0", (4, 2, 1, 1))):
        state[f"a.0.{name}.weight"] = torch.randn(shape, generator=random)
    for name in ("bn1", "bn2", "downsample.1"):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            state[f"a.0.{name}.{leaf}"] = torch.rand(4, generator=random) + 0.5
    x = torch.randn(1, 2, 8, 8, generator=random)
    inside = norm(state, "a.0.bn1", functional.conv2d(x, state["a.0.conv1.weight"], stride=2, padding=1)).relu()
    inside = norm(state, "a.0.bn2", conv(state, "a.0.conv2", inside))
    across = functional.conv2d(x[:, :, ::2, ::2], state["a.0.downsample.0.weight"])
    across = norm(state, "a.0.downsample.1", across)
    torch.testing.assert_close(blocks(state, "a", x, stride=2), (inside + across).relu())
    assert torch.equal(blocks(state, "b", x), x)
