"""Check a bundle on the device itself: hashes, the self-test's vectors through each engine, latency sanity."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from edge_runtime.backends import BackendOptions, Runner, open_backend
from edge_runtime.bundle import Bundle
from edge_runtime.errors import BackendError, BundleError
from edge_runtime.manifest import OperatingPoint
from edge_runtime.preprocess import preprocess

TIMED_RUNS = 5
SLOW_FACTOR = 20.0  # times the building machine's latency: a wrong engine build rather than a slow device


@dataclass(frozen=True)
class PointVerdict:
    """How one point does on this device."""

    point: str
    backend: str
    error: float | None
    """Largest difference of a logit, as a share of the largest logit, or of a detector's box, as a share of the largest
    coordinate, whichever is more; None without vectors."""
    latency_ms: float
    """Median of a few runs."""
    fault: str | None
    """What is wrong, or None."""

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def verify_bundle(bundle: Bundle, threads: int = 1, backends: tuple[str, ...] | None = None) -> list[PointVerdict]:
    """Run every point's self-test.

    Args:
        bundle: loaded with verification, so its hashes hold.
        threads: for the engine.
        backends: which to use; None takes those that the bundle has programs for.
    Raises:
        BackendError: an engine is not installed.
        BundleError: the bundle has no program for a backend, or its vectors do not fit its points.
    """
    names = backends or tuple(dict.fromkeys(p.backend for p in bundle.manifest.programs))
    verdicts = []
    for name in names:
        backend = open_backend(name, bundle, BackendOptions(threads))
        try:
            verdicts += [_check(bundle, name, backend.load(point), point) for point in bundle.points_for(name)]
        finally:
            backend.close()
    return verdicts


def require_passed(verdicts: list[PointVerdict]) -> None:
    """Raise when a point failed.

    Raises:
        BackendError: naming the first fault and how many there are.
    """
    faults = [v for v in verdicts if v.fault is not None]
    if faults:
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise BackendError(f"point {faults[0].point} on {faults[0].backend}: {faults[0].fault}{more}")


def _check(bundle: Bundle, backend: str, runner: Runner, point: OperatingPoint) -> PointVerdict:
    try:
        error = None if bundle.manifest.vectors is None else _largest_error(bundle, runner, point)
        samples = []
        for _ in range(TIMED_RUNS):
            started = time.perf_counter()
            runner.run()
            samples.append((time.perf_counter() - started) * 1000.0)
    finally:
        runner.close()
    latency_ms = sorted(samples)[TIMED_RUNS // 2]
    return PointVerdict(point.name, backend, error, latency_ms, _fault(bundle, point, error, latency_ms))


def _largest_error(bundle: Bundle, runner: Runner, point: OperatingPoint) -> float:
    pixels = bundle.vectors.get("pixels")
    expected = bundle.vectors.get(f"logits/{point.name}")
    shape = None if pixels is None else (len(pixels), *point.output_shape(len(bundle.manifest.labels))[1:])
    good = pixels is not None and pixels.ndim == 2 + len(point.size) and pixels.shape[1] >= (point.frames or 1)
    if pixels is None or expected is None or not good or expected.shape != shape:
        raise BundleError(
            f"{bundle.root}: the self-test has no vectors for point {point.name!r}; make the bundle again"
        )
    worst = 0.0
    for picture, wanted in zip(pixels, expected, strict=True):
        preprocess(picture, bundle.spec, point.size, out=runner.input)
        found = runner.run()[0]
        # boxes are pixels and logits are not: each is compared with its own kind
        kinds = (slice(None),) if point.anchors is None else (slice(4), slice(4, None))
        worst = max(worst, *(_difference(found[..., kind], wanted[..., kind]) for kind in kinds))
    return worst


def _difference(found: npt.NDArray[np.float32], wanted: npt.NDArray[np.float32]) -> float:
    """The largest, as a share of the largest number wanted."""
    largest = max(float(np.abs(wanted).max()), 1e-6)
    return float(np.nan_to_num(np.abs(found - wanted), nan=np.inf).max()) / largest


def _fault(bundle: Bundle, point: OperatingPoint, error: float | None, latency_ms: float) -> str | None:
    vectors = bundle.manifest.vectors
    if error is not None and vectors is not None and error > vectors.tolerance:
        return (
            f"differs from the bundle's vectors by {error:.1%} of the largest value (allowed {vectors.tolerance:.1%}); "
            "this engine computes something else: do not use the point here"
        )
    if point.latency_ms is not None and latency_ms > SLOW_FACTOR * point.latency_ms:
        return (
            f"takes {latency_ms:.1f} ms, over {SLOW_FACTOR:.0f} times what the building machine took; check the engine"
        )
    return None
