"""How often ONNX Runtime and ExecuTorch give the same best class: the agreement table of docs/bundle.md.

    python -m converters build --checkpoint runs/default-20/model.pt --data imagenet20-64.zip \\
        --out runs/both.bundle --backend onnxruntime,executorch --precision fp32,int8 --threads 1
    python -m benchmarks.engine_agreement runs/both.bundle --data imagenet20-64.zip

Both engines run over the whole test split through the runtime's own preprocessing, one thread. Points belong together
by name: w0.50-r064-int8 and w0.50-r064-int8-et. `--other` takes ExecuTorch's points from a second bundle.
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.page_block import PAGE, fill
from benchmarks.record import environment, save

SUFFIX = "-et"
EXPECTED = 0.995


@dataclass(frozen=True)
class Agreement:
    """One point in both engines."""

    point: str
    agreement: float
    """Share of pictures with the same best class."""
    onnxruntime_accuracy: float
    executorch_accuracy: float


def pairs_of(first: Any, second: Any) -> list[tuple[str, str]]:
    """Names of the points that both bundles have, ONNX Runtime's in the first and ExecuTorch's in the second.

    Raises:
        click.ClickException: there are none.
    """
    theirs = {p.name for p in second.points_for("executorch")}
    pairs = [(p.name, p.name + SUFFIX) for p in first.points_for("onnxruntime") if p.name + SUFFIX in theirs]
    if not pairs:
        raise click.ClickException(
            "no point is there for both engines; build with --backend onnxruntime,executorch, or name a second bundle "
            "of the same checkpoint with --other"
        )
    return pairs


def compare_logits(point: str, onnx: np.ndarray, pte: np.ndarray, labels: np.ndarray) -> Agreement:
    """Figures of one point; logits (pictures, classes), labels (pictures,)."""
    first, second = onnx.argmax(1), pte.argmax(1)
    shares = [float(np.mean(a == b)) for a, b in ((first, second), (first, labels), (second, labels))]
    return Agreement(point, *shares)


def summary(rows: list[Agreement]) -> dict[str, dict[str, float]]:
    """Precision -> points, worst and mean agreement, and how many points reach what is expected."""
    found: dict[str, dict[str, float]] = {}
    for precision in ("fp32", "int8"):
        shares = [row.agreement for row in rows if row.point.endswith(precision)]
        if shares:
            found[precision] = {
                "points": len(shares), "worst": min(shares), "mean": statistics.mean(shares),
                "enough": sum(s >= EXPECTED for s in shares),
            }  # fmt: skip
    return found


def render(rows: list[Agreement], source: str) -> list[str]:
    """Lines of the table, with the worst of each precision below."""
    lines = ["| point | agreement | onnxruntime | ExecuTorch |", "|---|---|---|---|"]
    for row in rows:
        cells = [f"{100 * v:.1f} %" for v in (row.agreement, row.onnxruntime_accuracy, row.executorch_accuracy)]
        lines.append(f"| {row.point} | {' | '.join(cells)} |")
    for precision, found in summary(rows).items():
        lines += [
            "",
            f"{precision}: {found['enough']} of {found['points']} points agree on at least {EXPECTED:.1%}, worst "
            f"{found['worst']:.1%}, mean {found['mean']:.2%}.",
        ]
    return [*lines, "", source]


def measure(first: Any, second: Any, pictures: list[np.ndarray], labels: np.ndarray) -> list[Agreement]:
    """Every pair of points; pictures (H, W, 3) uint8 RGB."""
    from converters.verification import engine_logits
    from edge_runtime.backends import BackendOptions, open_backend

    onnx = open_backend("onnxruntime", first, BackendOptions(threads=1))
    pte = open_backend("executorch", second, BackendOptions(threads=1))
    rows = []
    for ours, theirs in pairs_of(first, second):
        found = [
            engine_logits(backend, bundle, bundle.point(name), pictures)
            for backend, bundle, name in ((onnx, first, ours), (pte, second, theirs))
        ]
        rows.append(compare_logits(ours, *found, labels))
        print(rows[-1], flush=True)
    onnx.close()
    pte.close()
    return rows


@click.command()
@click.argument("path", type=click.Path(path_type=Path, exists=True))
@click.option("--data", type=click.Path(path_type=Path, exists=True), required=True, help="Folder or zip with test/.")
@click.option("--other", type=click.Path(path_type=Path, exists=True), help="Bundle with ExecuTorch's points.")
def main(path: Path, data: Path, other: Path | None) -> None:
    """Measure, write benchmarks/results/engine_agreement.json and the table of docs/bundle.md."""
    from edge_runtime import Bundle
    from zoo.pictures import PictureSource

    first = Bundle.load(path)
    second = first if other is None else Bundle.load(other)
    source = PictureSource(str(data))
    test = source.splits(0, 0)["test"]
    rows = measure(first, second, [source.picture(n) for n in test.names], test.labels)
    facts = environment()
    where = f"{path.name}, {len(test)} test pictures; {facts['cpu']}, {facts['date'][:10]}: `{facts['command']}`"
    fill(PAGE, "agreement", render(rows, where))
    save("engine_agreement", {
        "bundle": path.name, "other": None if other is None else other.name, "pictures": len(test), "threads": 1,
        "expected": EXPECTED, "summary": summary(rows), "points": [asdict(row) for row in rows],
        "notes": list(second.manifest.notes),
    })  # fmt: skip


if __name__ == "__main__":
    main()
