"""One training step on many processes: the strategies `single`, `ddp`, `fsdp2`, `tp` and `axonn(r, c, d)`.

Every strategy starts from the same full weights, takes the mean gradient over the same batch, and gives its full state back, so
that the losses agree and a checkpoint of one goes on under any other.

| strategy | weights | each process computes |
|---|---|---|
| single | on one device | the whole batch |
| ddp | everywhere | its part of the batch |
| fsdp2 | each process a part of every tensor, gathered a layer at a time | its part of the batch |
| tp | linear layers split by columns, then rows (DTensor) | its part of the layers, of the whole batch |
| axonn(r, c, d) | r·c tiles of each linear layer, each in d parts (AxoNN, Singh et al. 2024) | its part of the batch, r·c·d together |

The processes come from torchrun (`RANK`, `WORLD_SIZE`, …) or from srun (`SLURM_PROCID`, …).
"""

from __future__ import annotations

import datetime
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeVar

import torch
from torch import distributed

from gemstones.errors import UserError
from gemstones.study import axonn_split
from gemstones.training.deadline import OutOfTime

log = logging.getLogger(__name__)

Module = Any
Tensor = torch.Tensor
T = TypeVar("T")

# A process that waits longer for the others gives up: one of them is gone.
TIMEOUT = datetime.timedelta(minutes=10)


def connect() -> tuple[int, int, torch.device]:
    """Rank, number of processes and device; joins the process group if there are several processes."""
    rank, world, local = (
        int(os.environ.get(torchrun, os.environ.get(slurm, default)))
        for torchrun, slurm, default in (
            ("RANK", "SLURM_PROCID", "0"),
            ("WORLD_SIZE", "SLURM_NTASKS", "1"),
            ("LOCAL_RANK", "SLURM_LOCALID", "0"),
        )
    )
    if torch.cuda.is_available():
        # Where the launcher binds a device to each process, that is all it sees.
        device = torch.device("cuda", local % torch.cuda.device_count())
        torch.cuda.set_device(device)
    else:
        device = torch.device("cpu")
    if world > 1 and not distributed.is_initialized():
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "LOCAL_RANK": str(local), **_meeting_place()}
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=TIMEOUT)
    return rank, world, device


def _meeting_place() -> dict[str, str]:
    """Where the processes that srun has started meet: on the step's first node, at a port that follows from the job."""
    nodes, job = os.environ.get("SLURM_STEP_NODELIST"), os.environ.get("SLURM_JOB_ID")
    if "MASTER_ADDR" in os.environ or not (nodes and job):
        return {}
    try:
        command = ["scontrol", "show", "hostnames", nodes]
        names = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    except (OSError, subprocess.SubprocessError) as error:
        raise UserError(
            f"scontrol does not name the nodes of this job ({error}); set MASTER_ADDR and MASTER_PORT"
        ) from None
    return {"MASTER_ADDR": names[0], "MASTER_PORT": os.environ.get("MASTER_PORT", str(20_000 + int(job) % 10_000))}


def disconnect() -> None:
    """Leave the process group in good order: threads that are still at work would end the process with an error."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def of(strategy: str) -> Parallel:
    """The strategy of a name, on the processes that there are.

    Raises
    ------
    UserError
        One that does not fit the number of processes.
    """
    rank, world, device = connect()
    if strategy != "single" and world == 1:
        raise UserError(
            f"strategy '{strategy}' shares each step out among processes, and this is the only one; set training.processes, "
            "or start it by srun or torchrun"
        )
    if strategy == "single" and world > 1:
        raise UserError(f"strategy 'single' runs in one process, not in {world}; choose ddp, fsdp2, tp or axonn(r,c,d)")
    if split := axonn_split(strategy):
        from gemstones.training.axonn import Axonn

        return Axonn(rank, world, device, *split)
    if strategy in ("fsdp2", "tp"):
        from gemstones.training import dtensor

        return (dtensor.Fsdp2 if strategy == "fsdp2" else dtensor.Tp)(rank, world, device)
    return (Ddp if strategy == "ddp" else Parallel)(rank, world, device)


class Parallel:
    """`single`: all on one device. The other strategies say what differs.

    Attributes
    ----------
    rank, world : this process, and how many there are.
    part, parts : which part of a batch this process takes, and into how many a batch is split.
    module : has the parameters, by their names in litgpt; `model` is what is called.
    """

    module: Module
    model: Module

    def __init__(self, rank: int, world: int, device: torch.device) -> None:
        self.rank, self.world, self.device = rank, world, device
        self.part, self.parts = rank, world
        self._copies: dict[tuple[str, str], Tensor] = {}

    def wrap(self, make: Callable[[], Module]) -> None:
        """Have a model; its weights are loaded afterwards, the same whatever the strategy."""
        self.module = self.model = make().to(self.device)

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        """Around the backward pass of each part of a step: only after the last one are gradients exchanged."""
        return nullcontext()

    def sync(self) -> None:
        """Make gradients the mean over the whole batch, where the backward pass has not done so."""

    def clip(self, largest: float) -> Tensor:
        """Scale gradients down to a norm of at most `largest`; gives the norm before, the same everywhere."""
        return torch.nn.utils.clip_grad_norm_(list(self.module.parameters()), largest, foreach=True)

    def total(self, values: Tensor) -> Tensor:
        """Sum of a small tensor over the parts of a batch, the same everywhere."""
        if self.parts > 1:
            distributed.all_reduce(values)
        return values

    def largest(self, value: int) -> int:
        """The largest of the processes' values, in every process."""
        if self.world == 1:
            return value
        values = torch.tensor(value, device=self.device)
        distributed.all_reduce(values, distributed.ReduceOp.MAX)
        return int(values)

    def first(self, value: Callable[[], T]) -> T:
        """What the first process finds, in every process. An error there is an error everywhere."""
        if self.world == 1:
            return value()
        found: list[Any] = [None, None]
        raised: Exception | None = None
        if self.rank == 0:
            try:
                found[0] = value()
            except Exception as error:
                raised = error
                known = isinstance(error, (UserError, OutOfTime))
                found[1] = error if known else UserError(f"the first process failed: {error}")
        distributed.broadcast_object_list(found)
        if raised:
            raise raised
        if found[1]:
            found[1].told = True  # by the first process
            raise found[1]
        result: T = found[0]
        return result

    def gather(self, name: str, local: Tensor) -> Tensor:
        """The full tensor of a process's part of a parameter, or of one of its moments; all processes must call."""
        return local

    def scatter(self, name: str, full: Tensor) -> Tensor:
        """This process's part of the full tensor of a parameter, or of one of its moments, on its device."""
        return full.to(self.device)

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        """This process's part of the parameters, as the optimizer has them, by name."""
        parameters: Iterator[tuple[str, Tensor]] = self.module.named_parameters()
        return parameters

    def weights(self) -> dict[str, Tensor]:
        """All weights in full, copied to the CPU; only the first process has them. The next call uses the same memory."""
        return {name: self._full(name, "weight", weight.detach()) for name, weight in self.parameters()}

    def load_weights(self, full: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self.parameters():
                weight.copy_(self.scatter(name, full[name]))

    def moments(self, optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Tensor]]:
        """The optimizer's steps and moments in full, by parameter, as :meth:`weights` gives those."""
        return {
            name: {
                key: value.cpu().clone() if key == "step" else self._full(name, key, value)
                for key, value in optimizer.state[weight].items()
            }
            for name, weight in self.parameters()
            if optimizer.state  # of which each has one after the first step
        }

    def load_moments(self, optimizer: torch.optim.Optimizer, full: dict[str, dict[str, Tensor]]) -> None:
        for name, weight in self.parameters() if full else ():
            # Keys are interned as torch's own are, so that a resumed run's checkpoint has the same bytes. Clones, since on a
            # CPU these may be the file's pages, and the file may be pruned.
            optimizer.state[weight] = {
                sys.intern(key): (value.to(self.device) if key == "step" else self.scatter(name, value)).clone()
                for key, value in full[name].items()
            }

    def _full(self, name: str, what: str, local: Tensor) -> Tensor:
        # One tensor at a time: no device has to hold the whole model, nor any process but the first.
        full = local if self.world == 1 else self.gather(name, local)
        if self.rank:
            return torch.empty(0)
        if (name, what) not in self._copies:
            # Kept, since new memory costs more than the copy; pinned, since that is several times as fast.
            on_gpu = self.device.type == "cuda"
            self._copies[name, what] = torch.empty(full.shape, dtype=full.dtype, pin_memory=on_gpu)
        return self._copies[name, what].copy_(full)


class Ddp(Parallel):
    def wrap(self, make: Callable[[], Module]) -> None:
        super().wrap(make)
        self.model = torch.nn.parallel.DistributedDataParallel(self.module, gradient_as_bucket_view=True)

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        return nullcontext() if last else self.model.no_sync()
