"""CenterNet on a pyramid: its counts, its levels, one head for all, and its whole way as an exported graph."""

import warnings

import numpy as np
import pytest
import torch

from poseglass.codecs.centernet_levels import CenterNetLevelsCodec
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import build
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.networks import NETWORKS
from poseglass.networks.centernet_fpn import CenterNetFPN
from poseglass.networks.cost import multiply_adds, parameters
from poseglass.programs.exported import exported
from poseglass.programs.torch_program import TorchProgram


@pytest.mark.slow
@pytest.mark.parametrize(("num_classes", "count"), [(80, 13_624_916), (1, 13_619_781)])
def test_counts_without_keypoints(num_classes: int, count: int) -> None:
    with torch.device("meta"):
        network = build(NETWORKS, "centernet_fpn_resnet18", num_keypoints=0, num_classes=num_classes)
    assert parameters(network) == count


def test_the_count_of_a_narrow_one_by_hand() -> None:
    """Laterals 1x1, smoothings 3x3 and one head for three levels, all with bias, over a ResNet-18 of width 8."""
    with torch.device("meta"):
        network = CenterNetFPN(0, num_classes=3, width=8, fpn_width=16, head_width=4)
    laterals = sum(16 * channels + 16 for channels in (16, 32, 64))
    smoothings = 3 * (16 * 16 * 9 + 16)
    head = 3 * (16 * 4 * 9 + 4) + (4 * 3 + 3) + 2 * (4 * 2 + 2)
    assert parameters(network) - parameters(network.backbone) == laterals + smoothings + head
    taken = multiply_adds(network, (64, 64)) - multiply_adds(network.backbone, (64, 64))
    pixels = (64, 16, 4)
    per_pixel = 16 * 16 * 9 + 3 * 16 * 4 * 9 + 4 * 3 + 2 * 4 * 2
    assert taken == sum(n * (16 * c + per_pixel) for n, c in zip(pixels, (16, 32, 64), strict=True))


def test_levels_have_their_strides_and_share_one_head() -> None:
    torch.manual_seed(0)
    network = CenterNetFPN(0, num_classes=3, width=8, fpn_width=16, head_width=4).eval()
    images = torch.rand(1, 3, 64, 96)
    (stage,) = network(images)
    assert network.strides == (8, 16, 32)
    assert set(stage) == set(CenterNetLevelsCodec(poses=False).spec.outputs)
    for key, shape in CenterNetLevelsCodec(poses=False).spec.shapes(0, (96, 64), 3).items():
        assert stage[key].shape == (1, *shape)
    with torch.no_grad():
        network.head.outputs["center"][-1].bias += 1.0  # type: ignore[operator]
    (after,) = network(images)
    for key, maps in stage.items():
        moved = 1.0 if key.startswith("center_") and "offset" not in key else 0.0
        torch.testing.assert_close(after[key], maps + moved)


@pytest.mark.slow
def test_the_whole_way_from_an_image_to_boxes_and_as_an_exported_graph() -> None:
    torch.manual_seed(0)
    network = CenterNetFPN(0, num_classes=3, width=8, fpn_width=16, head_width=4)
    with torch.no_grad():
        network.head.outputs["size"][-1].bias += 3.0  # type: ignore[operator]
    nothing = Skeleton("objects", ())
    program = TorchProgram(
        network, CenterNetLevelsCodec(poses=False, most=20), nothing, InputSpec((96, 64)), flip_test=True
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.export about itself
        graph = exported(program)
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (80, 120, 3), dtype=np.uint8) for _ in range(3)]
    ours = list(OneStageEstimator(program, 0.0).stream(images))
    theirs = list(OneStageEstimator(graph, 0.0).stream(images))
    for one, other in zip(ours, theirs, strict=True):
        assert len(one) == len(other) > 0
        np.testing.assert_allclose(one.box_xyxy, other.box_xyxy, atol=1e-2)
        np.testing.assert_allclose(one.box_score, other.box_score, atol=1e-5)
