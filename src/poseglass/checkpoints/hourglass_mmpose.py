"""Imports Hourglass-52 (and deeper) of open-mmlab/mmpose: CornerNet's hourglass with 1x1 heads.

mmpose 1.x names the head ``head``, 0.x ``keypoint_head``. A network of one stack stores a residual between stacks that
is never run: it is skipped.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from poseglass.checkpoints import reference_mmpose
from poseglass.checkpoints.corner_hourglass_lineage import hourglass_names, hourglass_sizes
from poseglass.checkpoints.importer import Importer, convolution, shape_of
from poseglass.checkpoints.resnet_lineage import conv_then_norm, residual_block
from poseglass.checkpoints.top_down import IMAGENET_MEAN, IMAGENET_STD, MMPOSE, OLDER_MMPOSE
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeletons import COCO17
from poseglass.estimators.weights_file import CheckpointError
from poseglass.networks.corner_hourglass import BLOCKS, WIDTHS

LAYOUT = f"an hourglass of {MMPOSE.repository}"

PUBLISHED = {"hourglass_52": 1, "hourglass_104": 2}
"""Number of stacks of the named networks."""


def recognises(keys: Collection[str]) -> bool:
    """Return whether these names have this layout."""
    return "backbone.hourglass_modules.0.up1.0.conv1.weight" in keys


def network(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Read stacks, keypoints, widths and blocks from the names and shapes.

    Raises:
        CheckpointError: A required tensor is missing.
    """
    num_keypoints = shape_of(state, "head.multi_final_layers.0.weight", 4, LAYOUT)[0]
    num_stacks = len({key.split(".")[2] for key in state if key.startswith("backbone.hourglass_modules.")})
    widths, blocks = hourglass_sizes(state, "backbone.hourglass_modules.0", LAYOUT)
    for name, count in PUBLISHED.items():
        if (num_stacks, tuple(widths), tuple(blocks)) == (count, WIDTHS, BLOCKS):
            return {"name": name, "num_keypoints": num_keypoints}
    table = {"name": "corner_hourglass", "num_keypoints": num_keypoints, "num_stacks": num_stacks}
    return table | {"widths": widths, "blocks": blocks}


def names(network: Mapping[str, Any]) -> dict[str, str]:
    """Return our name to mmpose's for every tensor of a network described by a card's table.

    Raises:
        CheckpointError: Another network, for which the layout has no names.
    """
    num_stacks = PUBLISHED.get(network["name"]) or network.get("num_stacks", 1)
    if network["name"] not in (*PUBLISHED, "corner_hourglass"):
        raise CheckpointError(
            f"Network {network['name']!r} is not {LAYOUT}; expected {', '.join(PUBLISHED)} or corner_hourglass."
        )
    widths, blocks = network.get("widths", WIDTHS), network.get("blocks", BLOCKS)
    sources = conv_norm("trunk.stem", "backbone.stem.0")
    sources |= residual_block("trunk.stem_residual", "backbone.stem.1.0", 2, shortcut=True)
    for i in range(num_stacks):
        sources |= hourglass_names(
            f"trunk.hourglasses.{i}", f"backbone.hourglass_modules.{i}", widths, blocks, _residual
        )
        sources |= conv_norm(f"trunk.outputs.{i}", f"backbone.out_convs.{i}")
        sources |= convolution(f"heads.{i}.conv", f"head.multi_final_layers.{i}")
    for i in range(num_stacks - 1):
        sources |= conv_norm(f"trunk.keep.{i}", f"backbone.conv1x1s.{i}")
        sources |= conv_norm(f"trunk.feedback.{i}", f"backbone.remap_convs.{i}")
        sources |= residual_block(f"trunk.between.{i}", f"backbone.inters.{i}", 2, shortcut=False)
    return sources


def never_run(network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Return the residual that mmpose stores after the last stack and never runs, if there is one stack."""
    if (PUBLISHED.get(network["name"]) or network.get("num_stacks", 1)) > 1:
        return {}
    width = network.get("widths", WIDTHS)[0]
    shapes: dict[str, tuple[int, ...]] = {}
    for name in residual_block("", "backbone.inters.0", 2, shortcut=False).values():
        counter, kernel = name.endswith("num_batches_tracked"), ".conv" in name
        shapes[name] = () if counter else (width, width, 3, 3) if kernel else (width,)
    return shapes


def conv_norm(new: str, old: str) -> dict[str, str]:
    """Return our name to mmpose's for a convolution without bias and its norm."""
    return conv_then_norm(new, f"{old}.conv", f"{old}.bn")


def _residual(new: str, old: str, shortcut: bool) -> dict[str, str]:
    return residual_block(new, old, 2, shortcut=shortcut)


IMPORTER = Importer(
    name="hourglass_mmpose",
    source=MMPOSE,
    recognises=recognises,
    layout=LAYOUT,
    names=names,
    network=network,
    skeletons={17: COCO17},
    input=InputSpec(size_wh=(256, 256), padding=1.25, mean=IMAGENET_MEAN, std=IMAGENET_STD, crop="msra"),
    older=OLDER_MMPOSE,
    never_run=never_run,
    reference=reference_mmpose.corner_hourglass,
    codec={"name": "heatmap", "alignment": "corner", "stride": 4, "sigma": 2.0},
    notes="The original decodes with a quarter offset and flip test.",
    doubt="Assumed to be trained at 256 x 256; weights trained at 384 x 384 have the same names: they need that "
    "size, and a sigma of 3, in their card.",
)
