"""Statistics are rounded alike in the tables and in the networks, closely, and what rounding costs is bounded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from converters.errors import ConversionError
from converters.norm_folding import NormPair, scale_and_shift
from converters.norm_rounding import TABLE_STEP, require_fine_steps, round_norms
from converters.shared_weights import TensorStore
from edge_runtime import norm_tables

PAIRS = [NormPair("0", "1"), NormPair("2", "3")]


def network(seed: int) -> nn.Module:
    """Two convolutions (the first with a bias) with norms whose statistics depend on the seed, one channel dead."""
    draw = torch.Generator().manual_seed(seed)
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 5, 1), nn.BatchNorm2d(5, eps=1e-3), nn.Conv2d(5, 4, 1, bias=False), nn.BatchNorm2d(4)
    )
    with torch.no_grad():
        for norm in (net[1], net[3]):
            norm.running_mean.copy_(torch.randn(norm.num_features, generator=draw) * 3)
            norm.running_var.copy_(torch.rand(norm.num_features, generator=draw) * 4)
            norm.running_var[0] = 0.0
            norm.weight.copy_(torch.linspace(-1, 1, norm.num_features))
            norm.bias.copy_(torch.linspace(2, 3, norm.num_features))
    return net.eval()


def test_the_device_makes_the_scale_and_shift_of_the_rounded_networks() -> None:
    nets = {"a": network(0), "b": network(1), "c": network(2)}
    store = TensorStore({name: p.detach().numpy() for name, p in nets["a"].named_parameters()})
    found = round_norms(nets, PAIRS, store, "width")
    assert found is not None
    norms, arrays = found
    assert set(arrays) == {"width/mean", "width/deviation"}
    assert all(a.dtype == np.uint8 and a.shape[1:] == (3, 9) for a in arrays.values())
    for name, net in nets.items():
        made = norm_tables.scale_and_shift(norms, store.arrays, arrays, name)
        both = [scale_and_shift(net.get_submodule(p.convolution), net.get_submodule(p.norm)) for p in PAIRS]
        for key, expected in zip(("scale", "shift"), zip(*both, strict=True), strict=True):
            np.testing.assert_allclose(made[key], torch.cat(expected).detach().numpy(), rtol=1e-5, atol=1e-5)


def test_rounding_stays_within_half_a_step() -> None:
    exact, rounded = network(0), network(0)
    assert round_norms({"a": rounded}, PAIRS, TensorStore(), "width") is not None
    for index in (1, 3):
        deviation = np.sqrt(exact[index].running_var.numpy() + exact[index].eps)
        changed = np.sqrt(rounded[index].running_var.numpy() + rounded[index].eps)
        shift = np.abs(rounded[index].running_mean.numpy() - exact[index].running_mean.numpy())
        assert (shift <= 0.501 * TABLE_STEP * changed).all()
        live = slice(1, None)  # the dead channel's variance must not become negative, so it is rounded upwards
        assert (np.abs(np.log2(changed / deviation))[live] <= 0.501 * TABLE_STEP).all()
        assert 0 <= rounded[index].running_var[0] < 0.1 * exact[index].eps
        assert not np.array_equal(rounded[index].running_mean, exact[index].running_mean)


def test_a_network_without_norms_has_no_tables() -> None:
    assert round_norms({"a": nn.Conv2d(3, 4, 1)}, [], TensorStore(), "width") is None


def test_statistics_that_are_not_finite_are_refused() -> None:
    net = network(0)
    net[1].running_var[2] = float("nan")
    with pytest.raises(ValueError, match="not finite"):
        round_norms({"a": net}, PAIRS, TensorStore(), "width")


def test_rounding_that_costs_accuracy_is_refused_with_the_way_out() -> None:
    require_fine_steps("p", 0.50, 0.48, 500, 1 / 32)
    require_fine_steps("p", 0.50, 0.30, 10, 1 / 32)  # two pictures of ten
    with pytest.raises(ConversionError, match=r"from 0.500 to 0.478; give --table-step 0.0078125"):
        require_fine_steps("p", 0.50, 0.478, 500, 1 / 32)
    with pytest.raises(ConversionError):
        require_fine_steps("p", 0.50, 0.20, 10, 1 / 32)
