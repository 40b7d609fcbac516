"""A norm over shares of a batch equals the norm over the batch, and so do its gradients."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.synchronised_norm import synchronised_batch_norm

EPS = 1e-5


class TwoRanks:
    """What two processes of a job do together, as threads of this one."""

    def __init__(self) -> None:
        self.local, self.lock, self.meet = threading.local(), threading.Lock(), threading.Barrier(2, timeout=60)
        self.sent: list[Tensor] = []

    def get_rank(self) -> int:
        rank: int = self.local.rank
        return rank

    def get_world_size(self) -> int:
        return 2

    def all_reduce(self, mine: Tensor) -> None:
        with self.lock:
            self.sent.append(mine.clone())
        self.meet.wait()
        mine.copy_(self.sent[0] + self.sent[1])
        if self.meet.wait() == 0:
            self.sent.clear()
        self.meet.wait()


@pytest.mark.parametrize("shape", [(6, 5), (6, 5, 7), (6, 5, 4, 3), (4, 5, 2, 3, 3)])
@pytest.mark.parametrize("offset", [0.0, 50.0])
def test_two_shares_are_normalised_as_one_batch(
    shape: tuple[int, ...], offset: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    ranks = TwoRanks()
    monkeypatch.setattr("zoo.synchronised_norm.distributed", ranks)
    draw = torch.Generator().manual_seed(1)
    x, direction = torch.randn(shape, generator=draw) + offset, torch.randn(shape, generator=draw)
    x[: len(x) // 2] *= 2.0  # the shares differ
    weight, bias = torch.randn(5, generator=draw), torch.randn(5, generator=draw)

    def share(rank: int) -> list[Tensor]:
        ranks.local.rank = rank
        half = slice(rank * len(x) // 2, (rank + 1) * len(x) // 2)
        inputs = [t.clone().requires_grad_() for t in (x[half], weight, bias)]
        found = synchronised_batch_norm(*inputs, EPS)
        return [found.detach(), *torch.autograd.grad((found * direction[half]).sum(), inputs)]

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(share, (0, 1))
    inputs = [t.clone().requires_grad_() for t in (x, weight, bias)]
    wanted = F.batch_norm(inputs[0], None, None, inputs[1], inputs[2], training=True, eps=EPS)
    of_x, of_weight, of_bias = torch.autograd.grad((wanted * direction).sum(), inputs)
    near = {"rtol": 1e-3, "atol": 1e-3 if offset else 1e-5}
    torch.testing.assert_close(torch.cat([first[0], second[0]]), wanted.detach(), **near)
    torch.testing.assert_close(torch.cat([first[1], second[1]]), of_x, **near)
    torch.testing.assert_close(first[2] + second[2], of_weight, **near)
    torch.testing.assert_close(first[3] + second[3], of_bias, **near)


def test_the_number_type_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zoo.synchronised_norm.distributed.get_world_size", lambda: 1)
    monkeypatch.setattr("zoo.synchronised_norm.distributed.get_rank", lambda: 0)
    monkeypatch.setattr("zoo.synchronised_norm.distributed.all_reduce", lambda _: None)
    x = torch.randn(4, 3, 5, 5).bfloat16().requires_grad_()
    found = synchronised_batch_norm(x, torch.ones(3), torch.zeros(3), EPS)
    assert found.dtype == torch.bfloat16
    (gradient,) = torch.autograd.grad(found.float().square().sum(), x)
    assert gradient.dtype == torch.bfloat16
