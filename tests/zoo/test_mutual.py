"""One training step of each method, against the loss written out by hand."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tiny_net import TinyNet
from torch import Tensor
from torch.nn import functional as F

from zoo.mutual import METHODS, Subnet, accumulate_gradients, accumulate_taught_gradients, draw_subnets

PICTURES = {r: torch.randn(6, 3, r, r, generator=torch.Generator().manual_seed(r)) for r in (16, 12, 8)}
LABELS = torch.tensor([0, 1, 2, 0, 1, 2])
SUBNETS = [Subnet(1.0, 16), Subnet(0.8, 8), Subnet(0.6, 12), Subnet(0.5, 16)]


def fresh(seed: int = 0) -> TinyNet:
    torch.manual_seed(seed)
    return TinyNet().train()


def gradients(model: TinyNet) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def expected_loss(model: TinyNet, target: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """CE(full, labels) + sum of KL(p* || p_subnet), each term written from its definition."""
    scores = model(PICTURES[16], 1.0)
    classes = scores.shape[1]
    wanted = F.one_hot(LABELS, classes) * (1 - smoothing) + smoothing / classes
    loss = -(wanted * scores.log_softmax(1)).sum(1).mean()
    star = (scores.detach() if target is None else target).softmax(1)
    for subnet in SUBNETS[1:]:
        student = model(PICTURES[subnet.resolution], subnet.width).log_softmax(1)
        loss = loss + (star * (star.log() - student)).sum(1).mean()
    return loss


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_step_leaves_the_gradients_of_the_written_out_loss(smoothing: float) -> None:
    model, reference = fresh(), fresh()
    loss, logits = accumulate_gradients(model, PICTURES.__getitem__, LABELS, SUBNETS, label_smoothing=smoothing)
    wanted = expected_loss(reference, smoothing=smoothing)
    wanted.backward()
    torch.testing.assert_close(loss, wanted.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients(model), gradients(reference), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(logits, reference(PICTURES[16], 1.0).detach(), rtol=1e-5, atol=1e-6)
    assert not loss.requires_grad
    assert not logits.requires_grad


def test_the_teacher_replaces_the_target_of_the_subnets_only() -> None:
    model, reference, teacher = fresh(), fresh(), fresh(seed=5)
    accumulate_gradients(model, PICTURES.__getitem__, LABELS, SUBNETS, teacher=teacher)
    wanted = expected_loss(reference, target=teacher(PICTURES[16], 1.0).detach())
    wanted.backward()
    torch.testing.assert_close(gradients(model), gradients(reference), rtol=1e-4, atol=1e-6)
    assert all(p.grad is None for p in teacher.parameters())


@pytest.mark.parametrize("share", [0.25, 1.0])
def test_a_teacher_that_stays_shares_the_loss_of_every_subnet_with_the_labels(share: float) -> None:
    model, reference, teacher, seen = fresh(), fresh(), fresh(seed=5), []

    def teach(pictures: Tensor) -> Tensor:
        seen.append(pictures.shape[2])
        return teacher(pictures, 1.0)

    subnets = [SUBNETS[0], Subnet(0.5, 8)]
    loss, logits = accumulate_taught_gradients(
        model, PICTURES.__getitem__, LABELS, subnets, teacher=teach, teacher_resolution=12, share=share
    )
    answer = teacher(PICTURES[12], 1.0).detach().softmax(1)
    wanted = torch.zeros(())
    for subnet in subnets:
        scores = reference(PICTURES[subnet.resolution], subnet.width).log_softmax(1)
        labelled = -scores[torch.arange(len(LABELS)), LABELS].mean()
        wanted = wanted + share * (answer * (answer.log() - scores)).sum(1).mean() + (1.0 - share) * labelled
    wanted.backward()
    torch.testing.assert_close(loss, wanted.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients(model), gradients(reference), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(logits, reference(PICTURES[16], 1.0).detach(), rtol=1e-5, atol=1e-6)
    assert seen == [12]
    assert all(p.grad is None for p in teacher.parameters())


def test_distillation_stops_at_the_target() -> None:
    model = fresh()
    alone = copy.deepcopy(model)
    accumulate_gradients(model, PICTURES.__getitem__, LABELS, [SUBNETS[0], Subnet(0.5, 16)])
    accumulate_gradients(alone, PICTURES.__getitem__, LABELS, [SUBNETS[0]])
    # channels that the half-width net lacks get the gradient of the label term alone
    torch.testing.assert_close(model.classifier.weight.grad[:, 16:], alone.classifier.weight.grad[:, 16:])
    assert not torch.allclose(model.classifier.weight.grad[:, :16], alone.classifier.weight.grad[:, :16])


def test_a_gradient_scaler_sees_every_term() -> None:
    model, plain, terms = fresh(), fresh(), []

    def scaled(loss: Tensor) -> None:
        terms.append(float(loss.detach()))
        (loss * 4.0).backward()

    total, _ = accumulate_gradients(model, PICTURES.__getitem__, LABELS, SUBNETS, backward=scaled)
    accumulate_gradients(plain, PICTURES.__getitem__, LABELS, SUBNETS)
    assert len(terms) == 4
    assert sum(terms) == pytest.approx(float(total), rel=1e-6)
    quartered = {name: g / 4.0 for name, g in gradients(model).items()}
    torch.testing.assert_close(quartered, gradients(plain), rtol=1e-5, atol=1e-7)


def draws(method: str, count: int = 200, random_widths: int = 2) -> list[list[Subnet]]:
    return [
        draw_subnets(method, (0.25, 0.9), (64, 48, 32), np.random.default_rng(i), random_widths) for i in range(count)
    ]


def test_mutualnet_runs_full_smallest_and_random_widths_in_falling_order_on_random_resolutions() -> None:
    steps = draws("mutualnet")
    for step in steps:
        assert step[0] == Subnet(0.9, 64)
        widths = [s.width for s in step[1:]]
        assert len(widths) == 3
        assert widths == sorted(widths, reverse=True)
        assert widths[-1] == 0.25
        assert max(widths) <= 0.9
    students = [s for step in steps for s in step[1:]]
    shares = [sum(s.resolution == r for s in students) / len(students) for r in (64, 48, 32)]
    assert min(shares) > 0.25  # uniform over three: one third each, 600 draws
    inner = [s.width for s in students if s.width != 0.25]
    assert abs(np.mean(inner) - 0.575) < 0.03  # uniform between 0.25 and 0.9


def test_usnet_keeps_the_resolution() -> None:
    for step in draws("usnet"):
        assert {s.resolution for s in step} == {64}
        assert [s.width for s in (step[0], step[-1])] == [0.9, 0.25]
        assert len(step) == 4


def test_a_single_width_has_one_pass() -> None:
    assert all(step == [Subnet(0.9, 64)] for step in draws("single", 5))


def test_multiresolution_shows_every_resolution_at_full_width() -> None:
    assert all(step == [Subnet(0.9, side) for side in (64, 48, 32)] for step in draws("multiresolution", 3))


@pytest.mark.parametrize("method", METHODS)
def test_equal_generators_draw_equal_steps(method: str) -> None:
    assert draws(method, 5) == draws(method, 5)


def test_the_number_of_random_widths_is_an_option() -> None:
    assert [len(s) for s in draws("mutualnet", 3, random_widths=0)] == [2, 2, 2]
    assert [len(s) for s in draws("usnet", 2, random_widths=4)] == [6, 6]


def test_listed_widths_are_drawn_alike_and_at_most_once_a_step() -> None:
    listed = (0.5, 0.7, 0.9)
    steps = [
        draw_subnets("mutualnet", (0.25, 0.9), (64, 48), np.random.default_rng(i), 2, listed)[1:] for i in range(300)
    ]
    inner = [[s.width for s in step[:-1]] for step in steps]
    assert all(len(set(widths)) == 2 and set(widths) <= set(listed) for widths in inner)
    shares = [sum(w in widths for widths in inner) / len(inner) for w in listed]
    assert min(shares) > 0.58  # two of three each
    assert max(shares) < 0.75
