"""Order the channels of a trained network by importance, so that narrow prefixes keep what matters.

The order is one permutation for each group of channels that must move together (a residual trunk, the inside of a
block), so the function at full width does not change. Once-for-all (Cai et al. 2020, arXiv:1908.09791) sorts by the L1
norm of the weights that read a channel; here that norm is multiplied by the scale that the batch norms in front of the
reader give the channel.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from zoo.slim_layers import Channels, Joined, SlimBatchNorm, SlimConv, SlimError, SlimLayer, SlimLinear
from zoo.slim_net import SlimNet

CHANNELWISE_MODULES = (
    nn.Identity, nn.ReLU, nn.ReLU6, nn.SiLU, nn.Sigmoid, nn.Hardswish, nn.Hardsigmoid, nn.GELU, nn.Dropout,
    nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d,
)  # fmt: skip
CHANNELWISE_FUNCTIONS: tuple[Callable[..., object], ...] = (
    F.relu, F.relu6, F.silu, F.gelu, torch.relu, torch.sigmoid, F.sigmoid, F.max_pool2d, F.avg_pool2d,
    F.adaptive_avg_pool2d, F.dropout,
)  # fmt: skip
CHANNELWISE_METHODS = ("relu", "sigmoid", "contiguous")
SORTED_LAYERS = (SlimConv, SlimLinear, SlimBatchNorm)
JOINS: tuple[Callable[..., object], ...] = (operator.add, operator.iadd, operator.mul, torch.add, torch.mul)


@dataclass(eq=False)
class ChannelGroup:
    """Channels that must be permuted together."""

    count: int
    movable: bool
    """False where the order has a meaning (pictures, class scores) or an operation is not understood."""
    written_by: list[SlimConv | SlimLinear] = field(default_factory=list)
    """Layers with these channels on axis 0 of the weight; depthwise convolutions included."""
    norms: list[SlimBatchNorm] = field(default_factory=list)
    read_by: list[tuple[SlimConv | SlimLinear, tuple[SlimBatchNorm, ...]]] = field(default_factory=list)
    """Layers with these channels on axis 1, each with the norms whose output it reads."""


def sort_channels(model: SlimNet) -> int:
    """Permute the network in place by falling importance; its function at full width stays.

    The norm bank is cleared: statistics of narrower points belonged to other channels, so a network that was already
    trained slimmable loses its subnets.

    Returns:
        the number of groups that were sorted.
    Raises:
        SlimError: the network cannot be traced.
    """
    model.norm_bank.entries = {}
    groups = [g for g in channel_groups(model) if g.movable and g.read_by]
    for group in groups:
        _permute(group, torch.argsort(channel_importance(group), descending=True, stable=True))
    return len(groups)


@torch.no_grad()
def channel_importance(group: ChannelGroup) -> Tensor:
    """How much each channel of a group contributes: (count,) float, not negative.

    Over the layers that read it: L1 norm of the weights times the root of the summed squares of scale and shift of the
    batch norms that wrote what is read (1 where there is none).
    """
    total = torch.zeros(group.count)
    for layer, norms in group.read_by:
        reach = layer.weight.detach().abs().transpose(0, 1).flatten(1).sum(1).cpu()
        if norms:
            reach = reach * sum((n.weight.square() + n.bias.square()).cpu() for n in norms).sqrt()
        total += reach
    return total


def channel_groups(model: SlimNet) -> list[ChannelGroup]:
    """Find the groups by following one forward pass.

    Raises:
        SlimError: the network's forward cannot be traced.
    """
    try:
        graph = _Tracer().trace(model, concrete_args={"width": None})
    except Exception as error:  # tracing runs the network's own code, which may raise anything
        raise SlimError(
            f"{type(model).__name__}: cannot follow the forward pass to sort channels: {_sentence(error)}; "
            "use --no-sort-channels"
        ) from error
    walk = _Walk(model)
    for node in graph.nodes:
        walk.visit(node)
    return walk.groups()


def _sentence(error: Exception) -> str:
    return str(error).split(". ")[0].splitlines()[0]


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, SlimLayer) or super().is_leaf_module(m, module_qualified_name)


@dataclass(frozen=True)
class _Flow:
    """What one value of the graph carries: its group (an index), and the norms that wrote it."""

    group: int
    norms: tuple[SlimBatchNorm, ...] = ()


class _Walk:
    """Collects groups over the nodes of a graph; tied groups are merged by union-find."""

    def __init__(self, model: SlimNet) -> None:
        self.modules = dict(model.named_modules())
        self.found: list[ChannelGroup] = []
        self.parent: list[int] = []
        self.flows: dict[fx.Node, _Flow | None] = {}
        self.outputs: dict[nn.Module, int] = {}

    def groups(self) -> list[ChannelGroup]:
        return [group for index, group in enumerate(self.found) if self.parent[index] == index]

    def visit(self, node: fx.Node) -> None:
        inputs = [flow for flow in (self.flows.get(n) for n in node.all_input_nodes) if flow is not None]
        if node.op == "placeholder":
            self.flows[node] = self._new(0, movable=False)
        elif node.op == "call_module" and isinstance(self.modules[node.target], SORTED_LAYERS):
            self.flows[node] = self._layer(self.modules[node.target], inputs[0])
        elif not inputs or _is_shape(node):
            self.flows[node] = None  # sizes and constants carry no channels
        elif _is_channelwise(node, self.modules):
            self.flows[node] = inputs[0]
        elif node.op == "call_function" and node.target in JOINS:
            self.flows[node] = self._join(inputs)
        elif node.op != "output":
            for flow in inputs:
                self._group(flow.group).movable = False
            self.flows[node] = self._new(0, movable=False)

    def _layer(self, layer: nn.Module, flow: _Flow) -> _Flow:
        group = self._group(flow.group)
        if isinstance(layer, SlimBatchNorm):
            if layer not in group.norms:
                group.norms.append(layer)
            return _Flow(flow.group, (layer,))
        groups = getattr(layer, "groups", 1)
        if isinstance(groups, Channels) and groups == layer.inputs == layer.outputs:
            if layer not in group.written_by:
                group.written_by.append(layer)
            return _Flow(flow.group)
        if groups != 1 or not _is_one_prefix(layer.inputs):
            group.movable = False
        group.read_by.append((layer, flow.norms))
        if layer not in self.outputs:
            made = self._new(layer.outputs.full, movable=groups == 1 and _is_one_prefix(layer.outputs))
            self._group(made.group).written_by.append(layer)
            self.outputs[layer] = made.group
        return _Flow(self.outputs[layer])

    def _join(self, flows: list[_Flow]) -> _Flow:
        norms = tuple(dict.fromkeys(norm for flow in flows for norm in flow.norms))
        for flow in flows[1:]:
            self._merge(flows[0].group, flow.group)
        return _Flow(flows[0].group, norms)

    def _new(self, count: int, *, movable: bool) -> _Flow:
        self.found.append(ChannelGroup(count, movable))
        self.parent.append(len(self.parent))
        return _Flow(len(self.parent) - 1)

    def _root(self, index: int) -> int:
        while self.parent[index] != index:
            index = self.parent[index]
        return index

    def _group(self, index: int) -> ChannelGroup:
        return self.found[self._root(index)]

    def _merge(self, first: int, second: int) -> None:
        first, second = self._root(first), self._root(second)
        if first == second:
            return
        kept, gone = self.found[first], self.found[second]
        kept.movable = kept.movable and gone.movable and kept.count == gone.count
        kept.written_by += gone.written_by
        kept.norms += [norm for norm in gone.norms if norm not in kept.norms]
        kept.read_by += gone.read_by
        self.parent[second] = first


def _is_one_prefix(channels: Channels | Joined) -> bool:
    """The active channels are the first ones; counts in segments keep several prefixes."""
    return isinstance(channels, Channels) and channels.slim and channels.segments == 1


def _is_shape(node: fx.Node) -> bool:
    if node.op == "call_method":
        return node.target in ("size", "dim")
    return node.op == "call_function" and node.target is getattr and node.args[1] in ("shape", "ndim", "dtype")


def _is_channelwise(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules[node.target], CHANNELWISE_MODULES)
    if node.op == "call_function" and node.target is F.pad:
        return len(node.args[1]) <= 4  # the last two axes
    if node.op == "call_function":
        return node.target in CHANNELWISE_FUNCTIONS
    if node.op == "call_method" and node.target == "mean":
        axes = node.args[1] if len(node.args) > 1 else None
        return isinstance(axes, tuple) and 0 not in axes and 1 not in axes and min(axes) >= -2
    return node.op == "call_method" and node.target in CHANNELWISE_METHODS


@torch.no_grad()
def _permute(group: ChannelGroup, order: Tensor) -> None:
    for layer in group.written_by:
        _reorder(layer.weight, order, 0)
        if layer.bias is not None:
            _reorder(layer.bias, order, 0)
    for norm in group.norms:
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            _reorder(tensor, order, 0)
    for layer in dict.fromkeys(layer for layer, _ in group.read_by):
        _reorder(layer.weight, order, 1)


def _reorder(tensor: Tensor, order: Tensor, axis: int) -> None:
    tensor.copy_(tensor.index_select(axis, order.to(tensor.device)))
