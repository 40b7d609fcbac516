"""Make a bundle of every trained small system, verify it on both engines, and play the demo clip with it.

    python -m benchmarks.system_bundles --data imagenet20-64.zip [RECIPE ...]

Reads runs/<recipe>/model.pt, writes runs/<recipe>.bundle and benchmarks/results/system_bundles.json, which keeps the
entries of systems that are not named. What cannot be built is left out, and the reason is kept.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from benchmarks.record import RESULTS, save
from benchmarks.system_list import SYSTEMS

# from the most that is wanted to the least that is of use: (engines, precisions)
ATTEMPTS = (
    (("onnxruntime", "executorch"), ("fp32", "int8")),
    (("onnxruntime", "executorch"), ("fp32",)),
    (("onnxruntime",), ("fp32", "int8")),
    (("onnxruntime",), ("fp32",)),
)
MAX_DROP = 0.02
FRAMES = 60


def first_that_builds(
    build: Callable[[tuple[str, ...], tuple[str, ...]], Any], refusal: type[Exception]
) -> tuple[Any, dict[str, str]]:
    """Try less and less.

    Args:
        build: (engines, precisions) -> anything.
        refusal: raised by it where something cannot be.
    Returns:
        what it gave, None if nothing could be built; and what was refused -> why.
    """
    refused: dict[str, str] = {}
    for engines, precisions in ATTEMPTS:
        try:
            return build(engines, precisions), refused
        except refusal as error:
            refused[f"{' and '.join(engines)}, {' and '.join(precisions)}"] = str(error)
    return None, refused


def ends_of(checkpoint: Any) -> Any:
    """The checkpoint as if trained for its largest and smallest size: each more is minutes of lowering."""
    kept = {}
    for key in ("resolutions", "frames"):
        values = checkpoint.recipe.get(key)
        if values:
            kept[key] = sorted({max(values), min(values)}, reverse=True)
    return replace(checkpoint, recipe={**checkpoint.recipe, **kept})


def build_bundle(checkpoint: Path, source: Any, target: Path) -> dict[str, Any]:
    """One bundle; what each point was found to be, and what was left out or refused."""
    from converters.build import BuildRequest, build
    from converters.errors import ConversionError
    from converters.int8_graph import QuantSpec
    from zoo.checkpoint import load_checkpoint

    loaded, started = ends_of(load_checkpoint(checkpoint)), time.monotonic()

    def attempt(engines: tuple[str, ...], precisions: tuple[str, ...]) -> Any:
        request = BuildRequest(
            loaded, source, target, target.stem, precisions, QuantSpec(max_drop=MAX_DROP), overwrite=True,
            backends=engines, min_delegated=0.0,
        )  # fmt: skip
        return build(request, lambda line: print(f"  {line}", flush=True))

    built, refused = first_that_builds(attempt, ConversionError)
    checks = {} if built is None else {c.point: c for c in built[1]}
    return {
        "built_s": round(time.monotonic() - started, 1),
        "refused": refused,
        "checks": {
            name: {"agreement": c.agreement, "max_relative_error": c.max_relative_error, "accuracy": c.accuracy}
            for name, c in checks.items()
        },
    }


def play(bundle: Path, engine: str) -> dict[str, Any]:
    """What `edge-runtime run` says about the first frames of the demo clip."""
    command = [sys.executable, "-m", "edge_runtime", "run", "--source", "demo", "--bundle", str(bundle)]
    command += ["--backend", engine, "--threads", "1", "--max-frames", str(FRAMES)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        return {"frames": 0, "error": found.stderr.strip().splitlines()[-1]}
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    points = sorted({str(line.get("point")) for line in lines if line.get("point")})
    return {"frames": len(lines), "points": points}


def check(bundle_path: Path) -> dict[str, Any]:
    """The bundle's own self-test on every engine that it has, the clip, and its notes."""
    from edge_runtime.bundle import Bundle
    from edge_runtime.self_check import verify_bundle

    bundle = Bundle.load(bundle_path)
    verdicts = verify_bundle(bundle)
    engines = dict.fromkeys(p.backend for p in bundle.manifest.programs)
    return {
        "size_bytes": sum(p.stat().st_size for p in bundle_path.rglob("*") if p.is_file()),
        "points": [p.name for p in bundle.manifest.points],
        "self_test": {v.point: {"error": v.error, "fault": v.fault} for v in verdicts},
        "notes": list(bundle.manifest.notes),
        "played": {engine: play(bundle_path, engine) for engine in engines},
    }


@click.command()
@click.argument("names", nargs=-1)
@click.option("--data", required=True, help="The pictures that the systems were trained on.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
def main(names: tuple[str, ...], data: str, runs: Path) -> None:
    """Build, verify and play."""
    import torch

    from zoo.pictures import PictureSource

    torch.set_num_threads(1)
    listed = [s.recipe for s in SYSTEMS if s.recipe is not None]
    path = RESULTS / "system_bundles.json"
    found = json.loads(path.read_text(encoding="utf-8"))["systems"] if path.exists() else {}
    for name in names or listed:
        if name not in listed:
            raise click.BadParameter(f"{name} is none of {', '.join(listed)}")
        if not (runs / name / "model.pt").exists():
            print(f"{name}: not trained; run: python -m zoo train --recipe zoo/recipes/{name}.toml")
            continue
        print(name)
        target = runs / f"{name}.bundle"
        found[name] = build_bundle(runs / name / "model.pt", PictureSource(data), target)
        if found[name]["checks"]:
            found[name] |= check(target)
        save("system_bundles", {"max_drop": MAX_DROP, "frames": FRAMES, "systems": found})


if __name__ == "__main__":
    main()
