"""The records of a profile result, schema version 2; docs/profile-result.md describes each field."""

from __future__ import annotations

from dataclasses import dataclass, field

SCHEMA_VERSION = 2
READABLE_VERSIONS = (1, 2)
"""Version 1 has no yardsticks; all else is equal."""
FORMAT = "edge-runtime profile"
MODES = ("quick", "standard", "full")
ENERGY_KINDS = ("measured", "estimate", "unknown")
ROUNDING_MS = 2e-6
"""A rounded percentile may lie so far outside its rounded samples."""


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ValueError(message)


@dataclass(frozen=True)
class BundleFacts:
    """Which bundle was profiled."""

    name: str
    task: str
    labels: int
    size_bytes: int
    """All files that the manifest lists."""
    manifest_sha256: str
    """Of manifest.json, which holds the hash of every other file: equal hash, equal bundle."""
    splits: dict[str, str] = field(default_factory=dict)
    """Split of `accuracy` -> data set and number of pictures, in words."""


@dataclass(frozen=True)
class Environment:
    """The device and what ran on it; None or empty is unknown."""

    system: str
    """linux, android, darwin, windows, ..."""
    system_release: str
    architecture: str
    device_profile: str
    """Name of the device profile that was used."""
    model: str = ""
    """Board, phone or product."""
    cpu_model: str = ""
    cores: int | None = None
    usable_cores: int | None = None
    """Cores that this process may use."""
    memory_bytes: int | None = None
    governor: str | None = None
    """Of cpufreq; several are joined by a comma."""
    max_frequency_mhz: float | None = None
    on_battery: bool | None = None
    battery_share: float | None = None
    temperature_start_c: float | None = None
    temperature_end_c: float | None = None
    virtual_machine: bool | None = None
    """The processor says that a hypervisor is below: neighbours may take its time unseen."""
    python: str = ""
    versions: dict[str, str] = field(default_factory=dict)
    """Package -> version: edge-runtime, numpy, and the engines that were used."""


@dataclass(frozen=True)
class Estimate:
    """A figure and the interval that holds its true value in 95 of 100 repetitions."""

    value: float
    low: float
    high: float

    def __post_init__(self) -> None:
        _require(self.low <= self.high, f"interval is {self.low} to {self.high}, expected low <= high")


@dataclass(frozen=True)
class Block:
    """Runs of one point without anything else in between: the unit of resampling."""

    started_s: float
    """Since the profile began, on a monotonic clock."""
    samples_ms: tuple[float, ...]
    """Every run of the block, in order, nothing left out."""
    foreign_load: float | None = None
    """Share of all cores that everybody else used meanwhile, 0-1."""
    temperature_c: float | None = None
    frequency_mhz: float | None = None
    """Mean over the cores."""
    arithmetic_ms: float | None = None
    """What a fixed piece of arithmetic took in this block, median: the yardstick of the processor's own speed."""
    memory_ms: float | None = None
    """What passing over a fixed amount of memory took, median: the yardstick of the memory's."""

    def __post_init__(self) -> None:
        for value in (self.arithmetic_ms, self.memory_ms):
            _require(value is None or value > 0.0, f"a yardstick took {value} ms, expected more than 0")
        _require(bool(self.samples_ms), "samples_ms is empty, expected at least one run")
        _require(min(self.samples_ms) > 0.0, "samples_ms holds a time that is not positive: the clock went backwards")


@dataclass(frozen=True)
class Latency:
    """What one run of the engine takes, milliseconds."""

    count: int
    mean_ms: Estimate
    p50_ms: Estimate
    p90_ms: Estimate
    p95_ms: Estimate
    p99_ms: Estimate
    """Largest sample when there are fewer than 100."""
    min_ms: float
    max_ms: float
    std_ms: float
    blocks: tuple[Block, ...]

    def __post_init__(self) -> None:
        _require(bool(self.blocks), "blocks is empty, expected at least one")
        starts = [block.started_s for block in self.blocks]
        _require(starts == sorted(starts), "blocks do not follow one another in time: the clock went backwards")
        found = sum(len(block.samples_ms) for block in self.blocks)
        _require(self.count == found, f"count is {self.count}, but the blocks hold {found} samples")
        low = min(min(block.samples_ms) for block in self.blocks) - ROUNDING_MS
        high = max(max(block.samples_ms) for block in self.blocks) + ROUNDING_MS
        for name in ("p50_ms", "p90_ms", "p95_ms", "p99_ms"):
            value = getattr(self, name).value
            _require(
                value > 0.0 and low <= value <= high,
                f"{name} is {value}, outside the samples ({low:.6g} to {high:.6g})",
            )


@dataclass(frozen=True)
class Load:
    """From nothing to the first answer, milliseconds; None where it was not measured."""

    cold_ms: float | None = None
    """Build the point in a fresh process, its files dropped from the page cache where the system lets us."""
    warm_ms: float | None = None
    """Build it again in the same process."""
    first_run_ms: float | None = None
    """The first run after the build."""
    note: str = ""
    """What was not measured, and why; or what "cold" means here."""


@dataclass(frozen=True)
class Memory:
    """Bytes of the process; None where the system does not tell."""

    kind: str = ""
    """"pss" (shared pages divided among their users), "rss", or empty."""
    baseline_bytes: int | None = None
    """The engine is open, no point is loaded."""
    loaded_bytes: int | None = None
    """The point is loaded and has run."""
    peak_bytes: int | None = None
    """Highest resident set size while loading and running."""
    added_bytes: int | None = None
    """What this point added: loaded - baseline in a process of its own, or beside the points before it."""
    note: str = ""


@dataclass(frozen=True)
class Energy:
    """Of one run, beside the idle device's own."""

    kind: str
    """"measured", "estimate", or "unknown"."""
    energy_mj: float | None = None
    """Millijoules of one run: power x time, the whole domain of `source`."""
    power_w: float | None = None
    """Mean while the point ran without pause."""
    source: str = ""
    """The sensor's file, or the estimate's figures in words; for "unknown" the reason."""

    def __post_init__(self) -> None:
        _require(self.kind in ENERGY_KINDS, f"kind is {self.kind!r}, expected one of {', '.join(ENERGY_KINDS)}")
        _require((self.energy_mj is None) == (self.kind == "unknown"), "energy_mj must be there unless kind is unknown")


@dataclass(frozen=True)
class Operator:
    """One node of the program."""

    name: str
    kind: str
    """Conv, Gemm, ..."""
    mean_ms: float
    """Of the middle half of the traced runs."""
    provider: str = ""
    """Who ran it: CPUExecutionProvider, XnnpackBackend, ..."""


@dataclass(frozen=True)
class Operators:
    """Time per operator, from the engine's own profiler, which slows the run a little."""

    source: str
    """"ONNX Runtime's profiler, mean of the middle half of 20 runs", or the reason why there are none."""
    rows: tuple[Operator, ...] = ()
    """In the order of execution."""


@dataclass(frozen=True)
class Delegation:
    """Who runs the program."""

    note: str
    delegated: int | None = None
    """Operators that the accelerated kernels (or the delegate) take."""
    total: int | None = None
    fallbacks: tuple[str, ...] = ()
    """Operators that run elsewhere than intended."""


@dataclass(frozen=True)
class Verdict:
    """Whether a measurement can be trusted, and why."""

    stable: bool
    reason: str
    """A sentence: "stable", or "unstable: foreign load 48 %"."""


@dataclass(frozen=True)
class PointProfile:
    """One operating point at one number of threads."""

    name: str
    backend: str
    precision: str
    threads: int
    width: float
    size_hw: tuple[int, int]
    madds: int
    accuracy: dict[str, float]
    """Split -> accuracy 0-1, from the manifest: top-1, or of detectors average precision at IoU 0.5."""
    latency: Latency
    throughput_fps: float
    """1000 / mean: runs a second, one after the other, engine only."""
    load: Load
    memory: Memory
    energy: Energy
    operators: Operators
    delegation: Delegation
    verdict: Verdict
    expected_looks: float | None = None
    """For a network with early exits: looks a picture takes in the mean. The latency is that of so many looks."""
    look_shares: tuple[float, ...] = ()
    """Share of held-out pictures that stop after each look, from the manifest."""
    frames: int | None = None
    """Of the clips that the point reads; None where it reads pictures."""

    def __post_init__(self) -> None:
        _require(1 <= self.threads <= 1024, f"threads is {self.threads}, expected 1 to 1024")
        _require(all(0.0 <= a <= 1.0 for a in self.accuracy.values()), "accuracy must be 0 to 1")

    @property
    def key(self) -> tuple[str, str, int]:
        """(name, backend, threads): what tells points apart."""
        return self.name, self.backend, self.threads


@dataclass(frozen=True)
class SustainedSample:
    """One short stretch of the sustained run."""

    at_s: float
    """Middle of the stretch, since the sustained run began."""
    runs: int
    p50_ms: float
    p99_ms: float
    temperature_c: float | None = None
    frequency_mhz: float | None = None
    foreign_load: float | None = None
    throttled: bool | None = None
    power_w: float | None = None


@dataclass(frozen=True)
class Sustained:
    """One point without pause for a long time."""

    point: str
    backend: str
    threads: int
    wanted_s: float
    """How long it should have run; the samples say how long it did."""
    samples: tuple[SustainedSample, ...]
    verdict: Verdict
    """"stable" when the last tenth is as fast as the first."""

    def __post_init__(self) -> None:
        times = [sample.at_s for sample in self.samples]
        _require(times == sorted(times), "sustained samples do not follow one another: the clock went backwards")


@dataclass(frozen=True)
class Method:
    """How it was measured."""

    seed: int
    """Of the order of blocks."""
    rounds: int
    """Blocks of each point; an interrupted profile has fewer of some."""
    block_runs: int
    """Runs of one block, after its warm-up."""
    period_ms: float
    """A run starts this long after the one before, as frames of a camera do; 0 is back to back."""
    thread_pool: str
    """"one for the process" or "one per point"."""
    other_data_bytes: int
    """Bytes that pass through the caches between two runs, as they do between two frames."""
    waited_to_cool_s: float = 0.0
    """Spent in the cool-down gate."""


@dataclass(frozen=True)
class ProfileResult:
    """One profile of one bundle on one device."""

    schema_version: int
    format: str
    created: str
    """UTC, ISO 8601: when it was finished."""
    duration_s: float
    mode: str
    complete: bool
    """False when it was interrupted; what is here was measured in full."""
    command: str
    bundle: BundleFacts
    environment: Environment
    method: Method
    verdict: Verdict
    """Over all points."""
    points: tuple[PointProfile, ...]
    sustained: tuple[Sustained, ...] = ()
    idle_power_w: float | None = None
    """Power before the first run, where a sensor knows it."""
    notes: tuple[str, ...] = ()
    """Sentences about what could not be measured, or what the reader should know."""

    def __post_init__(self) -> None:
        _require(self.format == FORMAT, f"format is {self.format!r}, expected {FORMAT!r}")
        _require(self.mode in MODES, f"mode is {self.mode!r}, expected one of {', '.join(MODES)}")
        _require(bool(self.points), "points is empty, expected at least one")
        keys = [point.key for point in self.points]
        _require(len(set(keys)) == len(keys), "two points have the same name, backend and threads")
