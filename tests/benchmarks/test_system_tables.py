"""The tables of the zoo's page: each cell, a missing training, and the linear classifier on pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks.pixel_probe import best_on_select, fit
from benchmarks.system_bundles import ATTEMPTS, first_that_builds
from benchmarks.system_list import PLAIN_TRANSFORMER, RESFORMER, SYSTEMS
from benchmarks.system_page import SIDES, resolution_lines, small_lines, system_lines
from zoo.models import MODELS
from zoo.recipe import Recipe

ROOT = Path(__file__).resolve().parent.parent.parent


def trained(test: float, resolutions: tuple[int, ...] = (64, 48)) -> dict[str, Any]:
    points = [
        {"width": 1.0, "resolution": r, "madds": r * 1e5, "select_accuracy": 0.5, "test_accuracy": test}
        for r in resolutions
    ]
    return {
        "model": "net", "options": {"width_mult": 0.25}, "method": "single", "epochs": 9, "seed": 0,
        "parameters": 590_000, "points": points,
    }  # fmt: skip


@pytest.fixture
def values() -> dict[str, Any]:
    checks = {
        "w1.00-r064-fp32": {"max_relative_error": 2e-6, "accuracy": {"test": 0.55}},
        "w1.00-r048-fp32": {"max_relative_error": 4e-6, "accuracy": {"test": 0.5}},
        "w1.00-r064-int8": {"max_relative_error": 0.1, "accuracy": {"test": 0.541}},
    }
    bundle = {
        "checks": checks, "points": list(checks), "refused": {"executorch, fp32": "XNNPACK takes too little"},
        "notes": ["w1.00-r048-int8 is left out: it loses 4.00% on select", "all is well"],
        "self_test": {name: {"error": 0.0, "fault": None} for name in checks},
        "played": {"onnxruntime": {"frames": 60}},
    }  # fmt: skip
    return {
        "environment": {"cpu": "a CPU", "date": "2026-11-24T00:00:00Z", "commit": "abc"},
        "probe": {"test": 0.3, "side": 16},
        "trained": {
            "system-res2net-20": trained(0.55), "system-sda-20": trained(0.45), RESFORMER: trained(0.4, (48, 32)),
            PLAIN_TRANSFORMER: trained(0.4, (48, 32)),
        },
        "latency_ms": {"system-res2net-20": {"ORT fp32": 1.234}},
        "bundles": {"system-res2net-20": bundle},
        "resolutions": {
            RESFORMER: {str(side): 0.40 for side in SIDES},
            PLAIN_TRANSFORMER: {str(side): 0.44 if side in (48, 32) else 0.30 for side in SIDES},
        },
    }  # fmt: skip


def row(lines: list[str], start: str) -> list[str]:
    return [cell.strip() for cell in next(line for line in lines if line.startswith(start)).strip("|").split("|")]


def test_a_row_has_size_accuracy_latency_parity_and_what_plays(values: dict[str, Any]) -> None:
    lines = small_lines(values)
    assert row(lines, "| Res2Net") == [
        "Res2Net", "`net`, width_mult 0.25", "0.59", "6.4", "64", "9", "50.0", "55.0", "+25.0", "1.23", "-", "-", "-",
        "54.1 / -", "4e-06 / -", "ORT",
    ]  # fmt: skip
    assert {line.count("|") for line in lines if line.startswith("|")} == {17}


def test_latencies_of_several_machines_are_told_apart(values: dict[str, Any]) -> None:
    values["machines"] = {"system-res2net-20": "a CPU, 2026-11-24"}
    assert not any("one machine only" in line for line in small_lines(values))
    values["machines"]["system-sda-20"] = "another, 2026-11-25"
    (note,) = (line for line in small_lines(values) if "one machine only" in line)
    assert "a CPU, 2026-11-24: `system-res2net-20`; another, 2026-11-25: `system-sda-20`." in note


def test_a_system_below_the_margin_and_one_without_training_are_said(values: dict[str, Any]) -> None:
    lines = small_lines(values)
    assert "+15.0 (short)" in row(lines, "| SDA-xNet")
    assert row(lines, "| HorNet")[1] == "`system-hornet-20` is not trained"


def test_refusals_and_points_that_int8_lost_stand_below_the_table(values: dict[str, Any]) -> None:
    text = "\n".join(small_lines(values))
    assert "- `system-res2net-20`, refused: executorch, fp32: XNNPACK takes too little" in text
    assert "w1.00-r048-int8 is left out: it loses 4.00% on select" in text
    assert "all is well" not in text


def test_unseen_resolutions_are_averaged_without_the_trained_ones(values: dict[str, Any]) -> None:
    lines = resolution_lines(values)
    assert row(lines, "| ResFormer")[-1] == "40.0"
    assert row(lines, "| the same network")[-1] == "30.0"
    assert "48 (trained)" in lines[0]
    assert "Not measured" in resolution_lines({**values, "resolutions": {}})[0]


def test_the_table_of_systems_names_what_the_bundle_holds_and_the_result(values: dict[str, Any]) -> None:
    lines = system_lines(values)
    assert row(lines, "| Res2Net")[-2:] == ["ORT fp32, ORT int8", "55.0 %"]
    assert row(lines, "| HorNet")[-2:] == ["ONNX (tests)", "-"]


def test_every_listed_variant_file_and_recipe_exists() -> None:
    for system in SYSTEMS:
        assert set(system.variants) <= set(MODELS)
        assert all((ROOT / "zoo" / file).is_file() for file in system.files)
        if system.recipe is not None:
            Recipe.from_file(ROOT / "zoo" / "recipes" / f"{system.recipe}.toml")
    listed = {name for system in SYSTEMS for name in system.variants}
    ours = {name for name, made in MODELS.items() if getattr(made, "func", made).__module__.startswith("zoo.")}
    assert listed == ours  # other tests add a network of their own to the table


def test_the_plain_transformer_differs_from_resformer_by_its_method_alone() -> None:
    plain, ours = (Recipe.from_file(ROOT / "zoo" / "recipes" / f"{n}.toml") for n in (PLAIN_TRANSFORMER, RESFORMER))
    differing = {k for k, v in ours.to_dict().items() if plain.to_dict()[k] != v}
    assert differing == {"method"}


def test_a_build_falls_back_until_something_can_be_built_and_keeps_the_reasons() -> None:
    def build(engines: tuple[str, ...], precisions: tuple[str, ...]) -> str:
        if "executorch" in engines:
            raise ValueError("no engine")
        return f"{engines} {precisions}"

    built, refused = first_that_builds(build, ValueError)
    assert built == "('onnxruntime',) ('fp32', 'int8')"
    assert refused == {
        "onnxruntime and executorch, fp32 and int8": "no engine", "onnxruntime and executorch, fp32": "no engine",
    }  # fmt: skip
    nothing, refused = first_that_builds(lambda engines, precisions: build(("executorch",), ()), ValueError)
    assert nothing is None
    assert len(refused) == len(ATTEMPTS)


def test_the_probe_separates_what_a_line_can_and_is_chosen_on_select() -> None:
    draw = np.random.default_rng(0)
    labels = np.arange(90) % 3
    pixels = draw.normal(size=(90, 6)).astype(np.float32)
    pixels[np.arange(90), labels] += 6.0
    weight, bias = fit(torch.from_numpy(pixels), torch.from_numpy(labels), 3, 0.01)
    assert ((torch.from_numpy(pixels) @ weight + bias).argmax(1).numpy() == labels).all()
    stronger, _ = fit(torch.from_numpy(pixels), torch.from_numpy(labels), 3, 1.0)
    assert float(stronger.norm()) < float(weight.norm())
    rows = [{"select": 0.2, "test": 0.9}, {"select": 0.3, "test": 0.1}]
    assert best_on_select(rows) == rows[1]
