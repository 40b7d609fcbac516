"""Data-parallel training: this process among those of a torchrun job, and the mean of their gradients."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed

from zoo.slim_net import SlimNet

Item, Done = TypeVar("Item"), TypeVar("Done")


@dataclass(frozen=True)
class Processes:
    """This process among those of a torchrun job."""

    rank: int = 0
    count: int = 1

    @staticmethod
    def join(device: torch.device) -> Processes:
        """Join the job that torchrun's environment describes; alone without one."""
        count = int(os.environ.get("WORLD_SIZE", "1"))
        if count == 1:
            return Processes()
        if not distributed.is_initialized():
            distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return Processes(distributed.get_rank(), count)

    def shared_out(self, items: Sequence[Item], work: Callable[[list[Item]], list[Done]]) -> list[Done]:
        """Each process works on some of the items; all get the results of all, in the order of the items."""
        mine = work(list(items[self.rank :: self.count]))
        if self.count == 1:
            return mine
        everywhere: list[Any] = [None] * self.count
        distributed.all_gather_object(everywhere, mine)
        return [everywhere[at % self.count][at // self.count] for at in range(len(items))]

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            distributed.barrier()


def average_gradients(model: SlimNet, figures: Tensor, count: int) -> Tensor:
    """Mean of the gradients and of some figures over the processes, in one reduction; returns the figures."""
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([*(g.reshape(-1).float() for g in gradients), figures])
    distributed.all_reduce(flat)
    flat /= count
    at = 0
    for gradient in gradients:
        gradient.copy_(flat[at : at + gradient.numel()].view_as(gradient))
        at += gradient.numel()
    return flat[at:]
