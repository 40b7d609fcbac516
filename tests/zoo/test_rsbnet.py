"""RSBNet: the search space is exactly the published one, heads switch, paths train, and evolution finds the best."""

from __future__ import annotations

import json
from pathlib import Path as File

import numpy as np
import pytest
import torch
from onnx_parity import assert_onnx_equals
from parity import assert_parity
from torch import nn
from torch.nn import functional as F

from zoo.madds import count_madds
from zoo.path_search import (
    DRAWS,
    Evolution,
    accumulate_path_gradients,
    draw_path,
    evolve,
    measure_statistics,
    path_costs,
)
from zoo.rsbnet import (
    CHOICES,
    LAYERS,
    PUBLISHED_PATH,
    STAGE_CHANNELS,
    TASKS,
    ChoiceBlock,
    PathError,
    RSBNet,
    check_path,
    chosen_network,
)

FACTS = json.loads((File(__file__).parent / "facts" / "rsbnet.json").read_text("utf-8"))
SEARCHED = FACTS["fingerprints"]["rsbnet"]
SIDE = 64


def randomised(model: RSBNet) -> RSBNet:
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    return model.eval()


def test_the_search_space_gives_the_outputs_of_the_reference() -> None:
    model = RSBNet()
    chosen = chosen_network(model, PUBLISHED_PATH)
    assert_parity(model, SEARCHED)
    assert_parity(chosen, SEARCHED, used=True)


def test_multiply_adds_of_the_published_path_and_of_any_are_exact() -> None:
    with torch.device("meta"):
        model = RSBNet()
    costs = path_costs(model, 224)
    assert costs.of(PUBLISHED_PATH) == FACTS["counts"]["rsbnet"]["madds"]
    draw = np.random.default_rng(0)
    for side in (224, 63):  # odd sides are rounded up by a stride
        costs = path_costs(model, side)
        for _ in range(3):
            path = draw_path(draw)
            assert costs.of(path) == count_madds(chosen_network(model, path).eval(), (1, 3, side, side))


@pytest.mark.parametrize("choice", range(len(CHOICES)))
def test_every_second_channel_passes_by_untouched(choice: int) -> None:
    block = ChoiceBlock(16, 16, choice, 1).eval()
    x = torch.randn(2, 16, 8, 8)
    with torch.no_grad():
        y = block(x)
    assert torch.equal(y[:, :8], x[:, 0::2])
    changed = x.clone()
    changed[:, 0::2] = 0.0  # the other half does not read them
    with torch.no_grad():
        assert torch.equal(block(changed)[:, 8:], y[:, 8:])
    with torch.no_grad():
        assert ChoiceBlock(16, 32, choice, 2).eval()(x).shape == (2, 32, 4, 4)


@pytest.mark.parametrize(("choice", "reach"), [(0, 1), (1, 2), (2, 3), (3, 3)])  # three 3x3 reach as far as one 7x7
def test_a_choice_sees_as_far_as_its_kernels(choice: int, reach: int) -> None:
    block = ChoiceBlock(4, 4, choice, 1).eval()
    for weight in block.parameters():
        nn.init.constant_(weight, 1.0)
    x = torch.zeros(1, 4, 15, 15)
    x[:, :, 7, 7] = 1.0
    with torch.no_grad():
        seen = block(x)[0, -1] > block(torch.zeros_like(x))[0, -1] + 1e-6
    rows = seen.any(1).nonzero().flatten().tolist()
    assert rows == list(range(7 - reach, 7 + reach + 1))


@pytest.mark.parametrize("task", TASKS)
def test_a_head_reads_the_features_of_any_path_and_everything_of_it_trains(task: str) -> None:
    torch.manual_seed(0)
    model = RSBNet(5, task)
    path = (2, 3, *PUBLISHED_PATH[2:])
    output = model(torch.randn(2, 3, SIDE, SIDE), path)
    maps = [output] if isinstance(output, torch.Tensor) else output
    expected = {
        "classification": [(2, 5)], "land cover": [(2, 5, 16, 16)],
        "detection": [(2, 10, 16, 16), (2, 10, 8, 8), (2, 10, 4, 4), (2, 10, 2, 2)],
    }  # fmt: skip
    assert [tuple(m.shape) for m in maps] == expected[task]
    sum(m.square().mean() for m in maps).backward()
    used = [n for n, p in model.named_parameters() if p.grad is not None]
    assert all(torch.isfinite(model.get_parameter(n).grad).all() for n in used)
    blocks = {f"layers.{layer}.{choice}." for layer, choice in enumerate(path)}
    assert {n for n, _ in model.named_parameters() if not n.startswith("layers.")} <= set(used)
    assert {".".join(n.split(".")[:3]) + "." for n in used if n.startswith("layers.")} == blocks
    if task == "detection":
        assert all((m[:, 5:9] >= 0).all() for m in maps)  # distances


def test_switching_the_task_keeps_the_backbone() -> None:
    model = randomised(RSBNet(7))
    x = torch.randn(1, 3, SIDE, SIDE)
    with torch.no_grad():
        before = model.forward_features(x)
        model.switch("land cover", 4)
        after = model.eval().forward_features(x)
        assert model(x).shape == (1, 4, 16, 16)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert [(f.shape[1], SIDE // f.shape[2]) for f in after] == [(i.channels, i.stride) for i in model.feature_info]
    assert [info.channels for info in model.feature_info] == list(STAGE_CHANNELS)
    with pytest.raises(ValueError, match="task is 'poetry', expected one of classification, land cover, detection"):
        model.switch("poetry", 4)


def test_a_chosen_network_gives_what_the_supernet_gives_along_its_path() -> None:
    model = randomised(RSBNet(6))
    path = draw_path(np.random.default_rng(3))
    chosen = chosen_network(model, path)
    x = torch.randn(2, 3, SIDE, SIDE)
    with torch.no_grad():
        assert torch.equal(chosen(x), model(x, path))
        assert not torch.equal(chosen(x), model(x, tuple(3 - c for c in path)))
    assert len(model.layers) == LAYERS
    with torch.no_grad():
        next(chosen.layers.parameters()).zero_()
        assert not torch.equal(chosen(x), model(x, path))  # a copy


def test_wrong_paths_are_one_sentence() -> None:
    with pytest.raises(PathError, match="path has 3 choices, expected 20, one for each layer"):
        check_path((0, 1, 2))
    with pytest.raises(PathError, match="path has the choice 4, expected 0 to 3"):
        RSBNet(2)(torch.zeros(1, 3, SIDE, SIDE), (4,) * LAYERS)


def test_a_step_averages_the_gradients_of_its_paths() -> None:
    torch.manual_seed(0)
    model = RSBNet(3).eval()  # without batch statistics the mean is exact; its dropout is off, too
    x, labels = torch.randn(4, 3, 32, 32), torch.tensor([0, 1, 2, 0])
    paths = [draw_path(np.random.default_rng(i)) for i in range(3)]

    def loss_of(output: object) -> torch.Tensor:
        assert isinstance(output, torch.Tensor)
        return F.cross_entropy(output, labels)

    alone = []
    for path in paths:
        model.zero_grad()
        loss = accumulate_path_gradients(model, x, loss_of, [path])
        alone.append((loss, model.stem[0].weight.grad.clone()))
    model.zero_grad()
    together = accumulate_path_gradients(model, x, loss_of, paths)
    assert together == pytest.approx(sum(loss for loss, _ in alone) / 3, rel=1e-5)
    mean = torch.stack([gradient for _, gradient in alone]).mean(0)
    assert torch.allclose(model.stem[0].weight.grad, mean, rtol=1e-4, atol=1e-7)
    with pytest.raises(ValueError, match="no paths"):
        accumulate_path_gradients(model, x, loss_of, [])


def test_sampled_paths_learn_a_small_batch() -> None:
    torch.manual_seed(0)
    model = RSBNet(4).train()
    x, labels = torch.randn(16, 3, 32, 32), torch.arange(16) % 4
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    draw = np.random.default_rng(0)
    pool = [draw_path(draw) for _ in range(2)]
    losses = []
    for _ in range(15):
        optimizer.zero_grad()
        losses.append(accumulate_path_gradients(model, x, lambda scores: F.cross_entropy(scores, labels), pool))
        optimizer.step()
    assert losses[-1] < 0.5 * losses[0]


def test_statistics_of_a_path_are_those_of_its_pictures() -> None:
    torch.manual_seed(0)
    model = RSBNet(3)
    momentum = model.stem[1].momentum
    batches = [torch.randn(6, 3, 32, 32), 2.0 + torch.randn(2, 3, 32, 32)]
    measure_statistics(model, PUBLISHED_PATH, batches)
    with torch.no_grad():
        convolved = [model.stem[0](batch) for batch in batches]
    means = [c.mean((0, 2, 3)) for c in convolved]
    assert torch.allclose(model.stem[1].running_mean, 0.75 * means[0] + 0.25 * means[1], atol=1e-5)
    assert not model.training
    assert model.stem[1].momentum == momentum
    other = model.layers[0][1 - min(PUBLISHED_PATH[0], 1)].main[1]
    assert torch.equal(other.running_mean, torch.zeros_like(other.running_mean))  # not on the path
    with pytest.raises(ValueError, match="no pictures"):
        measure_statistics(model, PUBLISHED_PATH, [])


def test_evolution_finds_a_planted_path_under_a_limit() -> None:
    planted = draw_path(np.random.default_rng(7))
    with torch.device("meta"):
        costs = path_costs(RSBNet(2), 64)
    limit = costs.of(planted)
    asked: list[tuple[int, ...]] = []

    def score_of(path: tuple[int, ...]) -> float:
        asked.append(path)
        return sum(a == b for a, b in zip(path, planted, strict=True)) / LAYERS

    found = evolve(score_of, lambda path: costs.of(path) <= limit, np.random.default_rng(0))
    drawn = max(asked[:50], key=lambda p: sum(a == b for a, b in zip(p, planted, strict=True)))
    assert found[0].score >= 0.9 > sum(a == b for a, b in zip(drawn, planted, strict=True)) / LAYERS
    assert [f.score for f in found] == sorted((f.score for f in found), reverse=True)
    assert len(asked) == len(set(asked))  # no path is paid for twice
    assert all(costs.of(path) <= limit for path in asked)
    again = evolve(score_of, lambda path: costs.of(path) <= limit, np.random.default_rng(0))
    assert again == found


def test_an_impossible_limit_and_wrong_sizes_are_one_sentence() -> None:
    with pytest.raises(ValueError, match=f"none of {4 * DRAWS} random paths keeps the limit"):
        evolve(lambda path: 0.0, lambda path: False, np.random.default_rng(0), Evolution(population=4, kept=2))
    with pytest.raises(ValueError, match="kept is 60, expected at most the population, 50"):
        Evolution(kept=60)
    with pytest.raises(ValueError, match=r"change is 0\.0"):
        Evolution(change=0.0)
    with pytest.raises(ValueError, match="1 or more"):
        Evolution(rounds=0)


@pytest.mark.slow  # half a minute of exporting
@pytest.mark.parametrize("task", TASKS)
def test_onnxruntime_equals_torch(task: str) -> None:
    chosen = chosen_network(randomised(RSBNet(3, task)), PUBLISHED_PATH)
    assert_onnx_equals(_Along(chosen), torch.randn(1, 3, 32, 32))


class _Along(nn.Module):
    """The pictures alone as input."""

    def __init__(self, model: RSBNet) -> None:
        super().__init__()
        self.model = model.eval()

    def forward(self, image: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        output = self.model(image)
        return output if isinstance(output, torch.Tensor) else tuple(output)
