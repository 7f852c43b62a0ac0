"""WholeImages: the images of a dataset as augmented network input, each with everybody in it."""

import dataclasses
from collections.abc import Iterable
from dataclasses import KW_ONLY, dataclass, field

import numpy as np

from poseglass.core.boxes import area
from poseglass.core.input_spec import InputSpec
from poseglass.core.instances import Instances
from poseglass.core.sample import Dataset, PoseSample, boxes_complete
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import counted
from poseglass.core.view import View
from poseglass.data.crops import REDUCTIONS
from poseglass.data.examples import Place, box_of_points, sorted_augmentations
from poseglass.transforms import Augmentation, HalfBody, Transform, TransformError, ViewTransform

LEAST_VISIBLE = 0.1
"""An instance with a smaller share of its box in the view is neither learnt from nor counted as background."""


@dataclass(frozen=True, slots=True, eq=False)
class WholeImages:
    """Every image of a dataset with a labelled instance, shown whole in a view and then augmented.

    For networks that find any number of instances. The image is shown as large as fits, in the middle of the view;
    augmentation then scales, shifts and flips it. Whatever an image has is in its sample: instances with boxes but no
    keypoints too, and crowds, which codecs leave out of the loss.

    Args:
        dataset: Images with instances.
        input: Size of the views, and normalisation; padding and crop rule are those of single instances, and unused.
        augment: As in ``Crops``, but without HalfBody.
        seed: Seed of all augmentation.
        sizes_wh: Sizes of views that will be used, to test custom augmentations; None takes ``input.size_wh``.

    Attributes:
        images: ``(M,)`` int64, the images in the dataset that are shown: those with an instance that is not a crowd.
        labels: All instances of these images but crowds, in the pixels of their files.
        notes: What was assumed or excluded, a sentence each: boxes made around keypoints, images without instances,
            crowds, instances with neither box nor keypoints, images in which not everything is labelled.

    Raises:
        ValueError: No image has a labelled instance.
        TransformError: An augmentation is invalid, or separates image and labels; or it is a HalfBody.
    """

    dataset: Dataset
    input: InputSpec
    augment: tuple[Augmentation, ...] = ()
    _: KW_ONLY
    seed: int = 0
    sizes_wh: tuple[tuple[int, int], ...] = ()
    images: np.ndarray = field(init=False)
    labels: Instances = field(init=False)
    notes: tuple[str, ...] = field(init=False)
    _of_image: list[Instances] = field(init=False, repr=False)
    _views: tuple[ViewTransform, ...] = field(init=False, repr=False)
    _transforms: tuple[Transform, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        refuse_half_body(self.augment)
        found = labelled_images(self.dataset)
        views, transforms = sorted_augmentations(
            tuple(self.augment), found.labels[:1], self.input, self.sizes_wh or (self.input.size_wh,)
        )
        for name, value in (
            ("images", found.images), ("labels", found.labels), ("notes", found.notes), ("_of_image", found.of_image),
            ("augment", tuple(self.augment)), ("_views", views), ("_transforms", transforms),
        ):  # fmt: skip
            object.__setattr__(self, name, value)

    @property
    def skeleton(self) -> Skeleton:
        """Skeleton of the dataset."""
        return self.dataset.skeleton

    @property
    def kind(self) -> str:
        """What an example is: "images"."""
        return "images"

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, place: Place) -> PoseSample:
        """Show, augment and return one image with its instances.

        Instances outside the view are dropped; those of which less than ``LEAST_VISIBLE`` is in it become crowds.

        Raises:
            TransformError: A custom augmentation returns another size or number of instances, which the test of it did
                not show.
        """
        epoch, number, width, height = place
        rng = np.random.default_rng([self.seed, epoch, number])
        index, instances = int(self.images[number]), self._of_image[number]
        size_wh = self.dataset.size_wh(index)
        view = whole = View.letterbox(size_wh, (width, height))
        for choice in self._views:
            view = choice.choose_view(view, instances, self.input, rng)
        if instances.box_3d is not None:
            scaled = abs(view.to_view.scale / whole.to_view.scale - 1) > 1e-6
            instances = dataclasses.replace(
                instances, extra={**instances.extra, "scaled": np.full(len(instances), scaled)}
            )
        return sample_of_view(self.dataset, index, instances, view, self._transforms, rng, epoch=epoch)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledParts:
    """The images of a dataset in which something is labelled.

    Args:
        images: ``(M,)`` int64, those with an instance that is not a crowd.
        of_image: Their instances, crowds too, all with boxes, in the pixels of the files.
        labels: All instances of these images but crowds.
        empty: ``(E,)`` int64, the images in which everything is labelled and nothing is: they show background alone.
        notes: What was assumed or excluded, a sentence each.
    """

    images: np.ndarray
    of_image: list[Instances]
    labels: Instances
    empty: np.ndarray
    notes: tuple[str, ...]


def labelled_images(dataset: Dataset) -> LabelledParts:
    """Return the images of a dataset in which something is labelled; boxes are made around keypoints where none is.

    Raises:
        ValueError: No image has a labelled instance.
    """
    images: list[int] = []
    empty: list[int] = []
    parts: list[Instances] = []
    excluded = made = nowhere = 0
    for i in range(len(dataset)):
        instances, of_points, dropped = _with_boxes(dataset.instances(i))
        nowhere += dropped
        if not len(instances) and not dropped and boxes_complete(dataset, i):
            empty.append(i)
        if not len(instances) or crowds(instances).all():
            excluded += 1
            continue
        made += of_points
        images.append(i)
        parts.append(instances)
    if not images:
        raise ValueError(
            f"None of the {len(dataset)} images has a labelled instance with a box or keypoints. Look at the "
            "data with `poseglass check`."
        )
    everything = Instances.concatenate(parts)
    crowd = crowds(everything)
    labels = everything[~crowd] if crowd.any() else everything
    partly = [not boxes_complete(dataset, i) for i in images]
    notes = []
    if excluded:
        notes.append(f"{counted(excluded, 'image')} of {len(dataset):,} without a labelled instance excluded.")
    if made:
        notes.append(f"{counted(made, 'annotation')} without a usable box: boxes were made around the keypoints.")
    if nowhere:
        notes.append(f"{counted(nowhere, 'annotation')} with neither a box nor a keypoint excluded.")
    if crowd.any():
        notes.append(f"{counted(int(crowd.sum()), 'crowd')}: nothing of their class is learnt inside.")
    if any(partly):
        notes.append(
            f"In {counted(sum(partly), 'image')} of {len(images):,} not everybody is labelled (boxes_complete is "
            "false): there, nothing is learnt as background."
        )
    return LabelledParts(np.array(images, np.int64), parts, labels, np.array(empty, np.int64), tuple(notes))


def refuse_half_body(augment: Iterable[Augmentation]) -> None:
    """Raise if an augmentation chooses a part of one person.

    Raises:
        TransformError: One does.
    """
    if any(isinstance(each, HalfBody) for each in augment):
        raise TransformError(
            "augment has a HalfBody, which chooses a part of one person, but a network that finds everybody is "
            "trained on whole images. Remove it, or use a codec of one instance."
        )


def sample_of_view(
    dataset: Dataset,
    index: int,
    instances: Instances,
    view: View,
    transforms: Iterable[Transform],
    rng: np.random.Generator,
    *,
    epoch: int,
) -> PoseSample:
    """Return a view of an image with the instances in it, after the augmentations that change pixels.

    Instances outside the view are dropped; those of which less than ``LEAST_VISIBLE`` is in it become crowds. Where not
    everything in the image is labelled, all around the instances becomes a crowd, too.

    Args:
        dataset: Has the image.
        index: Its number.
        instances: Its instances, in the pixels of the file.
        view: What is shown.
        transforms: The augmentations.
        rng: For the augmentations.
        epoch: For messages.

    Raises:
        TransformError: An augmentation returns another size or number of instances.
    """
    shown = _visible(instances.moved(view.to_view), view.size_wh)
    sample = PoseSample(_pixels(dataset, index, view), shown, view.home, dataset.source(index))
    for transform in transforms:
        sample = transform(sample, rng)
    width, height = view.size_wh
    if sample.size_wh != (width, height) or len(sample.instances) != len(shown):
        raise TransformError(
            f"A view of {width} x {height} pixels with {len(shown)} instances became {sample.size_wh[0]} x "
            f"{sample.size_wh[1]} with {len(sample.instances)} in epoch {epoch}, image {index}. Augmentations must "
            "keep the size and the instances; check your own in augment."
        )
    if not boxes_complete(dataset, index):
        sample = dataclasses.replace(
            sample, instances=_with_surroundings(sample.instances, instances[:1], sample.size_wh)
        )
    return sample


def _pixels(dataset: Dataset, index: int, view: View) -> np.ndarray:
    """Warp an image, decoded at the smallest size that is enough."""
    scale = view.to_view.scale
    size_wh = dataset.size_wh(index)
    reduce = next((r for r in reversed(REDUCTIONS) if scale * r <= 1.0), 1)
    image = dataset.image(index, reduce=reduce)
    if reduce > 1 and image.shape[0] * image.shape[1] * reduce >= size_wh[0] * size_wh[1]:
        reduce = 1  # the dataset returned the whole image
    return view.of_reduced(reduce).read(image)


def crowds(instances: Instances) -> np.ndarray:
    """Return which instances are crowds, ``(N,)`` bool."""
    return np.asarray(instances.extra.get("crowd", np.zeros(len(instances))), dtype=bool)


def _with_boxes(instances: Instances) -> tuple[Instances, int, int]:
    """Return instances that all have a box, the number of boxes made around keypoints, and of instances dropped."""
    box = instances.box_xyxy
    bad = ~np.isfinite(box).all(-1) | (box[:, 2] <= box[:, 0]) | (box[:, 3] <= box[:, 1])
    posed = instances.known.any(1) if len(instances.skeleton) else np.zeros(len(instances), bool)
    made = np.flatnonzero(bad & posed)
    if len(made):
        box = box.copy()
        for row in made:
            box[row] = box_of_points(np.where(instances.known[row, :, None], instances.xy[row], np.nan))
        instances = dataclasses.replace(instances, box_xyxy=box)
    keep = ~bad | posed
    return (instances if keep.all() else instances[keep]), len(made), int((~keep).sum())


def _visible(instances: Instances, size_wh: tuple[int, int]) -> Instances:
    """Return the instances in a view; those of which hardly anything is visible as crowds."""
    if not len(instances):
        return instances
    limit = np.array([*size_wh, *size_wh], np.float64) - 0.5
    clipped = np.clip(instances.box_xyxy.astype(np.float64), -0.5, limit)
    share = area(clipped) / np.maximum(area(instances.box_xyxy.astype(np.float64)), 1e-9)
    hidden = share < LEAST_VISIBLE
    if hidden.any():
        instances = dataclasses.replace(instances, extra={**instances.extra, "crowd": crowds(instances) | hidden})
    inside = share > 0
    return instances if inside.all() else instances[inside]


def _with_surroundings(instances: Instances, pattern: Instances, size_wh: tuple[int, int]) -> Instances:
    """Return instances with one more, a crowd of any class (-1) as large as the view: others may be unlabelled."""
    view = np.array([[-0.5, -0.5, size_wh[0] - 0.5, size_wh[1] - 0.5]], pattern.box_xyxy.dtype)
    around = dataclasses.replace(
        pattern, xy=np.full_like(pattern.xy, np.nan), score=np.zeros_like(pattern.score), box_xyxy=view,
        label=np.full_like(pattern.label, -1), extra={**pattern.extra, "crowd": np.ones(1, bool)},
        box_3d=None if pattern.box_3d is None else np.full_like(pattern.box_3d, np.nan),
    )  # fmt: skip
    if not len(instances):
        return around
    with_crowds = dataclasses.replace(instances, extra={**instances.extra, "crowd": crowds(instances)})
    return Instances.concatenate([with_crowds, around])
