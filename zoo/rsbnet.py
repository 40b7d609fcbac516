"""RSBNet after its abstract: a backbone whose layers are chosen by search, under a switchable recognition module.

"RSBNet: One-Shot Neural Architecture Search for A Backbone Network in Remote Sensing Image Recognition" (Peng et al.
2021, arXiv:2112.03456). No code, search space or table is public, so this is built **after the abstract**: a supernet
with a choice in each layer, heads for three tasks behind one feature pyramid, and in zoo.path_search the training of
sampled paths and the evolution. The search space is that of Single Path One-Shot (Guo et al. 2019, arXiv:1904.00420):
20 layers of ShuffleNetV2 blocks, each with a kernel of 3, 5 or 7 or three separable convolutions ("xception"); it is
exact to that reference (tests/zoo/test_rsbnet.py). The path is the knob here, widths are fixed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.slim_net import FeatureInfo

Path = tuple[int, ...]
"""One number of `CHOICES` for each layer."""
CHOICES = ("shuffle 3x3", "shuffle 5x5", "shuffle 7x7", "xception")
KERNELS = (3, 5, 7)
STAGE_DEPTHS, STAGE_CHANNELS = (4, 4, 8, 4), (64, 160, 320, 640)
STEM_CHANNELS, LAST_CHANNELS = 16, 1024
LAYERS = sum(STAGE_DEPTHS)
PYRAMID_CHANNELS = 128
TASKS = ("classification", "land cover", "detection")
PUBLISHED_PATH: Path = (0, 0, 3, 1, 1, 1, 0, 0, 2, 0, 2, 1, 1, 0, 2, 0, 2, 1, 3, 2)
"""The example path of Single Path One-Shot: 318.7 M multiply-adds at 224 pixels."""


class PathError(ValueError):
    """A path that the supernet does not have; the message says what is expected."""


class ChoiceBlock(nn.Module):
    """One layer: ShuffleNetV2's block in one of the forms of `CHOICES`.

    With stride 1 every second channel passes by, as the shuffle of the paper leaves it; with stride 2 all channels go
    through both branches.

    Args:
        inputs, outputs: channels.
        choice: index into `CHOICES`.
        stride: 1, where inputs equal outputs, or 2.
    Shapes: (N, inputs, H, W) float -> (N, outputs, H / stride, W / stride).
    """

    def __init__(self, inputs: int, outputs: int, choice: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        inner, kept = outputs // 2, inputs if stride == 2 else inputs // 2
        kernel = 3 if choice == len(KERNELS) else KERNELS[choice]
        if choice == len(KERNELS):
            depthwise = [(kept, stride), (inner, 1), (inner, 1)]
            pointwise = [(kept, inner), (inner, inner), (inner, outputs - kept)]
            layers = [
                layer
                for (channels, step), (before, after) in zip(depthwise, pointwise, strict=True)
                for layer in (*_depthwise(channels, kernel, step), *_pointwise(before, after))
            ]
        else:
            layers = [
                *_pointwise(kept, inner), *_depthwise(inner, kernel, stride), *_pointwise(inner, outputs - kept)
            ]  # fmt: skip
        self.main = nn.Sequential(*layers)
        self.beside = nn.Identity()
        if stride == 2:
            self.beside = nn.Sequential(*_depthwise(kept, kernel, stride), *_pointwise(kept, kept))

    def forward(self, x: Tensor) -> Tensor:
        kept, changed = (x, x) if self.stride == 2 else (x[:, 0::2], x[:, 1::2])
        return torch.cat([self.beside(kept), self.main(changed)], 1)


def _pointwise(inputs: int, outputs: int) -> list[nn.Module]:
    norm = nn.BatchNorm2d(outputs, affine=False)
    return [nn.Conv2d(inputs, outputs, 1, bias=False), norm, nn.ReLU(inplace=True)]


def _depthwise(channels: int, kernel: int, stride: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels, channels, kernel, stride, kernel // 2, groups=channels, bias=False)
    return [convolution, nn.BatchNorm2d(channels, affine=False)]


class ClassHead(nn.Module):
    """Class scores (N, classes) from the last stage."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.last = nn.Sequential(*_pointwise(STAGE_CHANNELS[-1], LAST_CHANNELS))
        self.drop = nn.Dropout(0.1)
        self.classifier = nn.Linear(LAST_CHANNELS, num_classes, bias=False)

    def forward(self, features: list[Tensor]) -> Tensor:
        return self.classifier(self.drop(self.last(features[-1]).mean((2, 3))))


class Pyramid(nn.Module):
    """Top-down feature pyramid (Lin et al. 2016, arXiv:1612.03144): one map for each stage, `PYRAMID_CHANNELS` wide."""

    def __init__(self) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(channels, PYRAMID_CHANNELS, 1) for channels in STAGE_CHANNELS)
        self.smooth = nn.ModuleList(nn.Conv2d(PYRAMID_CHANNELS, PYRAMID_CHANNELS, 3, padding=1) for _ in STAGE_CHANNELS)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        levels = [lateral(x) for lateral, x in zip(self.lateral, features, strict=True)]
        for finer in range(len(levels) - 2, -1, -1):
            above = F.interpolate(levels[finer + 1], size=levels[finer].shape[-2:], mode="nearest")
            levels[finer] = levels[finer] + above
        return [smooth(x) for smooth, x in zip(self.smooth, levels, strict=True)]


class LandCoverHead(nn.Module):
    """Class scores of each pixel of the finest map, (N, classes, H / 4, W / 4): all levels resized to it and summed."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.pyramid = Pyramid()
        self.classifier = nn.Conv2d(PYRAMID_CHANNELS, num_classes, 1)

    def forward(self, features: list[Tensor]) -> Tensor:
        levels = self.pyramid(features)
        size = levels[0].shape[-2:]
        resized = [F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in levels[1:]]
        return self.classifier(torch.relu(torch.stack([levels[0], *resized]).sum(0)))


class DetectionHead(nn.Module):
    """For each cell of each level: class scores, distances to the four sides in strides, and centredness.

    Without anchors, as FCOS (Tian et al. 2019, arXiv:1904.01355); shared by the levels, finest first.
    Returns one (N, classes + 5, h, w) for each stage; the distances (channels classes to classes + 3: left, top, right,
    bottom) are positive.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.pyramid = Pyramid()
        self.shared = nn.Conv2d(PYRAMID_CHANNELS, PYRAMID_CHANNELS, 3, padding=1)
        self.predict = nn.Conv2d(PYRAMID_CHANNELS, num_classes + 5, 3, padding=1)

    def forward(self, features: list[Tensor]) -> list[Tensor]:
        found = []
        for level in self.pyramid(features):
            scores = self.predict(torch.relu(self.shared(level)))
            classes, sides, centred = scores.split([self.num_classes, 4, 1], 1)
            found.append(torch.cat([classes, F.softplus(sides), centred], 1))
        return found


HEADS: dict[str, Callable[[int], nn.Module]] = dict(
    zip(TASKS, (ClassHead, LandCoverHead, DetectionHead), strict=True)
)  # fmt: skip


class RSBNet(nn.Module):
    """The supernet with the head of one task; `switch` puts another one on.

    Args:
        num_classes: of the task.
        task: one of `TASKS`.
    Raises:
        ValueError: there is no such task.
    """

    def __init__(self, num_classes: int = 1000, task: str = TASKS[0]) -> None:
        super().__init__()
        stem = nn.Conv2d(3, STEM_CHANNELS, 3, 2, 1, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(STEM_CHANNELS, affine=False), nn.ReLU(inplace=True))
        self.layers = nn.ModuleList()
        inputs = STEM_CHANNELS
        for depth, outputs in zip(STAGE_DEPTHS, STAGE_CHANNELS, strict=True):
            for index in range(depth):
                stride = 2 if index == 0 else 1
                forms = (ChoiceBlock(inputs, outputs, choice, stride) for choice in range(len(CHOICES)))
                self.layers.append(nn.ModuleList(forms))
                inputs = outputs
        self.feature_info = [FeatureInfo(c, 4 << i) for i, c in enumerate(STAGE_CHANNELS)]
        self.switch(task, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out")

    def switch(self, task: str, num_classes: int) -> None:
        """Put a fresh head for another task on; the backbone stays.

        Raises:
            ValueError: there is no such task.
        """
        if task not in HEADS:
            raise ValueError(f"RSBNet: task is {task!r}, expected one of {', '.join(TASKS)}")
        self.task, self.head = task, HEADS[task](num_classes)

    def forward_features(self, x: Tensor, path: Sequence[int] = PUBLISHED_PATH) -> list[Tensor]:
        """The output of each stage (strides 4, 8, 16, 32) along a path.

        Args:
            x: pictures (N, 3, H, W) float, normalised.
            path: a number of `CHOICES` for each of the 20 layers.
        Raises:
            PathError: the path has another length or names a form that does not exist.
        """
        check_path(path)
        features, at = [], 0
        x = self.stem(x)
        for depth in STAGE_DEPTHS:
            for layer in range(at, at + depth):
                forms = self.layers[layer]
                x = forms[path[layer]](x) if isinstance(forms, nn.ModuleList) else forms(x)
            features.append(x)
            at += depth
        return features

    def forward(self, x: Tensor, path: Sequence[int] = PUBLISHED_PATH) -> Tensor | list[Tensor]:
        """What the head of the task makes of the features along a path; arguments as `forward_features`."""
        return self.head(self.forward_features(x, path))


def check_path(path: Sequence[int]) -> None:
    """Refuse what is no path.

    Raises:
        PathError: another length, or a choice that does not exist.
    """
    if len(path) != LAYERS:
        raise PathError(f"path has {len(path)} choices, expected {LAYERS}, one for each layer")
    wrong = [choice for choice in path if not 0 <= choice < len(CHOICES)]
    if wrong:
        raise PathError(f"path has the choice {wrong[0]}, expected 0 to {len(CHOICES) - 1}")


def chosen_network(model: RSBNet, path: Sequence[int]) -> RSBNet:
    """A copy that holds the blocks of one path alone: for export, and for training a found network on.

    Its forward pass takes this path whatever it is told.

    Raises:
        PathError: as `check_path`.
    """
    check_path(path)
    kept = copy.deepcopy([model.layers[layer][choice] for layer, choice in enumerate(path)])
    layers, model.layers = model.layers, nn.ModuleList()
    try:
        found = copy.deepcopy(model)
    finally:
        model.layers = layers
    found.layers = nn.ModuleList(kept)
    return found


VARIANTS: dict[str, Callable[..., RSBNet]] = {"rsbnet": RSBNet}
