"""DLA-34: its count, what its roots read, and what it refuses."""

import pytest
import torch
from torch.nn import functional

from poseglass.backbones.dla import DLA, PooledBlock, Tree, dla34
from poseglass.networks.cost import multiply_adds, parameters


def test_parameters_are_the_published_ones_without_a_classifier() -> None:
    with torch.device("meta"):
        backbone = dla34()
    classifier = 512 * 1000 + 1000
    assert parameters(backbone) == 15_229_104
    assert f"{15_229_104:,} parameters; a classifier of 1000 classes would add {classifier:,}" in (dla34.__doc__ or "")
    assert f"{(parameters(backbone) + classifier) / 1e6:.2f}" == "15.74"
    # OpenVINO's model zoo states 6.1368 GFLOPs: two for a multiply-add, with the classifier and without batch norm.
    assert 2 * multiply_adds(backbone, (224, 224)) / 1e9 == pytest.approx(6.1368, rel=5e-3)
    assert backbone.channels == (64, 128, 256, 512)


def test_a_tree_of_depth_two_is_four_blocks_and_two_roots() -> None:
    torch.manual_seed(0)
    tree = Tree(2, 3, 4, stride=2, carried=3).eval()
    images = torch.rand(1, 3, 16, 8)
    pooled = functional.max_pool2d(images, 2)
    left, right = tree.first, tree.second
    assert isinstance(left, Tree)
    assert isinstance(right, Tree)
    with torch.no_grad():
        a = left.first(images)
        b = left.second(a)
        assert left.root is not None
        ab = left.root(torch.cat([b, a], 1))
        c = right.first(ab)
        d = right.second(c)
        assert right.root is not None
        expected = right.root(torch.cat([d, c, pooled, ab], 1))
        assert torch.equal(tree(images, [pooled]), expected)
    assert expected.shape == (1, 4, 8, 4)


def test_the_shortcut_of_a_strided_block_is_max_pooled() -> None:
    torch.manual_seed(0)
    block = PooledBlock(4, 4, stride=2).eval()
    assert block.shortcut is None
    torch.nn.init.zeros_(block.inside2.conv.weight)
    images = torch.rand(1, 4, 8, 6)
    with torch.no_grad():
        assert torch.equal(block(images), functional.max_pool2d(images, 2))


def test_stages_read_their_input_except_for_the_first() -> None:
    first, *others = DLA((1, 1, 1, 1), width=2).trees
    roots = [tree.root for tree in (first, *others) if isinstance(tree, Tree)]
    assert [root.conv.in_channels for root in roots if root is not None] == [16, 2 * 16 + 8, 2 * 32 + 16, 2 * 64 + 32]


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(ValueError, match=r"DLA: depths must be four numbers of at least 1.*got \[1, 2, 2\]"):
        DLA((1, 2, 2))
    with pytest.raises(ValueError, match=r"DLA: depths must be four numbers of at least 1.*got \[1, 2, 0, 1\]"):
        DLA((1, 2, 0, 1))
    with pytest.raises(ValueError, match="DLA: width must be at least 1, got 0"):
        dla34(width=0)
