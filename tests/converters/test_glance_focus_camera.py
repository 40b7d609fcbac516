"""The camera application with a small Glance and Focus bundle, from the command line to the video."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from small_training import write_pictures
from test_glance_focus import checkpoint

from converters.glance_focus_build import FocusRequest, build_focus
from edge_runtime.backends import BACKENDS
from edge_runtime.bundle import Bundle
from zoo.pictures import PictureSource

ROOT = Path(__file__).parents[2]
RISING = {"one-look": 0.4, "budget-1": 0.6, "safe": 0.5, "all": 0.8}
"""Made-up accuracies: a network with random weights has no reason to look twice."""


def build(folder: Path, backend: str) -> Path:
    source = PictureSource(write_pictures(folder / "pictures"))
    path = build_focus(FocusRequest(checkpoint(source), source, folder / "tiny.bundle", (backend,), budgets=1))
    manifest = json.loads((path / "manifest.json").read_text("utf-8"))
    for point in manifest["points"]:
        point["accuracy"] = {"select": RISING[point["name"]]}
    (path / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    return path


@pytest.fixture(scope="module", params=["onnxruntime", pytest.param("executorch", marks=pytest.mark.slow)])
def bundle(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A bundle with its engine; ExecuTorch takes a minute to lower."""
    assert request.param in BACKENDS
    return build(tmp_path_factory.mktemp(request.param), request.param), request.param


def camera(*arguments: object) -> subprocess.CompletedProcess[str]:
    """In a process of its own: the application's global thread pool must not reach other tests."""
    fixed = ("--source", "demo", "--show", "no", "--threads", 1, "--query-table", "none")
    words = [sys.executable, "-m", "apps.camera", *(str(a) for a in (*fixed, *arguments))]
    return subprocess.run(words, capture_output=True, text=True, timeout=200, check=False, cwd=ROOT)


def frames(path: Path) -> list[dict[str, object]]:
    return [r for r in map(json.loads, path.read_text("utf-8").splitlines()) if r["event"] == "frame"]


def test_the_camera_runs_it_and_saves_the_picture_with_its_patches(bundle: tuple[Path, str], tmp_path: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    telemetry, video = tmp_path / "t.jsonl", tmp_path / "v.mp4"
    done = camera(
        "--bundle", bundle[0], "--backend", bundle[1], "--pin", "all", "--max-latency-ms", 10_000, "--max-frames", 4,
        "--telemetry", telemetry, "--save", video,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = frames(telemetry)
    assert len(seen) == 4
    assert {f["point"] for f in seen} == {"all"}
    opened = cv2.VideoCapture(str(video))
    assert opened.get(cv2.CAP_PROP_FRAME_COUNT) == 4
    opened.release()


def test_the_controller_chooses_the_exit_by_the_deadline(bundle: tuple[Path, str], tmp_path: Path) -> None:
    scenario, telemetry = tmp_path / "s.toml", tmp_path / "t.jsonl"
    scenario.write_text(
        '[[phase]]\nname = "time"\nstart_s = 0.0\ndeadline_ms = 10000.0\n'
        '[[phase]]\nname = "none"\nstart_s = 2.0\ndeadline_ms = 0.001\n'
    )
    done = camera(
        "--bundle", bundle[0], "--backend", bundle[1], "--scenario", scenario, "--telemetry", telemetry,
        "--max-frames", 80,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    seen = frames(telemetry)
    patient, hasty = seen[:55], seen[-10:]
    assert patient[-1]["point"] == "all"
    assert all(f["on_time"] for f in patient)
    assert hasty[-1]["point"] == "one-look"
    assert not hasty[-1]["feasible"]


def test_the_option_for_video_runs_and_is_told_where_nothing_looks_again(bundle: tuple[Path, str]) -> None:
    same = ("--bundle", bundle[0], "--max-frames", 2, "--look-where-found", "--max-latency-ms", 10_000)
    for backend, told in ((bundle[1], False), ("null", True)):
        done = camera(*same, "--backend", backend)
        assert done.returncode == 0, done.stderr
        assert ("no point looks several times on null; look-where-found changes nothing" in done.stderr) == told


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("gone", "not a bundle folder"),
        ("part", "glance"),
        ("setting", "wants exit"),
    ],
)
def test_a_bundle_that_cannot_run_is_one_sentence(
    bundle: tuple[Path, str], tmp_path: Path, damage: str, message: str
) -> None:
    import shutil

    broken = Path(shutil.copytree(bundle[0], tmp_path / "broken.bundle"))
    if damage == "gone":
        shutil.rmtree(broken)
    elif damage == "part":
        file = next(p.file for p in Bundle.load(broken).manifest.programs if p.name.startswith("glance"))
        (broken / file).write_bytes(b"not a program")
    else:
        manifest = json.loads((broken / "manifest.json").read_text("utf-8"))
        manifest["exits"]["settings"] = manifest["exits"]["settings"][:1]
        (broken / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    done = camera("--bundle", broken, "--backend", bundle[1], "--max-frames", 2)
    assert done.returncode not in (0, 1)
    assert message in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: ")
    assert "Traceback" not in done.stdout + done.stderr
