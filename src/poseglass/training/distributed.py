"""Training in several processes: who I am among them, and the few things that all must know together.

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
"""How long processes wait for the slowest part of an evaluation; torchrun notices a dead one within a second."""


@dataclass(frozen=True, slots=True)
class Processes:
    """The processes of a run, seen from one of them.

    Args:
        rank: Of this process, 0 the first.
        world: How many there are.
        local_rank: Of this process on its machine: which GPU it takes.
    """

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @property
    def first(self) -> bool:
        """Whether this process prints and writes files."""
        return self.rank == 0

    def mean(self, values: Tensor) -> Tensor:
        """Return the mean over processes, the same in all of them; alone, the values themselves."""
        if self.world == 1:
            return values
        joint = values.clone()
        distributed.all_reduce(joint)
        return joint / self.world

    def share(self, value: T) -> T:
        """Return the first process's value in all of them."""
        if self.world == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, src=0)
        return box[0]

    def once(self, work: Callable[[], T]) -> T:
        """Do something in the first process while the others wait; they get its result, or raise its error too."""
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
        """Return which of some things this process takes: neighbours, about as much work as the others take.

        In the order of the ranks the parts are the whole, in its order.

        Args:
            sizes: The work of each thing, such as the number of boxes of an image; not all 0.

        Example:
            >>> [Processes(rank, 3).part_of([1, 1, 4, 1, 0, 1]) for rank in range(3)]
            [slice(0, 2, None), slice(2, 3, None), slice(3, 6, None)]
        """
        # a thing goes to the process in whose share of the work its middle lies
        whole = 2 * max(sum(sizes), 1)
        owners = [(2 * end - size) * self.world // whole for end, size in zip(accumulate(sizes), sizes, strict=True)]
        begin = sum(owner < self.rank for owner in owners)
        end = len(owners) if self.rank == self.world - 1 else sum(owner <= self.rank for owner in owners)
        return slice(begin, end)

    def gather(self, work: Callable[[], T]) -> list[T]:
        """Do a part of some work in every process.

        Where it fails or is interrupted in one of them, all raise that error once all have come to their end: nobody
        waits for an answer that does not come.

        Args:
            work: Makes what ``pickle`` can send.

        Returns:
            The parts by rank in the first process; in the others their own alone.
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
    """Return an error, or where it cannot be sent to another process, one with its words."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever an error of somebody else's does on being pickled
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


ALONE = Processes()
"""One process, the usual case."""


def from_environment(environment: Mapping[str, str] = os.environ) -> Processes:
    """Return what torchrun says about this process; without torchrun it is alone.

    Raises:
        ValueError: The environment speaks of several processes but not of which one this is.
    """
    try:
        world = int(environment.get("WORLD_SIZE", "1"))
        if world < 2:
            return ALONE
        return Processes(int(environment["RANK"]), world, int(environment.get("LOCAL_RANK", environment["RANK"])))
    except (KeyError, ValueError) as error:
        raise ValueError(
            f"WORLD_SIZE is {environment.get('WORLD_SIZE')!r}, but RANK or LOCAL_RANK is missing or no number "
            f"({error}). Start several processes with: torchrun --nproc-per-node N -m poseglass train RECIPE."
        ) from None


def join(processes: Processes, device: torch.device) -> None:
    """Meet the other processes: gloo on a CPU, nccl on CUDA. Alone, or when they have met before, nothing happens.

    Raises:
        RuntimeError: PyTorch was built without ``torch.distributed``.
    """
    if processes.world == 1:
        return
    if not distributed.is_available():
        raise RuntimeError("This PyTorch has no torch.distributed; train in one process, without torchrun.")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)


def leave() -> None:
    """Part from the other processes; without it torch warns when the program ends.

    What still holds the group, a wrapped network in a cycle of references, is collected first: gloo's threads would
    outlive it, and a process whose threads live on at its end is aborted.
    """
    if distributed.is_available() and distributed.is_initialized():
        gc.collect()
        distributed.destroy_process_group()
