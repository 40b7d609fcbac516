"""Glance and Focus against the same backbone without looking, on cluttered scenes.

    make train-focus
    python -m converters focus --checkpoint runs/gfnet-lite0-scenes-20-more/model.pt --data PICTURES \\
        --precision fp32 --precision int8 --out runs/focus.bundle
    python -m benchmarks.glance_focus runs/focus.bundle --checkpoint runs/gfnet-lite0-scenes-20-more/model.pt \\
        --static runs/lite0-scenes-20-more/model.pt --data PICTURES

Accuracy is on the test split's scenes. Latency is of one picture in onnxruntime on one thread, resizing included, in
turn over all points. Fills the tables of docs/glance-and-focus.md; those of a network that was trained on pictures as
they are have a place of their own there. Deadlines under load: benchmarks.glance_focus_deadline.
"""

from __future__ import annotations

import math
import statistics
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.glance_focus_tables import PAGE, fill, render
from benchmarks.record import percentiles, save
from converters.glance_focus_scores import HELD_OUT_SCENES

WARM_UP, TIMED = 10, 300
BUDGETS, TEST_SCENES = 10, 4


def scenes_of(checkpoint: Any, data: str, split: str = "test") -> tuple[np.ndarray, np.ndarray, Any, Any]:
    """Scenes (N, S, S, 3) uint8, labels, the network and its views."""
    from zoo.gfnet_checkpoint import build_gfnet
    from zoo.gfnet_views import Views
    from zoo.pictures import PictureSource

    model, recipe = build_gfnet(checkpoint)
    source = PictureSource(data)
    splits = source.splits(recipe.calib_pictures, recipe.select_pictures)
    views = Views(recipe, source, splits["train"].names)
    return views.evaluation(splits[split].names), splits[split].labels, model, (views, splits)


def planned_against_realised(
    bundle: Any, scenes: np.ndarray, labels: np.ndarray, cost: list[int]
) -> list[dict[str, Any]]:
    """Each point through the runtime's runner: planned and realised multiply-adds, looks, accuracy, latency.

    Args:
        cost: multiply-adds up to each look.
    """
    from edge_runtime.backends import BackendOptions, open_backend
    from edge_runtime.preprocess import preprocess

    backend = open_backend("onnxruntime", bundle, BackendOptions(threads=1))
    points = bundle.points_for("onnxruntime")
    runners = {p.name: backend.load(p) for p in points}
    found: dict[str, dict[str, list[float]]] = {p.name: {"ms": [], "looks": [], "right": []} for p in points}
    for scene, label in zip(scenes, labels, strict=True):
        for name, runner in runners.items():
            preprocess(scene, bundle.spec, scene.shape[:2], out=runner.input)
            started = time.perf_counter()
            logits = runner.run()
            found[name]["ms"].append((time.perf_counter() - started) * 1000.0)
            found[name]["looks"].append(runner.last.looks)
            found[name]["right"].append(float(logits[0].argmax() == label))
    rows = []
    for point in points:
        values = found[point.name]
        realised = statistics.fmean(cost[int(looks) - 1] for looks in values["looks"])
        rows.append({
            "point": point.name, "planned_madds": point.madds, "realised_madds": round(realised),
            "cost_error": realised / point.madds - 1.0, "looks": statistics.fmean(values["looks"]),
            "test_accuracy": statistics.fmean(values["right"]), "mean_ms": statistics.fmean(values["ms"]),
            "p99_ms": percentiles(values["ms"])["p99"],
        })  # fmt: skip
    backend.close()
    return rows


def budget_plans(
    model: Any, views: Any, splits: Any, cost: list[int], held_out_scenes: int, test_scenes: int, count: int = BUDGETS
) -> dict[str, Any]:
    """Thresholds for so many budgets, solved on calib and select, played on test: planned and realised cost.

    Args:
        cost: multiply-adds up to each look.
        held_out_scenes: of each picture to solve on, as the converter does.
        test_scenes: of each picture to play on.
    """
    from converters.glance_focus_exits import join_scenes
    from zoo.focus_exits import Answers, fit_temperatures, plan_budgets

    held = [name for name in ("calib", "select") if len(splits[name])]
    logits, labels = join_scenes([_scene_scores(model, views, splits[name], held_out_scenes) for name in held])
    temperatures = fit_temperatures(logits, labels)
    plans = plan_budgets(Answers.from_logits(logits, labels, temperatures), cost, count)
    scores, right = _scene_scores(model, views, splits["test"], test_scenes)
    test = Answers.from_logits(*join_scenes([(scores, right)]), temperatures)
    return {
        "held_out_pictures": sum(len(splits[name]) for name in held),
        "held_out_scenes": len(views.variants(held_out_scenes)),
        "test_pictures": len(right),
        "test_scenes": scores.shape[1],
        "plans": [realised_plan(test, cost, plan, scores.shape[1]) for plan in plans],
    }


def _scene_scores(model: Any, views: Any, split: Any, scenes: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores (looks, scenes of each picture, pictures, classes) and labels (pictures,)."""
    from zoo.gfnet_evaluate import look_logits

    found = [look_logits(model, views, split, variant=variant) for variant in views.variants(scenes)]
    return np.stack([scores.numpy() for scores, _ in found], 1), found[0][1].numpy()


def realised_plan(test: Any, cost: list[int], plan: Any, scenes: int) -> dict[str, Any]:
    """What a plan costs on test.

    Args:
        test: answers to so many scenes of each picture, first scenes first. Scenes of one picture are much alike, so
            the standard error is over pictures.
    """
    from zoo.focus_exits import play, stops

    realised = play(test, cost, plan.thresholds)
    of_pictures = np.array(cost, np.float64)[stops(test, plan.thresholds)].reshape(scenes, -1).mean(0)
    return {
        "planned_madds": round(plan.cost), "realised_madds": round(realised.cost),
        "standard_error_madds": float(of_pictures.std(ddof=1) / math.sqrt(len(of_pictures))),
        "cost_error": realised.cost / plan.cost - 1.0, "planned_accuracy": plan.accuracy,
        "test_accuracy": realised.accuracy, "looks": realised.looks,
    }  # fmt: skip


def static_points(path: Path, scenes: np.ndarray) -> list[dict[str, Any]]:
    """Each (width, resolution) of the baseline: accuracy on the same scenes, latency from the full scene on."""
    import onnxruntime
    import torch

    from converters.onnx_export import export_onnx
    from edge_runtime.early_exit import shrink
    from zoo import materialise
    from zoo.checkpoint import load_checkpoint

    checkpoint = load_checkpoint(path)
    model = checkpoint.build()
    sessions = []
    for row in checkpoint.accuracy:
        plain = materialise(model, width=row["width"], resolution=row["resolution"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        side = row["resolution"]
        for name in ("height", "width"):
            options.add_free_dimension_override_by_name(name, side)
        content = export_onnx(plain, side).SerializeToString()
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        sessions.append((session, np.zeros((1, 3, side, side), np.float32), []))
    torch.set_num_threads(1)
    for turn, scene in enumerate(scenes[: WARM_UP + TIMED]):
        picture = np.ascontiguousarray(scene.transpose(2, 0, 1)[None], np.float32)
        for session, small, samples in sessions:
            started = time.perf_counter()
            if small.shape == picture.shape:
                small[:] = picture
            else:
                shrink(picture, small)
            session.run(None, {"image": small})
            if turn >= WARM_UP:
                samples.append((time.perf_counter() - started) * 1000.0)
    return [
        {"point": f"w{row['width']:.2f}-r{row['resolution']:03d}", "width": row["width"], "madds": row["madds"],
         "test_accuracy": row["test_accuracy"], "mean_ms": statistics.fmean(samples)}
        for row, (_, _, samples) in zip(checkpoint.accuracy, sessions, strict=True)
    ]  # fmt: skip


def speed_ups(focus: list[dict[str, Any]], static: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each static point: the fastest focus point that is at least as accurate, and how many times faster it is."""
    rows = []
    for row in static:
        # the static points are float: int8 would win by itself
        able = [
            f for f in focus if f["test_accuracy"] >= row["test_accuracy"] and not f["point"].endswith("-int8")
        ]  # fmt: skip
        best = min(able, key=lambda f: f["mean_ms"], default=None)
        rows.append({
            "static": row["point"], "focus": None if best is None else best["point"],
            "times_faster": None if best is None else row["mean_ms"] / best["mean_ms"],
        })  # fmt: skip
    return rows


def controls(model: Any, views: Any, split: Any) -> list[dict[str, Any]]:
    """Accuracy of the learned patches and of the controls at equal cost, with exact paired tests."""
    from zoo.gfnet_evaluate import CONTROLS, look_logits

    right = {}
    for kind in CONTROLS:
        logits, labels = look_logits(model, views, split, kind)
        right[kind] = (logits.argmax(2) == labels).numpy()
    rows = []
    for look in range(1, model.design.steps):
        for kind in CONTROLS:
            only_policy = int((right["policy"][look] & ~right[kind][look]).sum())
            only_other = int((right[kind][look] & ~right["policy"][look]).sum())
            rows.append({
                "look": look + 1, "patches": kind, "test_accuracy": float(right[kind][look].mean()),
                "policy_alone_right": only_policy, "control_alone_right": only_other,
                "p_value": None if kind == "policy" else sign_test(only_policy, only_other),
            })  # fmt: skip
    return rows


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact binomial test of paired outcomes (McNemar): how often a fair coin is at least so uneven."""
    count, low = wins + losses, min(wins, losses)
    tail = math.fsum(math.exp(_log_choose(count, k) - count * math.log(2.0)) for k in range(low + 1))
    return min(1.0, 2.0 * tail)


def _log_choose(count: int, k: int) -> float:
    return math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)


@click.command()
@click.argument("bundle_path", type=click.Path(exists=True))
@click.option("--checkpoint", type=click.Path(path_type=Path), required=True, help="model.pt of python -m zoo focus.")
@click.option("--static", type=click.Path(path_type=Path), help="model.pt of python -m zoo scenes; none: no table.")
@click.option("--data", type=click.Path(), required=True, help="The pictures.")
@click.option(
    "--held-out-scenes", type=click.IntRange(1), default=HELD_OUT_SCENES, show_default=True,
    help="Scenes of each held-out picture that the ten budgets are solved on, as converters focus does.",
)  # fmt: skip
@click.option(
    "--test-scenes", type=click.IntRange(1), default=TEST_SCENES, show_default=True,
    help="Scenes of each test picture that they are played on.",
)  # fmt: skip
@click.option("--write/--no-write", default=True, help="Fill the docs page and keep the result.")
def main(
    bundle_path: str, checkpoint: Path, static: Path | None, data: str, held_out_scenes: int, test_scenes: int,
    write: bool,
) -> None:  # fmt: skip
    """Measure and fill the tables of docs/glance-and-focus.md."""
    import torch

    from edge_runtime.bundle import Bundle
    from zoo.checkpoint import load_checkpoint
    from zoo.gfnet import step_madds

    torch.set_num_threads(1)
    bundle = Bundle.load(bundle_path)
    scenes, labels, model, (views, splits) = scenes_of(load_checkpoint(checkpoint), data)
    plain = views.spec is None
    cost = step_madds(model.design, len(bundle.manifest.labels))
    values: dict[str, Any] = {"focus": planned_against_realised(bundle, scenes, labels, cost)}
    values["static"] = [] if static is None else static_points(static, scenes)
    values["speed_ups"] = speed_ups(values["focus"], values["static"])
    values["budgets"] = budget_plans(model, views, splits, cost, held_out_scenes, test_scenes)
    values["controls"] = controls(model, views, splits["test"])
    tables = {("pictures-" if plain else "") + marker: table for marker, table in render(values).items()}
    for marker, table in tables.items():
        click.echo(f"{marker}\n{table}\n")
    if write:
        save("glance_focus_pictures" if plain else "glance_focus", values)
        PAGE.write_text(fill(PAGE.read_text(encoding="utf-8"), tables), encoding="utf-8")


if __name__ == "__main__":
    main()
