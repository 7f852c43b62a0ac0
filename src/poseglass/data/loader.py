"""Batches of views in a reproducible order, made by worker processes that always terminate."""

import atexit
import multiprocessing
import signal
import threading
import weakref
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from poseglass.core.box_3d import observe
from poseglass.core.instances import Instances
from poseglass.core.sample import PoseSample
from poseglass.core.targets import RawBatch, Targets
from poseglass.data.examples import Examples, Place


class PlaceSampler(Sampler[list[Place]]):
    """Yields the batches of all epochs from a given step on; with several ranks, this rank's share of each.

    Args:
        num_examples: Number of examples: people, or whole images.
        batch_size: Over all ranks together.
        sizes_wh: View size of each epoch.
        seed: Seed of the order.
        start_step: Batches to skip, counted over all epochs.
        rank: Rank of this process.
        world: Number of processes.

    Raises:
        ValueError: Fewer examples than a batch, or a batch that cannot be divided among the processes.
    """

    def __init__(
        self,
        num_examples: int,
        *,
        batch_size: int,
        sizes_wh: Sequence[tuple[int, int]],
        seed: int,
        start_step: int = 0,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        if num_examples < batch_size:
            raise ValueError(
                f"The batch of {batch_size} is larger than the data set of {num_examples} examples. "
                f"Set train.batch_size to at most {num_examples}."
            )
        if batch_size % world:
            raise ValueError(f"The batch of {batch_size} cannot be divided among {world} processes; use a multiple.")
        self.num_examples, self.batch_size, self.sizes_wh, self.seed = num_examples, batch_size, list(sizes_wh), seed
        self.start_step, self.rank, self.world = start_step, rank, world
        self.steps_per_epoch = num_examples // batch_size

    def __iter__(self) -> Iterator[list[Place]]:
        for epoch in range(self.start_step // self.steps_per_epoch, len(self.sizes_wh)):
            order = np.random.default_rng([self.seed, epoch, 0x5EED]).permutation(self.num_examples)
            first = max(self.start_step - epoch * self.steps_per_epoch, 0)
            width, height = self.sizes_wh[epoch]
            for step in range(first, self.steps_per_epoch):
                batch = order[step * self.batch_size : (step + 1) * self.batch_size]
                yield [(epoch, int(i), width, height) for i in batch[self.rank :: self.world]]

    def __len__(self) -> int:
        return self.steps_per_epoch * len(self.sizes_wh) - self.start_step


def collate(samples: Sequence[PoseSample]) -> RawBatch:
    """Stack samples of one skeleton, with any number of instances each, into tensors, padded to the largest number.

    Images stay uint8 ``(B, H, W, 3)`` until they are on the device.

    Raises:
        ValueError: Images of several sizes, which cannot share a batch.
    """
    sizes = sorted({s.size_wh for s in samples})
    if len(sizes) > 1:
        raise ValueError(
            f"A batch holds views of one size, got {' and '.join(f'{w} x {h}' for w, h in sizes)} pixels. Read each "
            "image through a View of one size."
        )
    people = [s.instances for s in samples]
    most = max(1, *(len(p) for p in people))

    def padded(arrays: Sequence[np.ndarray], dtype: type, empty: float = 0.0) -> Tensor:
        """Return arrays ``(N, ...)`` as ``(B, most, ...)``, ``empty`` where there is no instance."""
        out = np.full((len(arrays), most, *arrays[0].shape[1:]), empty, dtype)
        for row, array in zip(out, arrays, strict=True):
            row[: len(array)] = array
        return torch.from_numpy(out)

    def told(arrays: Sequence[np.ndarray | None], dtype: type, nothing: float = 0.0) -> Tensor | None:
        """Return an optional array of every sample that has instances, None if one of them lacks it."""
        there = [a for a, p in zip(arrays, people, strict=True) if len(p) and a is not None]
        if not there or len(there) < sum(len(p) > 0 for p in people):
            return None
        empty = np.zeros((0, *there[0].shape[1:]))
        given = [empty if a is None or not len(p) else a for a, p in zip(arrays, people, strict=True)]
        return padded(given, dtype, nothing)

    known = [p.known for p in people]
    return RawBatch(
        images=torch.from_numpy(np.stack([s.image for s in samples])),
        targets=Targets(
            xy=padded([np.where(k[..., None], p.xy, 0.0) for p, k in zip(people, known, strict=True)], np.float32),
            known=padded(known, np.float32),
            valid=padded([np.ones(len(p), bool) for p in people], np.bool_),
            label=padded([p.label for p in people], np.int64),
            box_xyxy=padded([np.nan_to_num(p.box_xyxy) for p in people], np.float32),
            crowd=padded([np.asarray(p.extra.get("crowd", np.zeros(len(p)))) > 0 for p in people], np.bool_),
            occluded=told([p.keypoint_extra.get("occluded") for p in people], np.bool_),
            xyz_mm=told([p.xyz_mm for p in people], np.float32, np.nan),
            observed_3d=told([_observed(p) for p in people], np.float32, np.nan),
            scaled=told([p.extra.get("scaled") for p in people], np.bool_),
        ),
        to_source=torch.from_numpy(np.stack([s.to_source.matrix for s in samples])),
        sources=[s.source for s in samples],
    )


def _observed(people: Instances) -> np.ndarray | None:
    """Return what the view shows of boxes in space, ``(N, 8)``; None without boxes or the camera's projection."""
    if people.box_3d is None or people.projection is None:
        return None
    return observe(people.box_3d, people.projection)


def _start_worker(_worker: int) -> None:
    # Ctrl-C and a service manager's SIGTERM reach the whole process group. The training process alone decides when to
    # stop, saves a checkpoint and ends its workers; a worker that died first would make that checkpoint impossible.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


class Batches:
    """Batches in the sampler's order. ``close`` ends the processes that make them, at program exit at the latest.

    Those processes ignore SIGTERM (see ``_start_worker``), which Python sends to its remaining children before it waits
    for them: a process that was not closed would keep the program from exiting.
    """

    def __init__(self, loader: DataLoader) -> None:
        before = set(multiprocessing.active_children())
        batches = iter(loader)
        workers = [process for process in multiprocessing.active_children() if process not in before]
        self._batches = batches
        # by garbage collection, by ``close``, or before Python waits for its children: once, whichever comes first
        self._end = weakref.finalize(self, _end_workers, batches, workers)
        atexit.register(self._end)

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> RawBatch:
        return next(self._batches)

    def close(self) -> None:
        """End the processes; no more batches follow. Calling it again does nothing."""
        self._end()
        atexit.unregister(self._end)
        self._batches = iter(())


def _end_workers(batches: Iterator[RawBatch], workers: Sequence[BaseProcess]) -> None:
    # PyTorch has no public function for it: it relies on an iterator being collected as soon as it is unused, which
    # one in the traceback of a kept exception is not.
    end = getattr(batches, "_shutdown_workers", None)
    try:
        if end is not None:
            end()
    finally:  # a worker that hangs in a read does not respond, and PyTorch gives up on it after some seconds
        _kill(workers)


def _kill(workers: Sequence[BaseProcess]) -> None:
    alive = [worker for worker in workers if worker.is_alive()]
    if not alive:
        return
    # PyTorch takes the signal of a killed worker that it still tracks as a crash, and its handler raises in the main
    # thread, where that could lose what waiting for the worker returns.
    held = hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGCHLD, signal.SIG_DFL) if held else None
    try:
        for worker in alive:
            worker.kill()
        for worker in alive:
            worker.join()
    finally:
        if before is not None:
            signal.signal(signal.SIGCHLD, before)


def load_batches(examples: Examples, sampler: PlaceSampler, *, workers: int) -> Batches:
    """Return batches in the sampler's order, made by ``workers`` processes (0: in this one)."""
    loader = DataLoader(
        examples,  # type: ignore[arg-type]  # indexed by Place, not by int
        batch_sampler=sampler,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=_start_worker,
        prefetch_factor=4 if workers else None,
        pin_memory=torch.cuda.is_available(),
    )
    return Batches(loader)
