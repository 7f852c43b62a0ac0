"""Training in several processes: who I am among them, and the few things that all must know together.

``torchrun --nproc-per-node N -m poseglass train ...`` starts N processes, each with its share of every batch. The first
one (rank 0) prints, measures and writes files; all of them make the same decisions.
"""

import gc
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")

PATIENCE = timedelta(hours=12)
"""How long processes wait for the first one, which measures alone; torchrun notices a dead one within a second."""


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
        result, error = self.share((result, error))
        if error is not None:
            raise error
        return result  # type: ignore[return-value]


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
