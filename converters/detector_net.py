"""A detector as a bundle holds it: decoded boxes and class logits in one output, and a folded norm for each level.

The heads of zoo.efficientdet run the same convolutions at all levels, each level with norms of its own. A norm can only
be folded into a convolution that nobody else reads, so each level gets its own modules here; their parameters are the
same objects, so the bundle still stores them once.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from zoo.efficientdet import LEVELS, DetectionHead, EfficientDet
from zoo.efficientdet_boxes import anchor_boxes, flatten_maps
from zoo.export_form import ExportForm


class RowDetector(EfficientDet):
    """A detector whose output is what a manifest promises: a row for each anchor.

    Args:
        detector: from a checkpoint, with its statistics; it is not changed.
    Shapes: pictures (N, 3, H, W) float, normalised -> (N, anchors, 4 + classes): y0, x0, y1, x1 in pixels of the input,
        then the class logits.
    """

    def __init__(self, detector: EfficientDet) -> None:
        super().__init__(detector.num_classes, settings=detector.settings)
        self.load_state_dict(detector.state_dict())
        self.class_head = LevelledHead(self.class_head)
        self.box_head = LevelledHead(self.box_head)
        self.decode = RowDecoder(self.settings.anchor_scale)
        self.eval()

    def forward(self, x: Tensor, width: float | None = None) -> Tensor:
        """As EfficientDet.forward, but decoded."""
        return cast(Tensor, self.decode(x, *super().forward(x, width)))

    def class_predictors(self) -> tuple[str, ...]:
        """The convolutions that give the class logits, one for each level, by name.

        They stay float: what they give is compared with a threshold as it is, and nothing behind them evens rounding
        out.
        """
        return tuple(f"class_head.{name}.pointwise" for name in self.class_head.predictor_names())


class LevelledHead(nn.Module):
    """A detection head whose levels have modules of their own. The first level keeps the names of the original.

    Where a level's norm has other signs than the first level's, the convolution before it gets a parameter of its own:
    int8 puts the signs into the integers (converters/int8_graph.py).

    Args:
        head: its modules are taken over.
    Shapes: as DetectionHead.
    """

    def __init__(self, head: DetectionHead) -> None:
        super().__init__()
        self.convolutions, self.norms, self.activation = head.convolutions, head.norms, head.activation
        self.predictor = head.predictor
        self.levels = nn.ModuleList(self._twin(level) for level in range(1, LEVELS))

    def _twin(self, level: int) -> nn.ModuleList:
        """The convolutions and the predictor of another level."""
        twins = nn.ModuleList()
        for module in (*self.convolutions, self.predictor):
            same = {id(p): p for p in module.parameters()}
            twins.append(copy.deepcopy(module, same))
        for twin, norms in zip(twins, self.norms, strict=False):  # the predictor has none
            if not torch.equal(norms[0].weight < 0, norms[level].weight < 0):
                twin.pointwise.weight = nn.Parameter(twin.pointwise.weight.detach().clone())
        return twins

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        outputs = []
        for level, x in enumerate(features):
            *convolutions, predictor = (
                self.levels[level - 1] if level else (*self.convolutions, self.predictor)
            )  # fmt: skip
            for convolution, norms in zip(convolutions, self.norms, strict=True):
                x = self.activation(norms[level](convolution(x)))
            outputs.append(predictor(x))
        return outputs

    def predictor_names(self) -> list[str]:
        """Of the first level and the others."""
        return ["predictor", *(f"levels.{index}.{len(twins) - 1}" for index, twins in enumerate(self.levels))]


class RowDecoder(ExportForm):
    """Joins the network's ten maps to one row for each anchor, its box decoded; anchors are constants in a graph.

    Args:
        anchor_scale: side of the smallest square anchor, in cells.
    Shapes: the picture (N, 3, H, W) and the maps -> (N, anchors, 4 + classes).
    """

    needs_size = True

    def __init__(self, anchor_scale: float) -> None:
        super().__init__()
        self.anchor_scale = anchor_scale

    def forward(self, x: Tensor, *maps: Tensor) -> Tensor:
        return cast(Tensor, self.to_export_form((x.shape[-2], x.shape[-1]))(x, *maps))

    def to_export_form(self, size_hw: tuple[int, int] | None) -> nn.Module:
        """The decoder of one size.

        Raises:
            ValueError: there is no size.
        """
        if size_hw is None:
            raise ValueError("a detector's graph is for one size, and none is given")
        return _SizedDecoder(anchor_boxes(size_hw, self.anchor_scale))


class _SizedDecoder(nn.Module):
    """Anchors as buffers: centres and sizes, each (A, 2) y, x."""

    def __init__(self, anchors_xyxy: Tensor) -> None:
        super().__init__()
        low, high = anchors_xyxy[:, [1, 0]], anchors_xyxy[:, [3, 2]]
        self.register_buffer("centres", (low + high) / 2)
        self.register_buffer("sizes", high - low)

    def forward(self, x: Tensor, *maps: Tensor) -> Tensor:
        logits, codes = flatten_maps(maps)
        centres = self.centres + codes[..., :2] * self.sizes  # codes are ty, tx, th, tw
        halves = codes[..., 2:].exp() * (self.sizes / 2)
        return torch.cat((centres - halves, centres + halves, logits), -1)
