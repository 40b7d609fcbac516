"""ResFormer's training step against the loss written out by hand, and its place in the training loop."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.checkpoint import load_checkpoint
from zoo.multi_resolution import accumulate_multi_resolution_gradients
from zoo.mutual import Subnet
from zoo.pictures import PictureSource
from zoo.recipe import Recipe, RecipeError
from zoo.resformer import ResFormer
from zoo.train import train

PICTURES = {r: torch.randn(4, 3, r, r, generator=torch.Generator().manual_seed(r)) for r in (32, 24, 16)}
LABELS = torch.tensor([0, 1, 2, 1])
SUBNETS = [Subnet(1.0, side) for side in (32, 24, 16)]
RECIPE = {
    "model": "resformer_tiny_patch16", "model_options": {"heads": 1, "depth": 4, "small_input": True},
    "method": "multiresolution", "optimizer": "adamw", "widths": (1.0,), "resolutions": (24, 16), "epochs": 1,
    "batch_size": 12, "learning_rate": 1e-3, "calib_pictures": 3, "select_pictures": 6, "norm_pictures": 3,
}  # fmt: skip


def fresh() -> ResFormer:
    torch.manual_seed(0)
    model = ResFormer(3, heads=1, depth=4, small_input=True).train()
    for parameter in model.parameters():
        torch.nn.init.uniform_(parameter, -0.2, 0.2)
    return model


def gradients(model: ResFormer) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_a_step_adds_the_labels_of_each_resolution_and_the_distance_to_the_next_larger_class_token() -> None:
    model, reference = fresh(), fresh()
    loss, logits = accumulate_multi_resolution_gradients(model, PICTURES.__getitem__, LABELS, SUBNETS)
    tokens = [reference.forward_class_token(PICTURES[subnet.resolution]) for subnet in SUBNETS]
    scores = [reference.classifier(token) for token in tokens]
    wanted = sum(-s.log_softmax(1)[torch.arange(4), LABELS].mean() for s in scores)
    for larger, token in ((tokens[0], tokens[1]), (tokens[1], tokens[2])):
        wanted = wanted + F.smooth_l1_loss(token, F.layer_norm(larger.detach(), larger.shape[-1:]))
    wanted.backward()
    torch.testing.assert_close(loss, wanted.detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(logits, scores[0].detach(), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(gradients(model), gradients(reference), rtol=1e-4, atol=1e-6)


def test_the_loop_trains_every_resolution_of_the_recipe(source: PictureSource, tmp_path: Path) -> None:
    rows = load_checkpoint(train(Recipe(**RECIPE), source, tmp_path)).accuracy
    assert [(row["width"], row["resolution"]) for row in rows] == [(1.0, 24), (1.0, 16)]


@pytest.mark.parametrize("options", [{"method": "single"}, {"optimizer": "sgd"}])
def test_method_and_optimizer_change_the_weights(
    source: PictureSource, tmp_path: Path, options: dict[str, Any]
) -> None:
    found = [load_checkpoint(train(Recipe(**{**RECIPE, **more}), source, tmp_path / name)).model
             for name, more in (("a", {}), ("b", options))]  # fmt: skip
    assert not torch.allclose(found[0]["classifier.weight"], found[1]["classifier.weight"], atol=1e-5)


def test_a_network_without_class_token_is_refused(source: PictureSource, tmp_path: Path) -> None:
    recipe = Recipe(**{**RECIPE, "model": "mobilenet_v1", "model_options": {}})
    with pytest.raises(RecipeError, match=r"multiresolution.*needs a ResFormer, not 'mobilenet_v1'"):
        train(recipe, source, tmp_path)
