"""Layer 8: converts checkpoints of public implementations to poseglass weights files."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from poseglass.checkpoints import (
    centernet_hourglass,
    centernet_resnet,
    cpm_mmpose,
    dla_imagenet,
    efficientnet_lite,
    hourglass_bearpaw,
    hourglass_mmpose,
    hourglass_princeton,
    hrnet_imagenet,
    hrnet_mmpose,
    hrnet_msra,
    mobilenet_v3,
    resnet_torchvision,
    simple_baseline_mmpose,
    simple_baseline_msra,
)
from poseglass.checkpoints.checkpoint import open_checkpoint
from poseglass.checkpoints.choose import Choice, choose
from poseglass.checkpoints.importer import Importer
from poseglass.core.card import WeightCard
from poseglass.core.shapes_only import shapes_only
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import SKELETONS
from poseglass.core.table import listed, lookup
from poseglass.estimators.fit import card_network, check_fit
from poseglass.estimators.weights_file import CheckpointError, check_finite, sha256_of

IMPORTERS: dict[str, Importer] = {
    importer.name: importer
    for importer in (
        hourglass_princeton.IMPORTER,
        hourglass_bearpaw.IMPORTER,
        hrnet_msra.IMPORTER,
        simple_baseline_msra.IMPORTER,
        simple_baseline_msra.IMPORTER_MICROSOFT,
        hrnet_mmpose.IMPORTER,
        simple_baseline_mmpose.IMPORTER,
        hourglass_mmpose.IMPORTER,
        cpm_mmpose.IMPORTER,
        centernet_hourglass.IMPORTER,
        centernet_resnet.IMPORTER,
        hrnet_imagenet.IMPORTER,
        resnet_torchvision.IMPORTER,
        *mobilenet_v3.IMPORTERS,
        efficientnet_lite.IMPORTER,
        dla_imagenet.IMPORTER,
    )
}


def recognise(state: Mapping[str, Tensor], layout: str = "") -> Importer:
    """Return the importer whose layout has these names; ``layout`` selects one explicitly.

    Raises:
        CheckpointError: No importer recognises the names.
        LookupError: No importer is called ``layout``.
    """
    if layout:
        return lookup(IMPORTERS, layout, kind="layout")
    for importer in IMPORTERS.values():
        if importer.recognises(state.keys()):
            return importer
    known = "; ".join(f"{i.name} ({i.source.repository})" for i in IMPORTERS.values())
    raise CheckpointError(
        f"No importer recognises a checkpoint with names such as {listed(list(state))} ({len(state)} tensors). "
        f"Known: {known}."
    )


def import_state(
    state: Mapping[str, Tensor],
    importer: Importer,
    *,
    skeleton: Skeleton | None = None,
    name: str = "",
    sha256: str = "",
    notes: Sequence[str] = (),
) -> tuple[dict[str, Tensor], WeightCard]:
    """Convert a state dict of a public layout to ours, and write its card; every tensor must be used.

    Args:
        state: State dict with the original names, prefixes stripped.
        importer: Importer of its layout.
        skeleton: Skeleton of its outputs, in order. None uses the layout's default for that number of keypoints.
        name: Name of the weights. Empty generates one: "hg8-mpii16-hourglass_princeton".
        sha256: SHA-256 of the file, for the card.
        notes: What was decided when the state was read from its file, as sentences for the card.

    Raises:
        CheckpointError: A tensor is missing, unexpected, of a wrong shape, NaN or infinite; or the skeleton is not
            known, or has a different number of keypoints than the checkpoint predicts.
    """
    keys = state.keys()
    try:
        current = importer.current(state)
        return _imported(current, importer, skeleton=skeleton, name=name, sha256=sha256, notes=notes)
    except CheckpointError as error:
        own = next((i.name for i in IMPORTERS.values() if i.recognises(keys)), importer.name)
        if own == importer.name or importer.recognises(keys):
            raise
        raise CheckpointError(
            f"The checkpoint is not {importer.layout}: its names are those of the layout {own!r}. Omit --layout, "
            f"or give that one."
        ) from error


def _imported(
    state: Mapping[str, Tensor],
    importer: Importer,
    *,
    skeleton: Skeleton | None,
    name: str,
    sha256: str,
    notes: Sequence[str],
) -> tuple[dict[str, Tensor], WeightCard]:
    network = importer.network(state)
    chosen = None
    if importer.part == "network":
        chosen = _skeleton(importer, int(network["num_keypoints"]), skeleton)
    elif skeleton is not None:
        raise CheckpointError(f"The checkpoint is {importer.layout}, only a backbone, which has no skeleton.")
    renamed = importer.rename(state, network)
    card = WeightCard(
        name=name or "-".join([network["name"], *([chosen.name] if chosen else []), importer.name]),
        network=network,
        codec=importer.codec_of(network),
        skeleton=chosen,
        input=importer.input_of(network),
        data="Not stated in the checkpoint.",
        license=f"Code: {importer.source.license}. Weights: the terms of whoever trained and published them.",
        source_url=importer.source.url,
        sha256=sha256,
        notes=" ".join((*_notes(importer, network, state), *notes)),
        part=importer.part,
        certificate={"checked": False},
        poseglass=version("poseglass"),
    )
    with shapes_only():  # shapes only: no memory for weights that may not fit
        built = card_network(card)
    check_fit(built, renamed, source=card.name)
    check_finite(renamed, f"The checkpoint {card.name!r}")
    return renamed, card


def read_network(path: str | Path, *, layout: str = "", take: str = "") -> Choice:
    """Return the network's tensors in a public checkpoint, its layout, and notes on how they were found.

    No code in the file is run, and tensors of a zipped checkpoint are memory-mapped rather than copied: keep the file
    until they are saved or loaded.

    Args:
        path: ``.pth``, ``.pt``, ``.pth.tar``, ``.pkl`` or ``.safetensors``.
        layout: Name of an importer, if the names are ambiguous.
        take: Path of the network in the file, if it contains several and the default choice is not the right one.

    Raises:
        FileNotFoundError: No such file.
        LookupError: No importer is called ``layout``.
        CheckpointError: The file cannot be read safely, or contains no network of a known layout.
    """
    checkpoint = open_checkpoint(path)
    with told_of(path):
        return choose(checkpoint, IMPORTERS, layout=layout, take=take)


def import_checkpoint(
    path: str | Path, *, skeleton: Skeleton | None = None, name: str = "", layout: str = "", take: str = ""
) -> tuple[dict[str, Tensor], WeightCard]:
    """Read a public checkpoint of a known layout; return a state dict with our names, and its card.

    Args:
        path: As in ``read_network``, whose notes go into the card.
        skeleton: Skeleton of its outputs, in order. None uses the layout's default for that number of keypoints.
        name: Name of the weights.
        layout: As in ``read_network``.
        take: As in ``read_network``.

    Raises:
        FileNotFoundError: No such file.
        CheckpointError: The file cannot be read safely, or does not match a known layout exactly.
    """
    found = read_network(path, layout=layout, take=take)
    with told_of(path):
        return import_state(
            found.state, found.importer, skeleton=skeleton, name=name, sha256=sha256_of(path), notes=found.notes
        )


@contextmanager
def told_of(path: str | Path) -> Iterator[None]:
    """Prefix errors with the path of the file."""
    try:
        yield
    except CheckpointError as error:
        text = str(error)
        raise CheckpointError(text if text.startswith(str(path)) else f"{path}: {text}") from error


def _notes(importer: Importer, network: Mapping[str, Any], state: Mapping[str, Tensor]) -> Iterator[str]:
    """Yield the card's notes on where the weights came from and how they were converted."""
    source = importer.source
    yield f"Imported from the layout of {source.repository} (commit {source.commit})."
    for text in (importer.notes, importer.doubt):
        if text:
            yield text
    unused = sum(name in state for name in importer.never_run(network))
    if unused:
        yield f"Excluded: {unused} tensors that the original stores but never runs."
    tail = sum(name.startswith(importer.excluded) for name in state)
    if tail:
        yield f"Excluded: {tail} tensors of the original that are not needed here."


def _skeleton(importer: Importer, num_keypoints: int, given: Skeleton | None) -> Skeleton:
    if given is None:
        if num_keypoints in importer.skeletons:
            return importer.skeletons[num_keypoints]
        fitting = [s.name for s in SKELETONS.values() if len(s) == num_keypoints]
        known = f" Known with {num_keypoints}: {', '.join(fitting)}." if fitting else ""
        raise CheckpointError(
            f"The checkpoint predicts {num_keypoints} keypoints and does not say which. Give their skeleton: "
            f"--skeleton NAME, or a JSON file.{known}"
        )
    if len(given) != num_keypoints:
        raise CheckpointError(
            f"The checkpoint predicts {num_keypoints} keypoints; skeleton {given.name!r} has {len(given)}. "
            "Give one with the same number, in the order of the outputs."
        )
    return given
