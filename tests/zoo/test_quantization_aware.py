"""Training with int8's rounding: what is rounded, that gradients pass, and that it helps where rounding hurts."""

from __future__ import annotations

import pytest
import torch
from tiny_net import TinyNet
from torch.nn import functional as F

from zoo.quantization_aware import quantization_aware, round_activation, round_weight
from zoo.recipe import Recipe, RecipeError


def test_weights_become_multiples_of_one_scale_for_each_output_channel() -> None:
    weight = (
        torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)) * torch.arange(1.0, 7)[:, None, None, None]
    )
    for largest in (127, 63):
        rounded = round_weight(weight, largest)
        scale = weight.flatten(1).abs().amax(1) / largest
        steps = rounded / scale[:, None, None, None]
        torch.testing.assert_close(steps, steps.round(), rtol=0, atol=1e-4)
        assert float(steps.abs().max()) == pytest.approx(largest)
        assert bool(((rounded - weight).abs() <= 0.501 * scale[:, None, None, None]).all())


def test_activations_keep_zero_exact_and_lose_at_most_half_a_step() -> None:
    x = torch.cat([torch.zeros(3), torch.randn(500, generator=torch.Generator().manual_seed(1)) + 2.0])
    rounded = round_activation(x)
    step = float(x.max() - x.min()) / 255
    assert bool((rounded[:3] == 0).all())
    assert float((rounded - x).abs().max()) <= 1.01 * step  # half for the value, half for the zero point
    assert len(rounded.unique()) <= 256


def test_a_constant_of_zero_survives() -> None:
    assert torch.equal(round_activation(torch.zeros(4)), torch.zeros(4))
    assert torch.equal(round_weight(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_inside_outputs_are_rounded_gradients_pass_and_afterwards_all_is_as_before() -> None:
    torch.manual_seed(0)
    model = TinyNet().train()
    x = torch.randn(4, 3, 12, 12)
    before = model(x, 0.5).detach()
    with quantization_aware(model):
        inside = model(x, 0.5)
        inside.square().sum().backward()
    gap = float((inside.detach() - before).abs().max() / before.abs().max())
    assert 0 < gap < 0.1
    assert all(p.grad is not None for p in model.parameters())
    assert float(model.stem[0].weight.grad.abs().sum()) > 0
    assert torch.equal(model(x, 0.5), before)


def test_a_narrow_subnet_computes_with_a_prefix_of_the_full_integers() -> None:
    torch.manual_seed(0)
    conv = TinyNet().stages[1][0]
    with quantization_aware(conv):
        narrow, _ = conv.active_parameters(0.5)
        full, _ = conv.active_parameters(1.0)
    assert torch.equal(narrow, full[:16, :8])


def test_training_with_the_rounding_beats_rounding_afterwards() -> None:
    """One bit and a sign for each weight, so that rounding hurts much."""
    draw = torch.Generator().manual_seed(2)
    pictures = torch.randn(60, 3, 8, 8, generator=draw)
    labels = torch.arange(60) % 3

    def loss_under_rounding(aware: bool) -> float:
        torch.manual_seed(0)
        model = TinyNet().train()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(60):
            optimizer.zero_grad()
            if aware:
                with quantization_aware(model, largest=1):
                    loss = F.cross_entropy(model(pictures, 1.0), labels)
                    loss.backward()
            else:
                loss = F.cross_entropy(model(pictures, 1.0), labels)
                loss.backward()
            optimizer.step()
        with torch.no_grad(), quantization_aware(model, largest=1):
            return float(F.cross_entropy(model(pictures, 1.0), labels))

    assert loss_under_rounding(aware=True) < 0.7 * loss_under_rounding(aware=False)


def test_the_recipe_refuses_integers_that_int8_does_not_have() -> None:
    with pytest.raises(RecipeError, match="quantization_largest is 200"):
        Recipe(quantization_largest=200)
