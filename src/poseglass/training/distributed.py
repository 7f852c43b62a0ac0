"""Distributed training: the rank of this process, and the collective operations that training needs.

``torchrun --nproc-per-node N -m poseglass train ...`` starts N processes, each with its share of every batch and its
part of every evaluation. The first one (rank 0) prints and writes files; all of them make the same decisions.
"""

import gc
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")

PATIENCE = timedelta(hours=12)
"""How long processes wait for the slowest part of an evaluation; torchrun detects a dead process within a second."""


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a run, seen from one of them.

    Args:
        rank: Rank of this process; 0 is the first.
        world: Number of processes.
        local_rank: Rank of this process on its machine: the GPU that it uses.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process prints and writes files."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over processes, the same in all of them; with one process, the values themselves."""
        if self.world == 1:
            return values
        joint = values.clone()
        distributed.all_reduce(joint)
        return joint / self.world

    def share(self, value: T) -> T:
        """Return the first process's value in all processes."""
        if self.world == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def once(self, work: Callable[[], T]) -> T:
        """Run a function in the first process while the others wait; all return its result or raise its error."""
        error: BaseException | None = None
        result: T | None = None
        if self.first:
            try:
                result = work()
            except (Exception, KeyboardInterrupt) as caught:
                error = caught
        result, sent = self.share((result, _sendable(error)))
        error = error or sent
        if error is not None:
            raise error
        return result  # type: ignore[return-value]

    def part_of(self, sizes: Sequence[int]) -> slice:
        """Return the consecutive items that this process handles, about as much work as the other processes get.

        The parts of all ranks, concatenated in order of rank, are all items in their order.

        Args:
            sizes: The work of each item, such as the number of boxes in an image; not all 0.

        Example:
            >>> [Processes(rank, 3).part_of([1, 1, 4, 1, 0, 1]) for rank in range(3)]
            [slice(0, 2, None), slice(2, 3, None), slice(3, 6, None)]
        """
        # an item goes to the process in whose share of the work its middle lies
        whole = 2 * max(sum(sizes), 1)
        owners = [(2 * end - size) * self.world // whole for end, size in zip(accumulate(sizes), sizes, strict=True)]
        begin = sum(owner < self.rank for owner in owners)
        end = len(owners) if self.rank == self.world - 1 else sum(owner <= self.rank for owner in owners)
        return slice(begin, end)

    def gather(self, work: Callable[[], T]) -> list[T]:
        """Run a function in every process and gather the results in the first.

        If it fails or is interrupted in one of them, all raise that error once all have finished, so no process waits
        for a result that never comes.

        Args:
            work: Returns something that ``pickle`` can send.

        Returns:
            The results by rank in the first process; in the others, only their own.
        """
        if self.world == 1:
            return [work()]
        error: BaseException | None = None
        mine: list[T] = []
        sent = b""
        try:
            mine.append(work())
            sent = b"" if self.first else pickle.dumps(mine)
        except (Exception, KeyboardInterrupt) as caught:
            error = caught
        errors: list[BaseException | None] = [None] * self.world
        distributed.all_gather_object(errors, _sendable(error))
        for rank, other in enumerate(errors):
            if other is not None:  # its own error has the traceback
                raise error if error is not None and rank == self.rank else other
        received = [b""] * self.world
        distributed.gather_object(sent, received if self.first else None, dst=0)
        for data in received[1:] if self.first else ():
            mine += pickle.loads(data)
        return mine


def _sendable(error: BaseException | None) -> BaseException | None:
    """Return an error or, if it cannot be sent to another process, one with the same message."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # an error class of third-party code may raise anything when pickled
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


ALONE = Processes()
"""A single process, the usual case."""


def from_environment(environment: Mapping[str, str] = os.environ) -> Processes:
    """Return the processes as torchrun describes them in the environment; without torchrun, a single one.

    Raises:
        ValueError: The environment states several processes but not the rank of this one.
    """
    try:
        world = int(environment.get("WORLD_SIZE", "1"))
        if world < 2:
            return ALONE
        return Processes(int(environment["RANK"]), world, int(environment.get("LOCAL_RANK", environment["RANK"])))
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"WORLD_SIZE is {environment.get('WORLD_SIZE')!r}, but RANK or LOCAL_RANK is missing or not a number "
            f"({error}). Start several processes with: torchrun --nproc-per-node N -m poseglass train RECIPE."
        ) from None


def join(processes: Processes, device: torch.device) -> None:
    """Initialise the process group: gloo on a CPU, nccl on CUDA. Does nothing for one process or if it is initialised.

    Raises:
        RuntimeError: PyTorch was built without ``torch.distributed``.
    """
    if processes.world == 1:
        return
    if not distributed.is_available():
        raise RuntimeError("This PyTorch build has no torch.distributed; train in one process, without torchrun.")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)


def leave() -> None:
    """Destroy the process group; otherwise torch warns when the program ends.

    Objects that still hold the group (a wrapped network in a reference cycle) are collected first: gloo's threads would
    outlive it, and a process with live threads at exit is aborted.
    """
    if distributed.is_available() and distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()
