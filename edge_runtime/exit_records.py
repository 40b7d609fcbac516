"""The part of a manifest that describes a network which looks several times; docs/glance-and-focus.md."""

from __future__ import annotations

from dataclasses import dataclass

MAX_LOOKS = 32
CLASSIFIERS = ("recurrent", "concatenating")
MEMORY_LIMIT = 1 << 20


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


@dataclass(frozen=True)
class LookParts:
    """Programs of one engine, by name; a point names the glance. In an int8 set some parts may be float."""

    glance: str
    """(1, 3, patch, patch) -> vector (1, V) and feature map."""
    policy: str
    """Feature map and memory (1, policy_memory) -> place (1, 2) and memory."""
    focus: str
    """As the glance, for a patch."""
    classifiers: tuple[str, ...]
    """One for each look. Recurrent: vector and memory -> scores (1, classes) and memory, always the same program.
    Concatenating: all vectors so far (1, V * look) -> scores."""


@dataclass(frozen=True)
class ExitSetting:
    """When a run stops: what an operating point chooses."""

    name: str
    max_looks: int
    thresholds: tuple[float, ...]
    """Calibrated confidence at which a run stops, one for each look but the last possible one."""
    expected_looks: float
    """On held-out pictures."""
    shares: tuple[float, ...]
    """Share of held-out pictures that stop after each look; the cost distribution of a frame."""

    def __post_init__(self) -> None:
        _require(1 <= self.max_looks <= MAX_LOOKS, f"max_looks is {self.max_looks}, expected 1 to {MAX_LOOKS}")
        _require(
            len(self.thresholds) == self.max_looks - 1,
            f"exit {self.name!r}: {len(self.thresholds)} thresholds, expected {self.max_looks - 1}: max_looks less one",
        )
        _require(all(0.0 <= t <= 2.0 for t in self.thresholds), f"exit {self.name!r}: thresholds must be 0 to 2")
        _require(len(self.shares) == self.max_looks, f"exit {self.name!r}: expected a share for each look")
        _require(
            all(0.0 <= s <= 1.0 for s in self.shares) and abs(sum(self.shares) - 1.0) < 1e-3,
            f"exit {self.name!r}: shares must be 0 to 1 and add up to 1",
        )
        _require(
            1.0 <= self.expected_looks <= self.max_looks, f"exit {self.name!r}: expected_looks must be 1 to max_looks"
        )


@dataclass(frozen=True)
class EarlyExits:
    """A network that looks at the whole picture first and then at patches of it."""

    patch: int
    """Side of the glance and of each patch, pixels."""
    looks: int
    """Looks at most."""
    classifier: str
    policy_memory: int
    """Size of the policy's recurrent state."""
    classifier_memory: int
    """Size of the classifier's recurrent state; 0 where it concatenates."""
    temperatures: tuple[float, ...]
    """Scores of each look are divided by it before the softmax."""
    parts: tuple[LookParts, ...]
    settings: tuple[ExitSetting, ...]

    def __post_init__(self) -> None:
        _require(8 <= self.patch <= 8192, f"patch is {self.patch}, expected 8 to 8192 pixels")
        _require(1 <= self.looks <= MAX_LOOKS, f"looks is {self.looks}, expected 1 to {MAX_LOOKS}")
        _require(
            self.classifier in CLASSIFIERS,
            f"classifier is {self.classifier!r}, expected one of {', '.join(CLASSIFIERS)}",
        )
        for name in ("policy_memory", "classifier_memory"):
            _require(0 <= getattr(self, name) <= MEMORY_LIMIT, f"{name} is {getattr(self, name)}, expected 0 or more")
        _require(len(self.temperatures) == self.looks, f"temperatures: expected {self.looks}, one for each look")
        _require(all(1e-3 <= t <= 1e3 for t in self.temperatures), "temperatures must be 0.001 to 1000")
        _require(bool(self.parts) and bool(self.settings), "exits: expected at least one set of parts and one setting")
        _require(
            all(len(p.classifiers) == self.looks for p in self.parts), "exits: expected a classifier for each look"
        )
        names = [s.name for s in self.settings]
        _require(len(set(names)) == len(names), "exits: two settings have the same name")
        _require(
            all(s.max_looks <= self.looks for s in self.settings), f"exits: max_looks must be at most {self.looks}"
        )

    def setting(self, name: str) -> ExitSetting:
        """The setting of that name; KeyError without one."""
        return {s.name: s for s in self.settings}[name]

    def parts_of(self, glance: str) -> LookParts:
        """The parts whose glance is this program; KeyError without one."""
        return {p.glance: p for p in self.parts}[glance]
