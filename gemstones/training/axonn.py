"""The strategy `axonn(r, c, d)`: tensor parallelism of AxoNN 0.2 (Singh et al., arXiv 2305.13525), as the authors trained.

AxoNN names CUDA devices and NCCL. On a CPU, its modules see torch through a view in which these few names mean memory and gloo;
torch itself stays as it is, and where there is a GPU nothing of this is used.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import warnings
from collections.abc import Callable
from typing import Any

import torch
from axonn import axonn
from axonn.intra_layer import Linear, auto_parallelize, clip_grad_norm_, sync_gradients
from axonn.intra_layer.communication import _gather
from axonn.intra_layer.fully_connected import AsyncLinear, extract_local_params_from_full_params
from torch import distributed

from gemstones.errors import UserError
from gemstones.training.parallel import Module, Parallel, Tensor

log = logging.getLogger(__name__)

# AxoNN uses names of collectives that torch would rather see gone.
warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")

MODULES = (
    "communication",
    "intra_layer.asym_communication",
    "intra_layer.communication",
    "intra_layer.embedding",
    "intra_layer.fully_connected",
    "intra_layer.overlap_communication",
)


class Axonn(Parallel):
    """AxoNN 0.2 around every linear layer: outside them, each process has its own part of the batch."""

    def __init__(self, rank: int, world: int, device: torch.device, row: int, column: int, depth: int) -> None:
        super().__init__(rank, world, device)
        together = row * column * depth
        if not together or world % together:
            raise UserError(
                f"strategy 'axonn({row},{column},{depth})': {world} processes are no multiple of {row}·{column}·{depth}"
            )
        if device.type == "cpu":
            _use_cpu()
        axonn.init(G_data=world // together, G_intra_r=row, G_intra_c=column, G_intra_d=depth)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # AxoNN has chosen by the rank among all nodes' processes

    def wrap(self, make: Callable[[], Module]) -> None:
        with auto_parallelize():
            self.module = self.model = make().to(self.device)
        self._layers = {
            f"{name}.weight": layer for name, layer in self.module.named_modules() if isinstance(layer, Linear)
        }
        plain = [name for name, layer in self.module.named_modules() if type(layer) is torch.nn.Linear]
        if plain and self.rank == 0:
            log.warning("%s and %d others do not divide by the strategy, and stay whole", plain[0], len(plain) - 1)

    def sync(self) -> None:
        sync_gradients(self.module, mean=True)

    def clip(self, largest: float) -> Tensor:
        norm: Tensor = clip_grad_norm_(self.module.parameters(), largest)
        return norm

    def gather(self, name: str, local: Tensor) -> Tensor:
        layer = self._layers.get(name)
        if layer is None:
            return local
        tile = _gather(local, 0, layer.depth_group).view(layer.local_out_features, layer.local_in_features)
        full: Tensor = _gather(_gather(tile, 1, layer.inner_group), 0, layer.outer_group)
        return full

    def scatter(self, name: str, full: Tensor) -> Tensor:
        layer, full = self._layers.get(name), full.to(self.device)
        if layer is None:
            return full
        local: Tensor = extract_local_params_from_full_params(
            full, layer.outer_group, layer.inner_group, layer.depth_group
        )
        return local.clone()


class _View:
    """A module with some names replaced."""

    def __init__(self, of: Any, **replaced: Any) -> None:
        self.__dict__ |= {"_of": of, **replaced}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._of, name)


def _use_cpu() -> None:
    """Have AxoNN's modules use the CPU; once, before `axonn.init`."""
    view = _View(
        torch,
        cuda=_View(
            torch.cuda,
            device_count=distributed.get_world_size,
            set_device=lambda device: None,
            current_device=lambda: "cpu",
            synchronize=lambda *device: None,
        ),
        distributed=_View(distributed, new_group=lambda ranks=None, backend=None: distributed.new_group(ranks)),
        empty=_on_cpu(torch.empty),
        tensor=_on_cpu(torch.tensor),
    )
    modules = [importlib.import_module(f"axonn.{name}") for name in MODULES]
    for module in modules:
        vars(module)["torch"] = view
        if "gather_batch_sizes" in vars(module):
            vars(module)["gather_batch_sizes"] = _gather_batch_sizes
    # In mixed precision, the backward pass is to have the CPU's autocast of the forward one, not CUDA's.
    for name, on_device in (("forward", torch.amp.custom_fwd), ("backward", torch.amp.custom_bwd)):
        function = inspect.unwrap(getattr(AsyncLinear, name))
        setattr(AsyncLinear, name, staticmethod(on_device(function, device_type="cpu")))


def _on_cpu(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def on_cpu(*args: Any, **options: Any) -> torch.Tensor:
        return make(*args, **options | ({"device": "cpu"} if "device" in options else {}))

    return on_cpu


@torch.no_grad()
def _gather_batch_sizes(size: int, process_group: Any = None) -> torch.Tensor:
    """AxoNN gathers a tensor without dimensions, which gloo refuses."""
    sizes = torch.empty(distributed.get_world_size(process_group), dtype=torch.int64)
    distributed.all_gather_into_tensor(sizes, torch.tensor([size]), group=process_group)
    return sizes
