"""ChipImages: chips of a dataset's images as augmented network input (SNIPER).

``transforms.chips`` chooses the chips. Each box of a valid size is whole in one of them, boxes that a chip cuts are
labels, too, and parts of an image without objects are not shown, but for negative chips: those in which a briefly
trained network took much for objects. These may be of images without any object.
"""

import dataclasses
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from poseglass.core.boxes import share_inside, xyxy_to_xywh
from poseglass.core.files import write_bytes
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset, PoseSample, boxes_complete
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import counted
from poseglass.data.examples import Place, sorted_augmentations
from poseglass.data.whole_images import LabelledParts, crowds, labelled_images, refuse_half_body, sample_of_view
from poseglass.metrics.box_average_precision import pair_iou
from poseglass.transforms import Augmentation, Transform, TransformError, ViewTransform
from poseglass.transforms.chips import Chip, ChipRule


@dataclass(frozen=True, slots=True, eq=False)
class ChipImages:
    """Every positive chip of a dataset, and in each epoch some of its negative chips, augmented.

    The chips are chosen once, by the seed. Which negative chips an epoch shows depends on seed and epoch alone, so that
    a run that was stopped continues as it would have.

    Args:
        dataset: Images with instances.
        input: Normalisation; the views have the size of the rule's chips.
        augment: As in ``WholeImages``; scale and shift act on the chip.
        rule: Scales, valid ranges and size of the chips.
        seed: Seed of the choice of chips and of all augmentation.
        pool: Negative chips, as pairs of an image in the dataset and a chip.
        share: Negative chips in an epoch, as a share of the positive ones; at most the whole pool.

    Attributes:
        chips: The positive chips, as pairs of an image in the dataset and a chip.
        labels: All instances of the images but crowds, in the pixels of their files.
        notes: What was assumed or excluded, a sentence each, with the number of chips of each scale.

    Raises:
        ValueError: No image has a labelled instance, no box is of a valid size, a share below 0, or a pool is expected
            (a share above 0) and empty.
        TransformError: As ``WholeImages``.
    """

    dataset: Dataset
    input: InputSpec
    augment: tuple[Augmentation, ...] = ()
    _: KW_ONLY
    rule: ChipRule
    seed: int = 0
    pool: tuple[tuple[int, Chip], ...] = field(default=(), repr=False)
    share: float = 0.0
    chips: tuple[tuple[int, Chip], ...] = field(init=False, repr=False)
    labels: Instances = field(init=False, repr=False)
    notes: tuple[str, ...] = field(init=False)
    _of_image: dict[int, Instances] = field(init=False, repr=False)
    _views: tuple[ViewTransform, ...] = field(init=False, repr=False)
    _transforms: tuple[Transform, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        refuse_half_body(self.augment)
        if not 0 <= self.share < float("inf"):
            raise ValueError(f"The share of negative chips must be 0 or more, got {self.share}.")
        if self.share and not self.pool:
            raise ValueError(
                f"Negative chips are to be {self.share:g} times as many as positive ones, but the pool holds none. "
                "Lower the number of proposals that a negative chip needs (at_least), or train without them."
            )
        found = labelled_images(self.dataset)
        of_image = dict(zip((int(i) for i in found.images), found.of_image, strict=True))
        chips: list[tuple[int, Chip]] = []
        levels: Counter[int] = Counter()
        large = nowhere = outside = without = 0
        for image, instances in of_image.items():
            box, size_wh = instances.box_xyxy[~crowds(instances)], self.dataset.size_wh(image)
            chosen = self.rule.positive(box, size_wh, np.random.default_rng([self.seed, image]))
            chips += [(image, chip) for chip in chosen]
            levels.update(chip.level for chip in chosen)
            large += int(self.rule.too_large(box, size_wh).sum())
            beyond = share_inside(box, size_wh) == 0
            outside += int(beyond.sum())
            nowhere += int((self.rule.in_no_range(box, size_wh) & ~beyond).sum())
            without += not chosen
        if not chips:
            ranges = ", ".join(f"{scale.from_px:g} to {scale.up_to_px:g}" for scale in self.rule.scales)
            raise ValueError(
                f"None of {counted(len(found.labels), 'instance')} has a box with a size in a valid range of the "
                f"chips, {ranges} px (the square root of its area in the image), that fits into a chip. Change scales "
                "or ranges."
            )
        notes = [*found.notes, self._described(levels, len(of_image))]
        if without:
            notes.append(
                f"{counted(without, 'image')} without a positive chip: no box there has a valid size and fits into one."
            )
        if outside:
            notes.append(f"{counted(outside, 'instance')} with the whole box outside the image: shown by no chip.")
        if nowhere:
            notes.append(f"{counted(nowhere, 'instance')} in no valid range: learnt only where a chip shows them.")
        if large:
            notes.append(f"{counted(large, 'instance')} larger than a chip at every valid scale: only parts are shown.")
        background = int(np.isin([image for image, _ in self.pool], found.empty).sum())
        if background:
            notes.append(
                f"{counted(background, 'negative chip')} of images without a labelled instance, in which nothing is "
                "taken to be (boxes_complete)."
            )
        of_image |= dict.fromkeys(map(int, found.empty), found.labels[:0])
        self._check_pool(of_image)
        views, transforms = sorted_augmentations(
            tuple(self.augment), found.labels[:1], dataclasses.replace(self.input, size_wh=self.rule.size_wh),
            (self.rule.size_wh,),
        )  # fmt: skip
        if background:
            self._try_without_instances(views, found.labels[:0])
        for name, value in (
            ("chips", tuple(chips)), ("labels", found.labels), ("notes", tuple(notes)), ("_of_image", of_image),
            ("augment", tuple(self.augment)), ("_views", views), ("_transforms", transforms),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    def _try_without_instances(self, views: Sequence[ViewTransform], nobody: Instances) -> None:
        """Raise if an augmentation that chooses the view needs an instance: images of negative chips may have none.

        Raises:
            TransformError: It does.
        """
        for choice in views:
            try:
                choice.choose_view(self.pool[0][1].view, nobody, self.input, np.random.default_rng(0))
            except Exception as error:  # it is anybody's code
                raise TransformError(
                    f"{type(choice).__qualname__} chooses a view by the instances of the image, but negative chips may "
                    f"be of images that have none: {error!r}. Return the view as it is there, or state "
                    "boxes_complete = false for these images."
                ) from error

    def _check_pool(self, known: Mapping[int, Instances]) -> None:
        """Raise if the pool has a chip of an image whose instances are not known.

        Raises:
            ValueError: It has; the message names the image.
        """
        for image, _ in self.pool:
            if image not in known:
                raise ValueError(
                    f"A negative chip is of {self.dataset.source(image)}, in which no object is labelled, but "
                    "some may be there (boxes_complete is false, or there are crowds or annotations that are left "
                    "out). Make the negative chips again."
                )

    def _described(self, levels: Counter[int], images: int) -> str:
        """Return a sentence about the number of chips and pixels."""
        total = sum(levels.values())
        parts = [f"{levels[level]:,} at scale {scale.scale}" for level, scale in enumerate(self.rule.scales)]
        words = f"{counted(total, 'positive chip')} of {images:,} images ({', '.join(parts)})"
        return f"{words}, and {self._negatives(total):,} of {counted(len(self.pool), 'negative chip')} per epoch."

    def _negatives(self, positive: int) -> int:
        return min(round(self.share * positive), len(self.pool))

    @property
    def skeleton(self) -> Skeleton:
        """Skeleton of the dataset."""
        return self.dataset.skeleton

    @property
    def kind(self) -> str:
        """What an example is: "chips"."""
        return "chips"

    def __len__(self) -> int:
        return len(self.chips) + self._negatives(len(self.chips))

    def __getitem__(self, place: Place) -> PoseSample:
        """Show, augment and return one chip with its instances; numbers beyond the positive chips are negative ones.

        Raises:
            TransformError: As ``WholeImages``.
        """
        epoch, number, _, _ = place
        rng = np.random.default_rng([self.seed, epoch, number])
        image, chip = self._chip(epoch, number)
        view = chip.view
        for choice in self._views:
            view = choice.choose_view(view, self._of_image[image], self.input, rng)
        return sample_of_view(self.dataset, image, self._of_image[image], view, self._transforms, rng, epoch=epoch)

    def _chip(self, epoch: int, number: int) -> tuple[int, Chip]:
        if number < len(self.chips):
            return self.chips[number]
        chosen = np.random.default_rng([self.seed, epoch, 1]).permutation(len(self.pool))
        return self.pool[int(chosen[number - len(self.chips)])]


def without_doubt(dataset: Dataset) -> tuple[int, ...]:
    """Return the images in which everything is labelled, so that whatever else is found there is wrong."""
    return tuple(_without_doubt(dataset, labelled_images(dataset)))


def _without_doubt(dataset: Dataset, found: LabelledParts) -> dict[int, Instances]:
    """Return these images with their instances, of which there may be none."""
    complete = {
        int(image): instances
        for image, instances in zip(found.images, found.of_image, strict=True)
        if boxes_complete(dataset, int(image))
    }
    return complete | dict.fromkeys(map(int, found.empty), found.labels[:0])


def negative_chips(
    dataset: Dataset,
    rule: ChipRule,
    proposals: Sequence[np.ndarray],
    at_least: Sequence[int],
    *,
    seed: int = 0,
) -> tuple[tuple[int, Chip], ...]:
    """Return the negative chips of a dataset, as pairs of an image and a chip.

    In images without any object, whatever a network finds is wrong, and they have negative chips, too. Images in which
    not everything is labelled have none: what a network finds there may be an object. For the same reason, proposals
    that lie mostly in a crowd do not count, whatever its class.

    Args:
        dataset: Images with instances.
        rule: As in ``ChipImages``.
        proposals: Boxes ``(N, 4)`` that a briefly trained network found in each image of the dataset, image pixels.
        at_least: Proposals that a chip must show, for each scale.
        seed: That of ``ChipImages``, which has the same positive chips then.

    Raises:
        ValueError: Not one array of proposals per image, or as ``ChipRule.negative``.
    """
    if len(proposals) != len(dataset):
        raise ValueError(f"There are proposals for {len(proposals)} images, but the dataset has {len(dataset)}.")
    found = labelled_images(dataset)
    of_image = _without_doubt(dataset, found)
    pool: list[tuple[int, Chip]] = []
    for image, instances in sorted(of_image.items(), key=lambda item: item[0]):
        box, size_wh = instances.box_xyxy[~crowds(instances)], dataset.size_wh(image)
        positive = rule.positive(box, size_wh, np.random.default_rng([seed, image]))
        rng = np.random.default_rng([seed, image, 1])
        wrong = proposals[image][~_mostly_in(proposals[image], instances.box_xyxy[crowds(instances)])]
        chips = rule.negative(wrong, positive, size_wh, at_least, rng)
        pool += [(image, chip) for chip in chips]
    return tuple(pool)


def _mostly_in(box_xyxy: np.ndarray, crowd_xyxy: np.ndarray) -> np.ndarray:
    """Return which boxes ``(N, 4)`` have more than half of their area in one crowd ``(M, 4)``: ``(N,)`` bool."""
    inside = np.zeros(len(box_xyxy), bool)
    box_xywh = xyxy_to_xywh(box_xyxy)
    for crowd in xyxy_to_xywh(crowd_xyxy):
        inside |= pair_iou(box_xywh, np.tile(crowd, (len(box_xywh), 1)), np.ones(len(box_xywh), bool)) > 0.5
    return inside


def write_chips(
    path: str | Path,
    dataset: Dataset,
    chips: Sequence[tuple[int, Chip]],
    *,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write chips as JSON: the source of the image, scale and corner of each.

    Args:
        path: The file.
        dataset: Has the images.
        chips: Pairs of an image and a chip.
        settings: What decided which chips these are, kept in the file.

    Raises:
        OSError: The file cannot be written.
    """
    records = [
        {"image": image, "source": dataset.source(image), "level": chip.level, "scale": chip.scale,
         "corner_px": list(chip.corner_px), "size_wh": list(chip.size_wh)}
        for image, chip in chips
    ]  # fmt: skip
    write_bytes(path, json.dumps({"settings": dict(settings or {}), "chips": records}, indent=0).encode())


def read_chips(path: str | Path, dataset: Dataset, rule: ChipRule) -> tuple[tuple[int, Chip], ...]:
    """Read what ``write_chips`` wrote for the same dataset and rule.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It is not such a file, or does not fit the dataset or the rule.
    """
    path = Path(path)
    try:
        records = json.loads(path.read_text())["chips"]
        chips = [
            (int(r["image"]), str(r["source"]),
             Chip(int(r["level"]), (int(r["corner_px"][0]), int(r["corner_px"][1])), float(r["scale"]),
                  (int(r["size_wh"][0]), int(r["size_wh"][1]))))
            for r in records
        ]  # fmt: skip
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{path}: expected negative chips as poseglass writes them, but {error!r}.") from error
    for number, (image, source, chip) in enumerate(chips):
        here = f"{path}: chip {number}"
        if not 0 <= image < len(dataset) or dataset.source(image) != source:
            raise ValueError(f"{here} is of {source}, which is not image {image} of the data. Make the chips again.")
        fits = 0 <= chip.level < len(rule.scales) and chip.size_wh == rule.size_wh
        if not fits or not np.isclose(chip.scale, rule.factor(chip.level, dataset.size_wh(image))):
            raise ValueError(f"{here} has another scale or size than the recipe's chips. Make the chips again.")
    return tuple((image, chip) for image, _, chip in chips)
