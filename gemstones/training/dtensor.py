"""The strategies of torch itself whose parameters are DTensors: `fsdp2` and `tp`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

from gemstones.errors import UserError
from gemstones.training.parallel import Module, Parallel, Tensor


class Sharded(Parallel):
    """Parameters are DTensors, or some of them."""

    def gather(self, name: str, local: Tensor) -> Tensor:
        return local.full_tensor() if isinstance(local, DTensor) else local

    def scatter(self, name: str, full: Tensor) -> Tensor:
        weight = self.module.get_parameter(name)
        full = full.to(self.device)
        if not isinstance(weight, DTensor):
            return full
        return distribute_tensor(full, weight.device_mesh, weight.placements, src_data_rank=None)

    def clip(self, largest: float) -> Tensor:
        """torch's own cannot mix tensors that are sharded and tensors that are not."""
        gradients = [weight.grad for weight in self.module.parameters() if weight.grad is not None]
        sharded = [gradient for gradient in gradients if isinstance(gradient, DTensor)]
        whole = [gradient for gradient in gradients if not isinstance(gradient, DTensor)]
        squares = [torch.nn.utils.get_total_norm(some, foreach=True) ** 2 for some in (sharded, whole) if some]
        norm = sum(self.gather("", square) for square in squares) ** 0.5
        assert isinstance(norm, Tensor)
        torch._foreach_mul_([self._local(gradient) for gradient in gradients], (largest / (norm + 1e-6)).clamp(max=1.0))
        return norm

    @staticmethod
    def _local(tensor: Tensor) -> Tensor:
        return tensor.to_local() if isinstance(tensor, DTensor) else tensor


class Fsdp2(Sharded):
    def wrap(self, make: Callable[[], Module]) -> None:
        super().wrap(make)
        mesh = init_device_mesh(self.device.type, (self.world,))
        for block in self.module.transformer.h:
            fully_shard(block, mesh=mesh)
        fully_shard(self.module, mesh=mesh)

    def parameters(self) -> Iterator[tuple[str, Tensor]]:
        self.module.reshard()  # what an evaluation has gathered, so that these are the optimizer's
        return super().parameters()

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        self.module.set_requires_gradient_sync(last)
        return nullcontext()


class Tp(Sharded):
    """Attention itself is computed everywhere: the suite's models have too few key and value heads to share it out."""

    def __init__(self, rank: int, world: int, device: torch.device) -> None:
        super().__init__(rank, world, device)
        self.part, self.parts = 0, 1

    def wrap(self, make: Callable[[], Module]) -> None:
        super().wrap(make)
        width, vocabulary = self.module.config.n_embd, self.module.config.padded_vocab_size
        if width % self.world or vocabulary % self.world:
            raise UserError(
                f"strategy 'tp' splits width and vocabulary ({width} and {vocabulary}) evenly, which {self.world} processes cannot"
            )
        whole_out = ColwiseParallel(output_layouts=Replicate())
        plan: dict[str, Any] = {"lm_head": whole_out, "transformer.wte": RowwiseParallel(input_layouts=Replicate())}
        for block in range(len(self.module.transformer.h)):
            plan |= {
                f"transformer.h.{block}.attn.qkv": whole_out,
                f"transformer.h.{block}.attn.proj": RowwiseParallel(input_layouts=Replicate()),
                f"transformer.h.{block}.mlp.fc_1": ColwiseParallel(),
                f"transformer.h.{block}.mlp.fc_2": ColwiseParallel(),
                f"transformer.h.{block}.mlp.proj": RowwiseParallel(),
            }
        parallelize_module(self.module, init_device_mesh(self.device.type, (self.world,)), plan)
