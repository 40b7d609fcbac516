"""Let a policy decide again over a recorded run: the same decisions, or what another policy would have done."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from edge_runtime.controller_settings import ControllerSettings
from edge_runtime.errors import ReplayError
from edge_runtime.policies import Policy, make_policy
from edge_runtime.recorded_trace import RecordedFrame, RecordedTrace
from edge_runtime.result import Decision


@dataclass(frozen=True)
class Replayed:
    """One frame, decided again."""

    index: int
    decision: Decision
    run_ms: float | None
    """What the engine took, or would have; None for a frame that the engine did not answer."""
    on_time: bool
    accuracy: float
    """Expected, 0-1, of the point."""


@dataclass(frozen=True)
class ReplaySummary:
    """What a replayed run was worth."""

    policy: str
    frames: int
    answered: int
    on_time_share: float | None
    """Of the answered frames."""
    in_time_accuracy: float | None
    """Mean over the answered frames of the expected accuracy; a late one counts 0."""
    switches: int
    points: dict[str, int]
    """Point -> frames, most used first."""

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def replay_same(trace: RecordedTrace, settings: ControllerSettings | None = None) -> list[Replayed]:
    """The recorded policy over the recorded inputs and run times.

    Where it chooses another point than was recorded, the run time of the record no longer means anything; it is then
    what `what_if` takes.

    Args:
        settings: constants of `ours`; None takes this version's.
    Raises:
        ReplayError: the record is of schema 1, which lacks digits.
    """
    if trace.schema_version < 2:
        raise ReplayError(
            f"{trace.name}: telemetry schema {trace.schema_version} does not hold every digit; name a --policy to see "
            "what it would have done, or record the run again"
        )
    return _play(trace, _recorded_policy(trace, trace.policy, settings))


def what_if(
    trace: RecordedTrace, policy: str, settings: ControllerSettings | None = None, **options: Any
) -> list[Replayed]:
    """Another policy over the recorded frames.

    The engine's time at a point is the record's `point_latency_ms` where it has that, else the tabled latency x the
    frame's observed slowdown. `oracle` is given these times; `best-static` tries every point.

    Args:
        options: what `make_policy` takes for this policy.
    Raises:
        PolicyError: there is no such policy.
    """
    if policy == "best-static" and not options:
        runs = [_play(trace, _recorded_policy(trace, policy, None, point=p.name)) for p in trace.frames[0].ladder]
        return max(runs, key=lambda run: sum(frame.accuracy * frame.on_time for frame in run))
    if policy == "oracle":
        oracle = _Clairvoyant()
        return _play(trace, _recorded_policy(trace, policy, None, latency_ms_of=oracle.latency_ms_of), oracle)
    return _play(trace, _recorded_policy(trace, policy, settings, **options))


def summarise(policy: str, frames: Sequence[Replayed]) -> ReplaySummary:
    """Count and average."""
    answered = [frame for frame in frames if frame.run_ms is not None]
    points = Counter(frame.decision.point for frame in frames)
    share = sum(frame.on_time for frame in answered) / len(answered) if answered else None
    accuracy = sum(frame.accuracy * frame.on_time for frame in answered) / len(answered) if answered else None
    switches = sum(frame.decision.switched for frame in frames)
    return ReplaySummary(policy, len(frames), len(answered), share, accuracy, switches, dict(points.most_common()))


def decision_record(index: int, decision: Decision) -> dict[str, Any]:
    """A decision as a line of a file of decisions; all digits."""
    return {"index": index, **asdict(decision)}


def first_difference(frames: Sequence[Replayed], expected: Sequence[tuple[int, dict[str, Any]]]) -> str | None:
    """The first frame whose decision is not the expected one, in words; None when all are equal.

    Args:
        expected: (index, decision as `asdict` gives it); keys that it lacks are not compared.
    """
    for frame, (index, wanted) in zip(frames, expected, strict=False):
        if frame.index != index:
            return f"frame {frame.index} stands where frame {index} was expected"
        found = asdict(frame.decision)
        for key, value in wanted.items():
            if key not in found or found[key] != value:
                return f"frame {index}: {key} is {found.get(key)!r}, expected {value!r}"
    if len(frames) != len(expected):
        return f"{len(frames)} frames, expected {len(expected)}"
    return None


def changed_settings(trace: RecordedTrace) -> list[str]:
    """Constants that differ between the record and this version, in words."""
    now, then = asdict(ControllerSettings()), trace.settings or {}
    return [
        f"{name} was {then.get(name, 'unknown')} and is {now.get(name, 'gone')}"
        for name in sorted({*now, *then})
        if trace.settings is not None and now.get(name) != then.get(name)
    ]


class _Clairvoyant:
    """Tells the oracle what each point takes in the frame at hand."""

    def __init__(self) -> None:
        self.frame: RecordedFrame | None = None

    def latency_ms_of(self, point: str) -> float:
        """Milliseconds; those of the table for a frame that nobody answered."""
        assert self.frame is not None
        run_ms = _run_ms(self.frame, point)
        return _tabled_ms(self.frame, point) if run_ms is None else run_ms


def _recorded_policy(trace: RecordedTrace, policy: str, settings: ControllerSettings | None, **options: Any) -> Policy:
    ladder = trace.frames[0].ladder
    if policy == "ours":
        options = {"limits": trace.limits, **options}
    return make_policy(policy, ladder, settings, **options)


def _play(trace: RecordedTrace, policy: Policy, clairvoyant: _Clairvoyant | None = None) -> list[Replayed]:
    """All frames in order, in the order of operations of the pipeline."""
    ladder, replayed = trace.frames[0].ladder, []
    take_crowding = getattr(policy, "take_crowding", None)
    for frame in trace.frames:
        if frame.ladder is not ladder:
            ladder = frame.ladder
            policy.replace_ladder(ladder)
        policy.pinned = frame.pinned
        if clairvoyant is not None:
            clairvoyant.frame = frame
        if take_crowding is not None:
            take_crowding(frame.crowding)
        decision = policy.choose(frame.now_s, frame.budget, frame.readings, frame.resident, frame.age_ms)
        run_ms = _run_ms(frame, decision.point)
        observed_ms = frame.observed_ms if decision.point == frame.decision.point else run_ms
        if observed_ms is not None:
            policy.observe(decision.point, observed_ms)
        replayed.append(_replayed(frame, decision, run_ms))
    return replayed


def _replayed(frame: RecordedFrame, decision: Decision, run_ms: float | None) -> Replayed:
    on_time = False
    if run_ms is not None and frame.latency_ms is not None and frame.run_ms is not None:
        on_time = frame.latency_ms - frame.run_ms + run_ms <= frame.budget.deadline_ms
    accuracy = next(point.accuracy for point in frame.ladder if point.name == decision.point)
    return Replayed(frame.index, decision, run_ms, on_time, accuracy)


def _run_ms(frame: RecordedFrame, point: str) -> float | None:
    """What the engine took at the recorded point, or would have taken at another one."""
    if frame.run_ms is None or point == frame.decision.point:
        return frame.run_ms
    if point in frame.point_latency_ms:
        return frame.point_latency_ms[point]
    return _tabled_ms(frame, point) * (frame.run_ms / _tabled_ms(frame, frame.decision.point))


def _tabled_ms(frame: RecordedFrame, point: str) -> float:
    return next(p.latency_ms for p in frame.ladder if p.name == point)


def same_policy(trace: RecordedTrace, policy: str | None) -> bool:
    """Whether a replay under this name can be compared with the record."""
    return policy in (None, trace.policy) and trace.schema_version >= 2


def recorded_decisions(trace: RecordedTrace) -> list[tuple[int, dict[str, Any]]]:
    """What was decided, for `first_difference`."""
    return [(frame.index, frame.recorded) for frame in trace.frames]
