"""The tensors that an int8 ONNX graph quantizes are found again in the network that ExecuTorch lowers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from converters.executorch_quantize import _nodes_by_key, quantized_activations
from converters.int8_graph import QuantSpec, make_int8_graph
from converters.onnx_export import export_onnx
from edge_runtime.tensor_recipe import GraphTensors, TensorRecipe

SIDE = 12


class Pooled(nn.Module):
    """A stem with pooling, whose result feeds a convolution and a shortcut (ResNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.max_pool2d(torch.relu(self.stem(x)), 3, 2, 1)
        return torch.relu(x + self.body(x)).mean((2, 3))


class Sliced(nn.Module):
    """Slices of a map, each added to what the one before became (Res2Net)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 3, padding=1)
        self.parts = nn.ModuleList(nn.Conv2d(4, 4, 3, padding=1) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        first, second, third = torch.relu(self.stem(x)).split(4, 1)
        a = torch.relu(self.parts[0](first))
        b = torch.relu(self.parts[1](a + second))
        return torch.cat((a, b, b + third), 1).mean((2, 3))


class Gated(nn.Module):
    """A sum of two maps that no convolution made: it stays float (transformers, HorNet)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = torch.sigmoid(x) + torch.tanh(x)
        return self.body(y).mean((2, 3))


class Recorder(torch.fx.Interpreter):
    """Runs a graph and keeps what every node gave."""

    def run_node(self, n: torch.fx.Node) -> Any:
        """As the base class."""
        self.seen = {**getattr(self, "seen", {}), n: super().run_node(n)}
        return self.seen[n]


def float_values(template: onnx.ModelProto, names: list[str], picture: np.ndarray) -> list[np.ndarray]:
    """Tensors inside the float graph."""
    open_graph = onnx.ModelProto.FromString(template.SerializeToString())
    known = {o.name for o in open_graph.graph.output}
    shown = [n for n in names if n not in known and n != "image"]
    open_graph.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in shown)
    session = onnxruntime.InferenceSession(open_graph.SerializeToString(), providers=["CPUExecutionProvider"])
    return [picture if n == "image" else session.run([n], {"image": picture})[0] for n in names]


@pytest.mark.parametrize("network", [Pooled, Sliced, Gated])
@torch.no_grad()
def test_every_quantized_tensor_is_the_same_one_in_both_graphs(network: type[nn.Module]) -> None:
    torch.manual_seed(0)
    plain, picture = network().eval(), torch.randn(1, 3, SIDE, SIDE)
    template = export_onnx(plain, SIDE, free_sides=False)
    tensors = {t.name: numpy_helper.to_array(t) for t in template.graph.initializer}
    weights = {n: a for n, a in tensors.items() if n in dict(plain.named_parameters())}
    recipe = GraphTensors(tuple(TensorRecipe(name, a.shape, name) for name, a in weights.items()))
    wanted = quantized_activations(make_int8_graph(template, recipe, QuantSpec()).proto)
    module = torch.export.export(plain, (picture,)).module()
    found = _nodes_by_key(module.graph)
    recorder = Recorder(module)
    recorder.run(picture)
    values = float_values(template, list(wanted.values()), picture.numpy())
    assert len(wanted) >= 2
    for key, value in zip(wanted, values, strict=True):
        np.testing.assert_allclose(recorder.seen[found[key]].numpy(), value, atol=1e-5, err_msg=key)
    kinds = {key.split()[0] for key in wanted}
    assert kinds >= {Pooled: {"into", "add"}, Sliced: {"beside", "add"}, Gated: {"into"}}[network]
    assert ("add" in kinds) is (network is not Gated)
