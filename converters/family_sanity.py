"""Ask a model itself whether it is fed as it was trained: a few pictures under other choices, compared one by one."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from converters.family_pictures import Pictures
from edge_runtime.backends import Runner
from edge_runtime.preprocess import TensorSpec, preprocess

PICTURES = 96
CLEAR_SIGMAS, CLEAR_GAIN = 2.5, 0.03
NORMALISATIONS = {
    "--mean 123.675,116.28,103.53 --std 58.395,57.12,57.375": ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)),
    "--mean 127.5 --std 127.5": ((127.5,) * 3, (127.5,) * 3),
    "--mean 0 --std 255": ((0.0,) * 3, (255.0,) * 3),
    "--mean 0 --std 1": ((0.0,) * 3, (1.0,) * 3),
}
CROPS = {
    "--crop-share 0.875": {"crop_share": 0.875},
    "--crop-share 1": {"crop_share": 1.0},
    "--fit squash": {"fit": "squash"},
}


@dataclass(frozen=True)
class Alternative:
    """One other way to feed the model."""

    flags: str
    """What to give on the command line."""
    accuracy: float
    clearly_better: bool


@dataclass(frozen=True)
class SanityReport:
    """What a few pictures say about the chosen preprocessing."""

    pictures: int
    accuracy: float
    """Share that is right as chosen."""
    alternatives: tuple[Alternative, ...]
    classes: int

    @property
    def warnings(self) -> tuple[str, ...]:
        """One sentence for each choice that is clearly better, best first; and one when nothing works."""
        better = sorted((a for a in self.alternatives if a.clearly_better), key=lambda a: -a.accuracy)
        lines = [
            f"{a.flags} is right on {a.accuracy:.1%} of {self.pictures} pictures in place of {self.accuracy:.1%}: "
            "was the model trained that way?"
            for a in better
        ]
        best = max([self.accuracy, *(a.accuracy for a in self.alternatives)])
        if best < max(2.0 / self.classes, 0.02):
            lines.append(
                f"the model is right on {best:.1%} of {self.pictures} pictures at best, hardly more than by chance; "
                "are the labels in the order of its outputs?"
            )
        return tuple(lines)

    @property
    def lines(self) -> tuple[str, ...]:
        """The whole report."""
        head = f"sanity: as chosen {self.accuracy:.1%} of {self.pictures} pictures of select"
        return head, *(f"sanity: {a.flags}: {a.accuracy:.1%}" for a in self.alternatives)


def check_sanity(
    runner: Runner, spec: TensorSpec, size_hw: tuple[int, int], pictures: Pictures, labels: np.ndarray,
    channels: str, classes: int,
) -> SanityReport:  # fmt: skip
    """Run a few pictures as chosen and under alternatives.

    Args:
        runner: of a float point.
        spec: the chosen preprocessing.
        size_hw: of that point.
        pictures, labels: of select; the first PICTURES are used.
        channels: the chosen order, for the text only.
        classes: number of outputs.
    """
    shown = Pictures(pictures.source, pictures.names[:PICTURES])
    expected = labels[: len(shown)]

    def right(other: TensorSpec, swap: bool = False) -> np.ndarray:
        best = []
        for picture in shown:
            pixels = np.ascontiguousarray(picture[..., ::-1]) if swap else picture
            preprocess(pixels, other, size_hw, out=runner.input)
            best.append(int(runner.run()[0].argmax()))
        return np.array(best) == expected

    chosen = right(spec)
    trials = [(f"--channels {'rgb' if channels == 'bgr' else 'bgr'}", right(spec, swap=True))]
    for flags, (mean, std) in NORMALISATIONS.items():
        trials.append((flags, right(replace(spec, mean=mean, std=std))))
    for flags, change in CROPS.items():
        trials.append((flags, right(replace(spec, **change))))
    other = "cubic" if spec.resize == "area" else "area"
    trials.append((f"--resize {other}", right(replace(spec, resize=other))))
    alternatives = tuple(Alternative(flags, float(found.mean()), _clearly(found, chosen)) for flags, found in trials)
    return SanityReport(len(shown), float(chosen.mean()), alternatives, classes)


def _clearly(other: np.ndarray, chosen: np.ndarray) -> bool:
    """More pictures turn right than wrong, by more than chance explains (a sign test on the pictures that differ)."""
    won, lost = int((other & ~chosen).sum()), int((chosen & ~other).sum())
    return won - lost >= max(CLEAR_SIGMAS * (won + lost) ** 0.5, CLEAR_GAIN * len(chosen), 3)
