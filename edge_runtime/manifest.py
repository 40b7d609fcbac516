"""The records of manifest.json, schema version 3; docs/bundle.md describes each field."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

from edge_runtime.bundle_files import FileFact
from edge_runtime.exit_records import EarlyExits, LookParts
from edge_runtime.preprocess import FITS, RESIZES

SCHEMA_VERSION = 3
READABLE_VERSIONS = (1, 2, 3)
"""1 had no packed files and no norms in its recipes; 2 had no clips and no boxes, without which 2 is still written."""
MOST_FRAMES, MOST_PIXELS = 64, 8192 * 8192
MOST_ANCHORS, MOST_OUTPUT_VALUES = 10_000_000, 1 << 28
"""Rows of a detector's output, and numbers in it (1 GiB): each resident point has one such array."""
TASKS = ("classification", "detection")
BACKENDS = ("onnxruntime", "executorch", "null")
PRECISIONS = ("fp32", "int8")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


@dataclass(frozen=True)
class Preprocessing:
    """How a frame becomes the network's input: RGB, NCHW float32, (pixel - mean) / std."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    fit: str = "crop"
    crop_share: float = 1.0
    resize: str = "area"
    """One of RESIZES."""

    def __post_init__(self) -> None:
        _require(self.fit in FITS, f"fit is {self.fit!r}, expected one of {', '.join(FITS)}")
        _require(self.resize in RESIZES, f"resize is {self.resize!r}, expected one of {', '.join(RESIZES)}")
        _require(all(1e-3 <= s <= 1e6 for s in self.std), f"std is {self.std}, expected 0.001 to 1000000")
        _require(all(abs(m) <= 1e6 for m in self.mean), f"mean is {self.mean}, expected at most 1000000")
        _require(0.0 < self.crop_share <= 1.0, f"crop_share is {self.crop_share}, expected 0 < share <= 1")


@dataclass(frozen=True)
class ChannelRule:
    """How a width becomes channel counts: make_divisible(base * width, divisor), never below 90 %."""

    rule: str
    divisor: int
    width_min: float
    width_max: float

    def __post_init__(self) -> None:
        _require(1 <= self.divisor <= 1024, f"divisor is {self.divisor}, expected 1 to 1024")
        _require(0.0 < self.width_min <= self.width_max <= 1.0, "widths must be 0 < width_min <= width_max <= 1")


@dataclass(frozen=True)
class Program:
    """What a backend runs."""

    name: str
    backend: str
    precision: str
    file: str
    input: str = "image"
    """ONNX input name; for ExecuTorch the method comes from the point."""
    output: str = "logits"
    tensors: str | None = None
    """File with the recipe of the graph's external weights; None when the program holds its own."""

    def __post_init__(self) -> None:
        _require(self.backend in BACKENDS, f"backend is {self.backend!r}, expected one of {', '.join(BACKENDS)}")
        _require(
            self.precision in PRECISIONS, f"precision is {self.precision!r}, expected one of {', '.join(PRECISIONS)}"
        )


@dataclass(frozen=True)
class OperatingPoint:
    """One way to run the model."""

    name: str
    program: str
    width: float
    size_hw: tuple[int, int]
    madds: int
    accuracy: dict[str, float]
    """Split -> top-1 accuracy, of detectors average precision at IoU 0.5; 0-1, measured with the program's engine."""
    table: str | None = None
    """Key of this point's scales and shifts in the tables file."""
    method: str | None = None
    """ExecuTorch method."""
    temperature: float = 1.0
    """Logits are divided by it before the softmax, of detectors before the sigmoid (calibrated confidence)."""
    unsure_below: float = 0.0
    """Confidence under which the answer is "unsure", and a detector's box is not shown."""
    latency_ms: float | None = None
    """Median on the machine that built the bundle; a first guess that the device replaces."""
    exit: str | None = None
    """Setting of `Manifest.exits` that this point runs with; its program is then the glance of a set of parts."""
    frames: int | None = None
    """Of the clip that it reads; None: it reads pictures."""
    anchors: int | None = None
    """Rows of a detector's output; None: it is a classifier."""

    @property
    def size(self) -> tuple[int, ...]:
        """What preprocessing makes: (height, width), or (frames, height, width)."""
        return self.size_hw if self.frames is None else (self.frames, *self.size_hw)

    @property
    def input_shape(self) -> tuple[int, ...]:
        """What the program reads: (1, 3, height, width), or (1, 3, frames, height, width)."""
        return (1, 3, *self.size)

    def output_shape(self, labels: int) -> tuple[int, ...]:
        """What the program gives for so many labels: (1, labels), or (1, anchors, 4 + labels) of detectors.

        A detector's row is y0, x0, y1, x1 in pixels of the input, and a logit for each label.
        """
        return (1, labels) if self.anchors is None else (1, self.anchors, 4 + labels)

    def __post_init__(self) -> None:
        _require(0.0 < self.width <= 1.0, f"width is {self.width}, expected 0 < width <= 1")
        _require(all(8 <= s <= 8192 for s in self.size_hw), f"size_hw is {self.size_hw}, expected 8 to 8192 pixels")
        _require(1 <= self.madds <= 1 << 60, f"madds is {self.madds}, expected at least 1")
        _require(all(0.0 <= a <= 1.0 for a in self.accuracy.values()), "accuracy must be 0 to 1")
        _require("select" in self.accuracy, "accuracy on the select split is missing")
        _require(1e-3 <= self.temperature <= 1e3, f"temperature is {self.temperature}, expected 0.001 to 1000")
        _require(0.0 <= self.unsure_below <= 1.0, f"unsure_below is {self.unsure_below}, expected 0 to 1")
        _require(
            self.latency_ms is None or 1e-6 <= self.latency_ms <= 1e9,
            f"latency_ms is {self.latency_ms}, expected 0.000001 to 1000000000",
        )
        good = self.frames is None or 2 <= self.frames <= MOST_FRAMES
        _require(good, f"frames is {self.frames}, expected 2 to {MOST_FRAMES}")
        good = (self.frames or 1) * self.size_hw[0] * self.size_hw[1] <= MOST_PIXELS
        _require(good, f"frames is {self.frames} of {self.size_hw}, expected at most {MOST_PIXELS} pixels together")
        good = self.anchors is None or 1 <= self.anchors <= MOST_ANCHORS
        _require(good, f"anchors is {self.anchors}, expected 1 to {MOST_ANCHORS}")


@dataclass(frozen=True)
class Vectors:
    """Inputs and outputs for a self-test on the device."""

    file: str
    """npz with `pixels` (N, H, W, 3) uint8 and, for each point, `logits/<point>` float32: outputs without their first
    axis, (N, classes) or (N, anchors, 4 + labels)."""
    tolerance: float
    """Largest allowed difference of a logit, as a share of the largest logit; of detectors' boxes likewise."""

    def __post_init__(self) -> None:
        _require(0.0 < self.tolerance <= 1.0, f"tolerance is {self.tolerance}, expected 0 < tolerance <= 1")


@dataclass(frozen=True)
class Clip:
    """Networks that read several frames of a video."""

    duration_ms: float
    """A point of T frames reads frames that lie duration_ms / T apart, the last of them the newest."""

    def __post_init__(self) -> None:
        good = 1.0 <= self.duration_ms <= 600_000.0
        _require(good, f"duration_ms is {self.duration_ms}, expected 1 to 600000")


@dataclass(frozen=True)
class Boxes:
    """How a detector's rows become boxes."""

    overlap: float = 0.5
    """Intersection over union above which the weaker of two boxes of one label is dropped."""
    most: int = 100
    """Boxes of an answer at most, the surest ones."""

    def __post_init__(self) -> None:
        _require(0.0 < self.overlap < 1.0, f"overlap is {self.overlap}, expected 0 < overlap < 1")
        _require(1 <= self.most <= 1000, f"most is {self.most}, expected 1 to 1000")


def version_to_write(clip: Clip | None, boxes: Boxes | None = None) -> int:
    """The lowest schema version that holds a bundle, so that older runtimes read what they can."""
    return 2 if clip is None and boxes is None else SCHEMA_VERSION


@dataclass(frozen=True)
class Manifest:
    """manifest.json."""

    schema_version: int
    name: str
    task: str
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    programs: tuple[Program, ...]
    points: tuple[OperatingPoint, ...]
    files: dict[str, FileFact]
    channel_rule: ChannelRule | None = None
    weights: str | None = None
    """npz of the full network's tensors, each stored once."""
    tables: str | None = None
    """npz of the points' normalisation and of their activations' ranges."""
    vectors: Vectors | None = None
    splits: dict[str, str] = field(default_factory=dict)
    """Split -> data set and number of pictures, in words."""
    provenance: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    exits: EarlyExits | None = None
    """A network that looks several times; None for one that runs once for each frame."""
    clip: Clip | None = None
    """Given where the points read clips."""
    boxes: Boxes | None = None
    """Given where the task is detection."""

    @property
    def used_files(self) -> tuple[str, ...]:
        """Names of the files that the programs, the points and the self-test need."""
        found = [self.weights, self.tables, None if self.vectors is None else self.vectors.file]
        for program in self.programs:
            found += [program.file, program.tensors]
        return tuple(name for name in found if name is not None)

    def __post_init__(self) -> None:
        _require(self.task in TASKS, f"task is {self.task!r}, expected one of {', '.join(TASKS)}")
        least = 1 if self.task == "detection" else 2  # one class is a detector's answer, but no choice
        _require(len(self.labels) >= least, f"labels: expected at least {('one', 'two')[least - 1]}")
        _require(bool(self.points), "points: expected at least one")
        names = [self.name, *(p.name for p in self.programs), *(p.name for p in self.points)]
        for name in names:
            _require(
                NAME.fullmatch(name) is not None, f"name {name[:80]!r} has other signs than letters, digits, . _ -"
            )
        for kind, found in (("program", self.programs), ("point", self.points)):
            _require(len({p.name for p in found}) == len(found), f"two {kind}s have the same name")
        programs = {p.name: p for p in self.programs}
        for point in self.points:
            _require(
                point.program in programs, f"point {point.name!r} wants program {point.program!r}, not in the bundle"
            )
            if self.channel_rule is not None:
                low, high = self.channel_rule.width_min, self.channel_rule.width_max
                _require(
                    low - 1e-9 <= point.width <= high + 1e-9,
                    f"point {point.name!r} has width {point.width}, but the net was trained for {low} to {high}",
                )
            self._check_exit(point, programs)
            self._check_kind(point)
        for name in ("clip", "boxes"):
            absent = getattr(self, name) is None
            _require(absent or self.schema_version >= SCHEMA_VERSION, f"{name}: expected schema version 3 for it")
            _require(absent or self.exits is None, f"{name}: expected no exits beside it")
        _require(self.clip is None or self.boxes is None, "clip: expected no boxes beside it")
        has = f"task is {self.task!r}, but boxes is {'missing' if self.boxes is None else 'given'}"
        _require((self.task == "detection") == (self.boxes is not None), f"{has}; expected boxes for detection alone")

    def _check_kind(self, point: OperatingPoint) -> None:
        """A point of clips in a bundle of clips, and a detector in a bundle of detectors."""
        for name, found, key, given in (
            ("frames", point.frames, "clip", self.clip), ("anchors", point.anchors, "boxes", self.boxes),
        ):  # fmt: skip
            if (found is None) != (given is None):
                has = f"{name} is {found}, but {key} is {'missing' if given is None else 'given'}"
                raise ValueError(f"point {point.name!r}: {has}; expected both, at every point, or neither")
        shape = point.output_shape(len(self.labels))
        good = math.prod(shape) <= MOST_OUTPUT_VALUES
        _require(good, f"point {point.name!r}: its output is {shape}, expected at most {MOST_OUTPUT_VALUES} numbers")

    def _check_exit(self, point: OperatingPoint, programs: dict[str, Program]) -> None:
        if point.exit is None:
            return
        settings = () if self.exits is None else tuple(s.name for s in self.exits.settings)
        _require(point.exit in settings, f"point {point.name!r} wants exit {point.exit!r}, not in the bundle")
        assert self.exits is not None
        patch, size_hw = self.exits.patch, point.size_hw
        _require(min(size_hw) > patch, f"point {point.name!r}: size_hw is {size_hw}, expected above {patch}")
        parts: tuple[LookParts, ...] = tuple(p for p in self.exits.parts if p.glance == point.program)
        _require(len(parts) == 1, f"point {point.name!r}: program {point.program!r} is the glance of no set of parts")
        engines = set()  # precisions may differ: small parts of an int8 set stay float
        for name in (parts[0].glance, parts[0].policy, parts[0].focus, *parts[0].classifiers):
            _require(name in programs, f"exits: part {name!r} is not among the programs")
            engines.add(programs[name].backend)
        _require(len(engines) == 1, f"exits: the parts of {point.program!r} are of different engines")
