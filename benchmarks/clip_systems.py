"""The zoo's networks for clips on the whole road: trained by recipe, made into a bundle, verified, and played.

    python -m zoo train --recipe zoo/recipes/clips-x3d-moves.toml --data imagenet20-64.zip --out runs/clips-x3d-moves
    python -m benchmarks.clip_systems --data imagenet20-64.zip [NAME ...]

Reads runs/<recipe>/model.pt of each small version, writes runs/<recipe>.bundle, the results, which keep the entries of
systems that are not named, and the table of docs/zoo-video-and-dense.md. What a bundle cannot have is left out, and
the reason is kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np

from benchmarks.page_block import fill
from benchmarks.record import RESULTS, save

if TYPE_CHECKING:
    from zoo.checkpoint import Checkpoint

PAGE = RESULTS.parent.parent / "docs" / "zoo-video-and-dense.md"
SYSTEMS = {
    "stm": "STM", "slowfast": "SlowFast", "ean": "EAN", "slow": "Slow", "x3d": "X3D", "s3d": "S3D", "mvit": "MViT",
}  # fmt: skip
"""Name in the recipe -> title."""
KINDS = {"ORT fp32": "-fp32", "ORT int8": "-int8", "ET fp32": "-fp32-et", "ET int8": "-int8-et"}
"""Engine (onnxruntime, ExecuTorch) and precision -> how the names of its points end."""
HEAD = (
    "| system | small version | clip | parameters, M | M multiply-adds | test | frames in random order "
    "| " + " | ".join(f"{kind}, ms" for kind in KINDS) + " | parity, ORT / ET | plays on |"
)
SEED = 3


def recipe_name(name: str) -> str:
    """Of the small version of a system."""
    return f"clips-{name}-moves"


def shuffled_accuracy(checkpoint: Checkpoint, data: Path) -> float:
    """Accuracy on the test clips, 0-1, at the dearest point, each clip's frames in an order of its own."""
    import torch

    from zoo.calibrate import to_tensor
    from zoo.pictures import evaluation_batch
    from zoo.recipe import Recipe
    from zoo.slim_net import materialise
    from zoo.sources import open_source, recipe_splits

    recipe = Recipe.from_dict(checkpoint.recipe)
    source, size = open_source(recipe, data), recipe.largest_size()
    test = recipe_splits(recipe, source)["test"]
    plain = materialise(checkpoint.build(), width=max(recipe.widths), resolution=size)
    draw, right = np.random.default_rng(SEED), 0
    with torch.no_grad():
        for at in range(0, len(test), 50):
            clips = shuffled(evaluation_batch(source, test.names[at : at + 50], size), draw)
            answers = plain(to_tensor(clips, recipe.mean, recipe.std)).argmax(1).numpy()
            right += int((answers == test.labels[at : at + 50]).sum())
    return right / len(test)


def shuffled(clips: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Clips (N, T, H, W, 3), the frames of each in an order of its own."""
    return np.stack([clip[draw.permutation(len(clip))] for clip in clips])


def trained_facts(checkpoint: Checkpoint, data: Path) -> dict[str, Any]:
    """What the trained network is and reaches at its dearest point."""
    recipe, row = checkpoint.recipe, checkpoint.accuracy[0]
    return {
        "model": recipe["model"], "options": recipe["model_options"], "widths": list(recipe["widths"]),
        "clip": [row["frames"], row["resolution"]], "madds": row["madds"], "training_clips": recipe["train_pictures"],
        "parameters": sum(p.numel() for p in checkpoint.build().parameters()), "select": row["select_accuracy"],
        "test": row["test_accuracy"], "shuffled": shuffled_accuracy(checkpoint, data),
    }  # fmt: skip


def bundle_facts(path: Path) -> dict[str, Any]:
    """Milliseconds of the dearest point of each kind, on one thread of the building machine."""
    from edge_runtime.bundle import Bundle

    manifest = Bundle.load(path).manifest
    latency_ms = {}
    for kind, ending in KINDS.items():
        points = [p for p in manifest.points if p.name.endswith(ending)]
        if points:
            latency_ms[kind] = max(points, key=lambda p: p.madds).latency_ms
    return {"latency_ms": latency_ms}


def line(title: str, row: dict[str, Any]) -> str:
    """One system of the table."""
    trained, bundle = row["trained"], row["bundle"]
    options = ", ".join(f"{key} {_text(value)}" for key, value in trained["options"].items())
    frames, side = trained["clip"]
    cells = [
        title, options, f"{frames}x{side}x{side}", f"{trained['parameters'] / 1e6:.2f}",
        f"{trained['madds'] / 1e6:.0f}", f"{trained['test']:.1%}", f"{trained['shuffled']:.1%}",
    ]  # fmt: skip
    cells += [f"{ms:.1f}" if (ms := bundle["latency_ms"].get(kind)) else "-" for kind in KINDS]
    errors = [
        max(
            (c["max_relative_error"] for name, c in bundle["checks"].items() if name.endswith(KINDS[kind])),
            default=None,
        )
        for kind in ("ORT fp32", "ET fp32")
    ]
    cells.append(" / ".join("-" if error is None else f"{error:.0e}" for error in errors))
    cells.append(", ".join(engine for engine, found in bundle["played"].items() if found["frames"]) or "-")
    return f"| {' | '.join(cells)} |"


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)


@click.command()
@click.argument("names", nargs=-1)
@click.option("--data", required=True, type=click.Path(exists=True, path_type=Path), help="As for training.")
@click.option("--runs", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
def main(names: tuple[str, ...], data: Path, runs: Path) -> None:
    """NAME: stm, slowfast, ean, slow, x3d, s3d or mvit; all that are trained where none is named."""
    import torch

    from benchmarks.system_bundles import MAX_DROP, build_bundle, check
    from zoo.checkpoint import load_checkpoint
    from zoo.recipe import Recipe
    from zoo.sources import open_source

    torch.set_num_threads(1)
    path = RESULTS / "clip_systems.json"
    found = json.loads(path.read_text(encoding="utf-8"))["systems"] if path.exists() else {}
    for name in names or SYSTEMS:
        if name not in SYSTEMS:
            raise click.BadParameter(f"{name} is none of {', '.join(SYSTEMS)}")
        trained = runs / recipe_name(name) / "model.pt"
        if not trained.exists():
            click.echo(f"{name}: not trained; run: python -m zoo train --recipe zoo/recipes/{recipe_name(name)}.toml")
            continue
        checkpoint, target = load_checkpoint(trained), runs / f"{recipe_name(name)}.bundle"
        built = build_bundle(trained, open_source(Recipe.from_dict(checkpoint.recipe), data), target)
        facts = {**check(target), **bundle_facts(target)} if built["checks"] else {"latency_ms": {}, "played": {}}
        found[name] = {"trained": trained_facts(checkpoint, data), "bundle": built | facts}
        click.echo(line(SYSTEMS[name], found[name]))
        save("clip_systems", {"max_drop": MAX_DROP, "systems": found})
    rows = [line(title, found[name]) for name, title in SYSTEMS.items() if name in found]
    fill(PAGE, "clips", [HEAD, "|---" * HEAD.count(" | ") + "|---|", *rows])


if __name__ == "__main__":
    main()
