"""Crops: the people of a dataset as network input, augmented; and batches of them in a reproducible order.

An augmentation depends on (seed, epoch, person) alone and the order of people on (seed, epoch) alone, so training can
stop after any step and go on bit for bit, with any number of loader processes.
"""

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from poseglass.core.affine import Affine
from poseglass.core.batch import PoseBatch
from poseglass.core.boxes import fit_aspect, whole_image
from poseglass.core.card import InputSpec
from poseglass.core.sample import Dataset, PoseSample
from poseglass.core.skeleton import Skeleton
from poseglass.transforms import Photometric, RandomAffine, warp_image

Place = tuple[int, int, int, int]
"""Epoch, person, crop width, crop height: what one item of a batch is made from."""


@dataclass(frozen=True, slots=True, eq=False)
class Crops:
    """Every labelled person of a dataset as one crop.

    Args:
        dataset: Images with instances.
        input: Crop size, padding.
        affine: Draws the geometric augmentation, or None.
        photometric: Applied to the crop in order.
        seed: Of all augmentation.

    Attributes:
        people: ``(P, 2)`` int64, image and row of each person with a labelled keypoint; crowds are left out.

    Raises:
        ValueError: No person of the dataset has a labelled keypoint.
    """

    dataset: Dataset
    input: InputSpec
    affine: RandomAffine | None = None
    photometric: tuple[Photometric, ...] = ()
    seed: int = 0
    people: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        rows = []
        for i in range(len(self.dataset)):
            instances = self.dataset.instances(i)
            use = instances.known.any(1)
            if "crowd" in instances.extra:
                use &= ~np.asarray(instances.extra["crowd"], dtype=bool)
            rows += [(i, row) for row in np.flatnonzero(use)]
        if not rows:
            raise ValueError(
                f"None of the {len(self.dataset)} images has a person with a labelled keypoint (v > 0). "
                "Look at the data with `poseglass check`."
            )
        object.__setattr__(self, "people", np.array(rows, dtype=np.int64).reshape(-1, 2))

    @property
    def skeleton(self) -> Skeleton:
        """Of the dataset."""
        return self.dataset.skeleton

    def __len__(self) -> int:
        return len(self.people)

    def __getitem__(self, place: Place) -> PoseSample:
        """Cut, augment and return one person's crop; the sample holds that person alone."""
        epoch, index, width, height = place
        image_index, row = (int(v) for v in self.people[index])
        person = self.dataset.instances(image_index)[row]
        rng = np.random.default_rng([self.seed, epoch, index])
        box = person.box_xyxy[0].astype(np.float64)
        if not np.isfinite(box).all() or box[2] <= box[0] or box[3] <= box[1]:
            box = _box_of_points(person.xy[0])
        to_crop = Affine.crop(fit_aspect(box, self.input.aspect, padding=self.input.padding), (width, height))
        if self.affine is not None:
            to_crop = to_crop.then(self.affine.draw((width, height), rng))
        crop = self._pixels(image_index, to_crop, (width, height))
        for change in self.photometric:
            crop = change(crop, rng)
        return PoseSample(crop, person.moved(to_crop), to_crop.inverse(), self.dataset.source(image_index))

    def _pixels(self, image_index: int, to_crop: Affine, size_wh: tuple[int, int]) -> np.ndarray:
        # A JPEG decoded at 1/2, 1/4 or 1/8 is enough where the crop shrinks at least that much.
        reduce = next((r for r in (8, 4, 2) if to_crop.scale * r <= 1.0), 1)
        image = self.dataset.image(image_index, reduce=reduce)
        if reduce > 1:
            full_wh = self.dataset.size_wh(image_index)
            decoded_wh = (image.shape[1], image.shape[0])
            if decoded_wh != full_wh:
                to_crop = Affine.crop(whole_image(full_wh), decoded_wh).inverse().then(to_crop)
        return warp_image(image, to_crop, size_wh)


def _box_of_points(xy: np.ndarray) -> np.ndarray:
    """Return a box around known points ``(K, 2)``, a fifth larger than their extent and at least 8 px."""
    known = xy[np.isfinite(xy).all(-1)].astype(np.float64)
    low, high = known.min(0), known.max(0)
    half = np.maximum((high - low) * 0.6, 4.0)
    center = (low + high) / 2
    return np.concatenate([center - half, center + half])


class PlaceSampler(Sampler[list[Place]]):
    """Yields the batches of all epochs from a step on; with several ranks, this rank's share of each.

    Args:
        num_people: Of the dataset.
        batch_size: Over all ranks together.
        sizes_wh: Crop size of each epoch.
        seed: Of the order.
        start_step: Batches to skip, counted over all epochs.
        rank: Of this process.
        world: Number of processes.

    Raises:
        ValueError: Fewer people than a batch, or a batch that does not divide among the processes.
    """

    def __init__(
        self,
        num_people: int,
        *,
        batch_size: int,
        sizes_wh: Sequence[tuple[int, int]],
        seed: int,
        start_step: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if num_people < batch_size:
            raise ValueError(
                f"The batch of {batch_size} is larger than the dataset of {num_people} people. "
                f"Set train.batch_size to at most {num_people}."
            )
        if batch_size % world:
            raise ValueError(f"The batch of {batch_size} does not divide among {world} processes; take a multiple.")
        self.num_people, self.batch_size, self.sizes_wh, self.seed = num_people, batch_size, list(sizes_wh), seed
        self.start_step, self.rank, self.world = start_step, rank, world
        self.steps_per_epoch = num_people // batch_size

    def __iter__(self) -> Iterator[list[Place]]:
        for epoch in range(self.start_step // self.steps_per_epoch, len(self.sizes_wh)):
            order = np.random.default_rng([self.seed, epoch, 0x5EED]).permutation(self.num_people)
            first = max(self.start_step - epoch * self.steps_per_epoch, 0)
            width, height = self.sizes_wh[epoch]
            for step in range(first, self.steps_per_epoch):
                batch = order[step * self.batch_size : (step + 1) * self.batch_size]
                yield [(epoch, int(i), width, height) for i in batch[self.rank :: self.world]]

    def __len__(self) -> int:
        return self.steps_per_epoch * len(self.sizes_wh) - self.start_step


def collate(samples: Sequence[PoseSample]) -> PoseBatch:
    """Put crops of one person each into tensors; images stay uint8 ``(B, H, W, 3)`` until they are on the device."""
    xy = np.stack([s.instances.xy for s in samples])
    known = np.stack([s.instances.known for s in samples])
    return PoseBatch(
        images=torch.from_numpy(np.stack([s.image for s in samples])),
        xy=torch.from_numpy(np.where(known[..., None], xy, 0.0).astype(np.float32)),
        weight=torch.from_numpy(known.astype(np.float32)),
        box_xyxy=torch.from_numpy(np.stack([s.instances.box_xyxy for s in samples])),
        to_source=torch.from_numpy(np.stack([s.to_source.matrix for s in samples])),
        sources=[s.source for s in samples],
    )


def _start_worker(_worker: int) -> None:
    # Ctrl-C and a service manager's SIGTERM reach the whole process group. The training process alone decides when to
    # stop, keeps a checkpoint and ends its workers; a worker that died first would take the checkpoint with it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def load_batches(crops: Crops, sampler: PlaceSampler, *, workers: int) -> Iterator[PoseBatch]:
    """Yield batches in the sampler's order, made by ``workers`` processes (0: in this one)."""
    loader = DataLoader(
        crops,  # type: ignore[arg-type]  # indexed by Place, not by int
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_start_worker,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    return iter(loader)
