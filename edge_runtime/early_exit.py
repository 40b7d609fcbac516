"""An anytime network: after each look there is an answer, and the time left decides whether to look again.

A run stops when the answer is sure (its calibrated confidence reaches the point's threshold), when the next look risks
the deadline for less than it is worth, or after the point's last look. It always returns an answer: the one of the
latest look that gave numbers. The glance is never skipped. On video the first patch may lie where the last frame's
answer was found; edge_runtime/pipeline.py hands it from frame to frame.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from edge_runtime.errors import BackendError
from edge_runtime.exit_records import EarlyExits, ExitSetting
from edge_runtime.look_clock import LookClock
from edge_runtime.look_worth import LookWorth

Array = npt.NDArray[np.float32]
SURE, OUT_OF_TIME, TOO_LITTLE, OUT_OF_LOOKS, FAILED = (
    "sure", "out of time", "too little to gain", "out of looks", "a later look failed",
)  # fmt: skip
DEADLINE_SHARE = 0.95  # of the deadline that looks may use; the answer has to be read and handed on, too
LATE_PER_RIGHT = 0.1
"""Late frames that a further right answer may cost: one for ten. benchmarks.glance_focus_deadline tries others."""
WARM_UP_RUNS = 5


class Parts(Protocol):
    """The four programs of an engine; arrays may be buffers that the next call overwrites."""

    def encode(self, look: int, image: Array) -> tuple[Array, Array]:
        """Vector (1, V) and feature map of the glance (look 0) or of a patch, from (1, 3, patch, patch)."""

    def place(self, feature_map: Array, memory: Array) -> tuple[Array, Array]:
        """Place (1, 2) of the next patch, 0-1 of the room, and the policy's memory."""

    def answer(self, look: int, vector: Array, memory: Array) -> tuple[Array, Array]:
        """Scores (1, classes) after this look, and the classifier's memory."""

    def close(self) -> None:
        """Release the engine's memory."""


@dataclass(frozen=True)
class LookRecord:
    """What one run did."""

    looks: int
    reason: str
    """Why it stopped: SURE, OUT_OF_TIME, TOO_LITTLE, OUT_OF_LOOKS or FAILED."""
    confidence: float
    """Calibrated probability of the answer, 0-1."""
    boxes: tuple[tuple[int, int, int, int], ...]
    """Patches in the order looked at: top, left, rows, columns in pixels of the network's picture."""
    look_ms: tuple[float, ...]
    """Time of each look."""
    classes: tuple[int, ...] = ()
    """Best class after each look; -1 where the scores were no numbers."""
    hinted: bool = False
    """The first patch was cut where the frame before found its answer."""


@dataclass(frozen=True)
class FoundPlace:
    """Where a run found its answer: a hint for the next frame of a video."""

    place: Array
    """(1, 2) row and column of the patch's corner, 0-1 of the room."""
    classes: frozenset[int]
    """What the glance and the answer said. A glance that says none of these sees another picture."""


@dataclass
class _Run:
    """What a run carries from look to look."""

    policy_memory: Array
    memory: Array
    hint: FoundPlace | None
    feature_map: Array = field(default_factory=lambda: np.zeros((0,), np.float32))
    boxes: list[tuple[int, int, int, int]] = field(default_factory=list)
    classes: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    hinted: bool = False


class EarlyExitRunner:
    """A runner (edge_runtime.backends.Runner) that looks as often as it is worth and as time allows.

    Args:
        parts: the programs; not owned, since other points use them too.
        exits: facts of the network.
        setting: when to stop.
        size_hw: of the picture.
        classes: scores.
        clock: monotonic, seconds.
    """

    def __init__(
        self,
        parts: Parts,
        exits: EarlyExits,
        setting: ExitSetting,
        size_hw: tuple[int, int],
        classes: int,
        clock: Callable[[], float] = time.monotonic,
        look_clock: LookClock | None = None,
    ) -> None:
        self.input: Array = np.zeros((1, 3, *size_hw), np.float32)
        self.deadline_s: float | None = None
        """When the answer must be there, in the clock's time; None does not limit. Taken for one run."""
        self.hint: FoundPlace | None = None
        """Where the last frame's answer was found; None leaves the first patch to the policy. Taken for one run."""
        self.last: LookRecord | None = None
        """What the last run did."""
        self.late_per_right = LATE_PER_RIGHT
        """A look may begin while its risk to be late is at most this many times the accuracy that it should gain."""
        self._parts, self._exits, self._setting, self._clock = parts, exits, setting, clock
        self.look_clock, self.worth = look_clock or LookClock(), LookWorth()
        self._output = np.zeros((1, classes), np.float32)
        self._image = np.zeros((1, 3, exits.patch, exits.patch), np.float32)

    def warm_up(self) -> None:
        """Run all looks some times, so that the first frame knows how long a look takes."""
        never = (2.0,) * (self._setting.max_looks - 1)
        for _ in range(WARM_UP_RUNS):
            self._look(never, None, None)
        self.last, self.worth = None, LookWorth()

    def run(self) -> Array:
        """Calibrated logits (1, classes) of the picture in `input`; the runner's own buffer.

        Raises:
            BackendError: the glance failed; a later look that fails ends the run with the answer before it.
        """
        deadline_s, self.deadline_s = self.deadline_s, None
        hint, self.hint = self.hint, None
        self._look(self._setting.thresholds, deadline_s, hint)
        return self._output

    @property
    def max_looks(self) -> int:
        """Looks that the point allows."""
        return self._setting.max_looks

    @property
    def found(self) -> FoundPlace | None:
        """Where the last run found its answer: the patch of its last look, if it ended sure and had looked at one."""
        if self.last is None or self.last.reason != SURE or not self.last.boxes:
            return None
        top, left, rows, columns = self.last.boxes[-1]
        rooms = self.input.shape[2] - rows, self.input.shape[3] - columns
        # the middle of the pixel: the corner of the same pixel comes back, however the share is rounded
        shares = [(at + 0.5) / room if room else 0.0 for at, room in zip((top, left), rooms, strict=True)]
        classes = frozenset({self.last.classes[0], self.last.classes[-1]}) - {-1}
        return FoundPlace(np.array([shares], np.float32), classes)

    @property
    def expected_ms(self) -> float:
        """What a run takes in the mean over pictures: the expected looks at their usual time."""
        return self.look_clock.usual_s(self._setting.expected_looks) * 1000.0

    def comparable_ms(self, run_ms: float) -> float:
        """The time of the last run as if it had taken the expected number of looks.

        How often a picture is looked at says nothing of how fast the machine is; a controller that compares times with
        its query table would take hard pictures for a slow machine.
        """
        usual_s = 0.0 if self.last is None else self.look_clock.usual_s(self.last.looks)
        return run_ms if usual_s <= 0.0 else run_ms * self.expected_ms / (usual_s * 1000.0)

    def close(self) -> None:
        """Nothing: the programs belong to the backend."""

    def _look(self, thresholds: tuple[float, ...], deadline_s: float | None, hint: FoundPlace | None) -> None:
        exits, last = self._exits, self._setting.max_looks - 1
        policy_memory = np.zeros((1, exits.policy_memory), np.float32)
        run = _Run(policy_memory, np.zeros((1, exits.classifier_memory), np.float32), hint)
        reason, confidence = OUT_OF_LOOKS, 0.0
        self._output[:] = np.nan  # never the answer of the frame before
        for look in range(self._setting.max_looks):
            started_s = self._clock()
            try:
                found = self._answer(look, run)
            except BackendError:
                if look == 0:
                    raise
                found = None
            if found is None and look:  # the answer before stays
                reason = FAILED
                break
            if found is not None and look:
                self.worth.observe(look, confidence, found)
            confidence = found or 0.0  # a glance without numbers says nothing; the next look may
            run.classes.append(-1 if found is None else int(self._output[0].argmax()))
            now_s = self._clock()
            run.seconds.append(now_s - started_s)
            self.look_clock.observe(look, run.seconds[-1])
            if look == last:
                break
            if confidence >= thresholds[look]:
                reason = SURE
                break
            against = None if deadline_s is None else self._weigh(look + 1, confidence, deadline_s - now_s)
            if against is not None:
                reason = against
                break
        self.last = LookRecord(
            len(run.seconds), reason, confidence, tuple(run.boxes), tuple(t * 1000.0 for t in run.seconds),
            tuple(run.classes), run.hinted,
        )  # fmt: skip

    def _weigh(self, look: int, confidence: float, room_s: float) -> str | None:
        """What speaks against the next look: what it risks, against what it should gain; None when nothing does."""
        risk = self.look_clock.risk(room_s)
        if risk <= self.late_per_right * self.worth.of(look, confidence):
            return None
        self.look_clock.stopped()
        if risk <= self.late_per_right * (1.0 - confidence):  # time enough for a look that would make sure
            return TOO_LITTLE
        return OUT_OF_TIME

    def _answer(self, look: int, run: _Run) -> float | None:
        """One look; returns the confidence of its answer, or None where the scores are no numbers."""
        if look == 0:
            shrink(self.input, self._image)
        else:
            # With a hint the policy runs all the same: its memory is made of feature maps and never of places, so
            # that it goes on as it was trained, only the patch lies elsewhere.
            place, run.policy_memory = self._parts.place(run.feature_map, run.policy_memory)
            if look == 1 and run.hint is not None and run.classes[0] in run.hint.classes:
                place, run.hinted = run.hint.place, True
            run.boxes.append(cut(self.input, place, self._image))
        vector, run.feature_map = self._parts.encode(look, self._image)
        scores, run.memory = self._parts.answer(look, vector, run.memory)
        return self._take(scores, self._exits.temperatures[look])

    def _take(self, scores: Array, temperature: float) -> float | None:
        """Keep the scores of a look as the answer; returns its confidence, or None where they are no numbers."""
        if not np.isfinite(scores).all():
            return None
        np.divide(scores, temperature, out=self._output)
        exponents = np.exp(self._output[0].astype(np.float64) - float(self._output.max()))
        return float(exponents.max() / exponents.sum())


def shrink(picture: Array, out: Array) -> None:
    """The glance: area averaging of each channel.

    Args:
        picture: (1, 3, H, W) float32.
        out: (1, 3, side, side) float32 to write into.
    """
    import cv2

    rows, columns = out.shape[2:]
    for channel in range(picture.shape[1]):
        out[0, channel] = cv2.resize(picture[0, channel], (columns, rows), interpolation=cv2.INTER_AREA)


def cut(picture: Array, place: Array, out: Array) -> tuple[int, int, int, int]:
    """Copy a patch out of a picture.

    Args:
        picture: (1, 3, H, W) float32.
        place: (1, 2) row and column of the corner, 0-1 of the room; what is no number counts as the middle.
        out: (1, 3, rows, columns) float32 to write into.
    Returns:
        top, left, rows and columns of the patch in pixels.
    """
    rows, columns = out.shape[2:]
    corner = []
    for share, room in zip(place[0].tolist(), (picture.shape[2] - rows, picture.shape[3] - columns), strict=True):
        inside = min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.5
        corner.append(math.floor(inside * room))
    top, left = corner
    out[:] = picture[:, :, top : top + rows, left : left + columns]
    return top, left, rows, columns
