"""LabelledImages: image files with their instances, as all readers of files return them."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import overload

import numpy as np

from poseglass.core.affine import Affine
from poseglass.core.image import read_header, read_with_levels, spread, white_levels
from poseglass.core.instances import Instances
from poseglass.core.levels import WhiteLevels
from poseglass.core.sample import PoseSample
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import listed


@dataclass(frozen=True, slots=True, eq=False)
class PackedLabels(Sequence[Instances]):
    """The instances of M images, stored as one block of arrays and sliced on demand.

    This way forty thousand people are a few arrays instead of a few hundred thousand: they take 20 MB, and are passed
    to a worker process at once.

    Args:
        everyone: All instances of all images, in image order.
        start: ``(M + 1,)`` int64: image ``i`` has the rows ``start[i]`` to ``start[i + 1]``.

    Raises:
        ValueError: ``start`` does not rise from 0 to the number of instances.
    """

    everyone: Instances
    start: np.ndarray

    def __post_init__(self) -> None:
        start = np.asarray(self.start, dtype=np.int64)
        if start.ndim != 1 or not len(start) or start[0] != 0 or start[-1] != len(self.everyone):
            raise ValueError(
                f"PackedLabels.start must run from 0 to {len(self.everyone)} (the number of instances) and have one "
                f"entry more than there are images, got shape {start.shape}."
            )
        if (np.diff(start) < 0).any():
            raise ValueError("PackedLabels.start must not decrease: image i has the rows start[i] to start[i + 1].")
        object.__setattr__(self, "start", start)

    def __len__(self) -> int:
        return len(self.start) - 1

    @overload
    def __getitem__(self, index: int) -> Instances: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Instances]: ...
    def __getitem__(self, index: int | slice) -> Instances | Sequence[Instances]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        i = _position(index, len(self))
        return self.everyone[self.start[i] : self.start[i + 1]]

    def __iter__(self) -> Iterator[Instances]:
        return (self[i] for i in range(len(self)))

    def taken(self, indices: np.ndarray) -> "PackedLabels":
        """Return the labels of selected images, ``indices`` ``(m,)`` int64, in that order."""
        counts = np.diff(self.start)[indices]
        start = np.concatenate([[0], np.cumsum(counts)])
        rows = np.repeat(self.start[:-1][indices] - start[:-1], counts) + np.arange(start[-1])
        return PackedLabels(self.everyone[rows], start)

    @classmethod
    def by_image(cls, everyone: Instances, image_of: np.ndarray, num_images: int) -> "PackedLabels":
        """Sort instances by their image, keeping their order within each: ``image_of`` is ``(N,)``, 0-based."""
        image_of = np.asarray(image_of, dtype=np.int64)
        order = np.argsort(image_of, kind="stable")
        start = np.concatenate([[0], np.cumsum(np.bincount(image_of, minlength=num_images))])
        return cls(everyone[order], start)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """Image files with their instances: a dataset (see ``core.sample.Dataset``).

    Labels are in memory, images are read on access.

    Args:
        name: Name of the dataset, "lspet/train".
        skeleton: Skeleton of every instance.
        paths: M image files; they need not exist as long as no image is read.
        labels: M ``Instances``, in the pixels of the file rotated upright: a tuple or ``PackedLabels``.
        image_ids: M ids as in the label file, whole numbers or strings, unique.
        sizes_wh: ``(M, 2)`` int64, the images' pixels as the label file states them; 0 where it does not. None if it
            states none.
        notes: What the reader assumed, corrected or excluded, a sentence each, for the user to read.
        classes: Names of the classes that the labels of the instances count through: ("person",), or any others.
        complete: ``(M,)`` bool, whether everybody (everything of the classes) in an image has a box; None: in all.
        projections: ``(M, 3, 4)`` float64, the calibrations of the images' cameras, camera frame in millimetres to
            pixels; None where they are not known.
        white: For images of more than 8 bits, the value that becomes 255. None finds it once for all of them, by the
            rule of ``core.levels``, from ``white_from``; it is the same in every process and in every subset.
        white_from: Images from which white is found; empty takes images spread evenly over the set.

    Raises:
        ValueError: Lengths differ, labels have another skeleton or a class beyond ``classes``, or image ids repeat.
    """

    name: str
    skeleton: Skeleton
    paths: tuple[Path, ...]
    labels: Sequence[Instances]
    image_ids: tuple[int | str, ...]
    sizes_wh: np.ndarray | None = None
    notes: tuple[str, ...] = ()
    white: float | None = None
    white_from: tuple[Path, ...] = field(default=(), repr=False)
    classes: tuple[str, ...] = ("person",)
    complete: np.ndarray | None = field(default=None, repr=False)
    projections: np.ndarray | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", tuple(Path(p) for p in self.paths))
        if not self.white_from:
            object.__setattr__(self, "white_from", tuple(spread(self.paths, 32)))
        if not isinstance(self.labels, PackedLabels):
            object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "image_ids", tuple(i if isinstance(i, str) else int(i) for i in self.image_ids))
        object.__setattr__(self, "notes", tuple(self.notes))
        m = len(self.paths)
        for what, length in (("labels", len(self.labels)), ("image_ids", len(self.image_ids))):
            if length != m:
                raise ValueError(f"LabelledImages {self.name!r}: {m} paths need {m} {what}, got {length}.")
        if len(set(self.image_ids)) != m:
            repeated = [i for i, times in Counter(self.image_ids).items() if times > 1][:5]
            raise ValueError(f"LabelledImages {self.name!r}: image_ids must be unique, repeated: {repeated}.")
        parts = [self.labels.everyone] if isinstance(self.labels, PackedLabels) else self.labels
        for part in parts:
            if part.skeleton != self.skeleton:
                raise ValueError(
                    f"LabelledImages {self.name!r}: labels have the skeleton {part.skeleton.name!r}, expected "
                    f"{self.skeleton.name!r}. Use Instances.in_skeleton() first."
                )
        object.__setattr__(self, "classes", tuple(self.classes))
        highest = max((int(part.label.max()) for part in parts if len(part)), default=0)
        if highest >= max(len(self.classes), 1):
            raise ValueError(
                f"LabelledImages {self.name!r}: a label is {highest}, but there are {len(self.classes)} classes "
                f"({listed(self.classes)}). Name a class for each label."
            )
        if self.complete is not None:
            complete = np.asarray(self.complete, dtype=bool)
            if complete.shape != (m,):
                raise ValueError(f"LabelledImages {self.name!r}: complete must be ({m},) bool, got {complete.shape}.")
            object.__setattr__(self, "complete", complete)
        if self.projections is not None and np.shape(self.projections) != (m, 3, 4):
            raise ValueError(
                f"LabelledImages {self.name!r}: projections must be ({m}, 3, 4), got {np.shape(self.projections)}."
            )
        if self.sizes_wh is not None:
            sizes = np.asarray(self.sizes_wh, dtype=np.int64)
            if sizes.shape != (m, 2):
                raise ValueError(f"LabelledImages {self.name!r}: sizes_wh must be ({m}, 2), got {sizes.shape}.")
            object.__setattr__(self, "sizes_wh", sizes)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> PoseSample:
        """Return the image at full size with its instances.

        Raises:
            IndexError: No image of that number.
            FileNotFoundError, ValueError: The image is missing or cannot be read.
        """
        i = _position(index, len(self))
        return PoseSample(self.image(i), self.labels[i], Affine.identity(), self.source(i))

    def instances(self, index: int) -> Instances:
        """Return the labels of an image in the file's full pixels, without decoding it."""
        return self.labels[_position(index, len(self))]

    def source(self, index: int) -> str:
        """Return the path of an image."""
        return str(self.paths[_position(index, len(self))])

    def image(self, index: int, *, reduce: int = 1) -> np.ndarray:
        """Return the image ``(H, W, 3)`` uint8 RGB; a JPEG at ``1/reduce`` of its size (1, 2, 4 or 8).

        Raises:
            FileNotFoundError: It does not exist; the message says how to set the folder of the images.
            ValueError: It cannot be decoded, or its size differs from the one that the labels declare.
        """
        i = _position(index, len(self))
        try:
            image = read_with_levels(self.paths[i], reduce=reduce, white=self.levels)[0]
        except FileNotFoundError as error:
            raise _with_remedy(error) from None
        if self.sizes_wh is not None and (self.sizes_wh[i] > 0).all():
            self._check_size(i, (image.shape[1], image.shape[0]), reduce)
        return image

    def check_images(self, *, most: int) -> int:
        """Open the headers of at most ``most`` images, evenly spread, and compare their sizes with the declared ones.

        Returns:
            The number of images opened.

        Raises:
            FileNotFoundError, ValueError: One is missing, cannot be read, or does not have the declared size.
        """
        count = min(most, len(self))
        for i in sorted({int(i) for i in np.linspace(0, len(self) - 1, count)} if count else ()):
            try:
                size_wh = header_size_wh(self.paths[i])
            except FileNotFoundError as error:
                raise _with_remedy(error) from None
            if self.sizes_wh is not None and (self.sizes_wh[i] > 0).all():
                self._check_size(i, size_wh, 1)
        return count

    def _check_size(self, index: int, got_wh: tuple[int, int], reduce: int) -> None:
        """Raise if the size of an image, full or reduced, is not the one that the labels declare.

        Raises:
            ValueError: It is not; the keypoints would be in the wrong places.
        """
        assert self.sizes_wh is not None
        declared = (int(self.sizes_wh[index, 0]), int(self.sizes_wh[index, 1]))
        if got_wh in (declared, (-(-declared[0] // reduce), -(-declared[1] // reduce))):
            return
        width, height = header_size_wh(self.paths[index])
        if (width, height) == declared:  # the decoder has chosen the reduced size
            return
        turned = " Width and height are exchanged: was the image rotated after it was labelled?"
        raise ValueError(
            f"{self.paths[index]} is {width} x {height} pixels, the labels {self.name!r} declare {declared[0]} x "
            f"{declared[1]}.{turned if (height, width) == declared else ''} Keypoints must be in pixels of the image "
            "itself. If they are, correct width and height in the labels, or read them with the data set's option "
            'sizes = "file"; if they are of another size, scale the image or the keypoints.'
        )

    @property
    def levels(self) -> float | WhiteLevels:
        """White level of images of more than 8 bits, found on first access."""
        return self.white if self.white is not None else _white_of(self.white_from)

    def whites(self) -> dict[str, float]:
        """Return the white level of each kind of values of more than 8 bits; it reads up to 32 images.

        Kinds of which every image declares its own white level are left out.
        """
        found = dict(_white_of(self.white_from).whites)
        return found if self.white is None else dict.fromkeys(found, float(self.white))

    def white_notes(self) -> list[str]:
        """Return what was guessed about images of more than 8 bits, a sentence each; it reads up to 32 images.

        ``dataclasses.replace(dataset, white=4095)`` returns the same data with another white level.
        """
        return (
            []
            if self.white is not None
            else _white_of(self.white_from).notes("The data set's option white overrides it.")
        )

    def size_wh(self, index: int) -> tuple[int, int]:
        """Return width and height of an image at full size: as the labels state, else from the file's header.

        Raises:
            FileNotFoundError, ValueError: The labels state none, and the file is missing or not an image.
        """
        i = _position(index, len(self))
        if self.sizes_wh is not None and (self.sizes_wh[i] > 0).all():
            return int(self.sizes_wh[i, 0]), int(self.sizes_wh[i, 1])
        return header_size_wh(self.paths[i])

    def boxes_complete(self, index: int) -> bool:
        """Return whether everybody in an image has a box; if not, what lies outside the boxes may still be people."""
        i = _position(index, len(self))
        return self.complete is None or bool(self.complete[i])

    def projection(self, index: int) -> np.ndarray | None:
        """Return the calibration of an image's camera, ``(3, 4)``, camera frame in millimetres to pixels, or None."""
        i = _position(index, len(self))
        return None if self.projections is None else np.asarray(self.projections[i])

    @property
    def num_instances(self) -> int:
        """The number of instances in all images."""
        return len(self.everyone)

    @property
    def everyone(self) -> Instances:
        """All instances of all images, in image order."""
        if isinstance(self.labels, PackedLabels):
            return self.labels.everyone
        return Instances.concatenate(self.labels) if self.labels else Instances.empty(self.skeleton)

    def subset(self, indices: Iterable[int] | np.ndarray, *, name: str | None = None) -> "LabelledImages":
        """Return some of the images, by index or by a mask of M booleans.

        Raises:
            IndexError: No image of that number.
        """
        chosen = np.asarray(indices if isinstance(indices, np.ndarray) else list(indices))
        if chosen.dtype == bool:
            if len(chosen) != len(self):
                raise ValueError(f"subset: a mask must have {len(self)} entries (one per image), got {len(chosen)}.")
            chosen = np.flatnonzero(chosen)
        rows = np.array([_position(int(i), len(self)) for i in chosen], dtype=np.int64)
        labels = self.labels.taken(rows) if isinstance(self.labels, PackedLabels) else [self.labels[i] for i in rows]
        return replace(
            self,
            name=self.name if name is None else name,
            paths=tuple(self.paths[i] for i in rows),
            labels=labels,
            image_ids=tuple(self.image_ids[i] for i in rows),
            sizes_wh=None if self.sizes_wh is None else self.sizes_wh[rows],
            complete=None if self.complete is None else self.complete[rows],
            projections=None if self.projections is None else self.projections[rows],
        )


def header_size_wh(path: Path) -> tuple[int, int]:
    """Read width and height of an image from its header, upright: those of the image that is decoded.

    Raises:
        FileNotFoundError: No such file.
        ValueError: The file is not an image.
    """
    return read_header(path).size_wh


@lru_cache(maxsize=64)
def _white_of(paths: tuple[Path, ...]) -> WhiteLevels:
    """Return the white levels of the images of a data set, found once in each process."""
    return white_levels(paths)


def _with_remedy(error: FileNotFoundError) -> FileNotFoundError:
    """Return the error of a missing image with a hint on how to set the folder of the images."""
    return FileNotFoundError(
        f"{error} If the images are not beside their labels, set their folder: --images FOLDER, or "
        'images = "FOLDER" in a recipe.'
    )


def _position(index: int, length: int) -> int:
    if not -length <= index < length:
        raise IndexError(f"image {index} of {length}: expected {-length} to {length - 1}.")
    return index + length if index < 0 else index
