"""Where results are kept, and which one the runtime takes its query table from."""

from __future__ import annotations

import errno
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bundles import everything_under
from fake_engine import tiny_bundle
from profile_results import ENVIRONMENT, blocks_of, point_of, result_of

from edge_runtime import Bundle, Runtime
from edge_runtime.errors import ResultError
from edge_runtime.machine_facts import MachineFacts, read_machine_facts
from edge_runtime.profiling.fingerprint import bundle_facts, engine_version, manifest_sha256, read_environment
from edge_runtime.profiling.query_table import Wanted, find_query_table, misfit
from edge_runtime.profiling.result import ProfileResult, load_result, save_result
from edge_runtime.profiling.store import candidates, data_folder, keep_result, path_beside, result_folder
from edge_runtime.readings import Readings
from edge_runtime.sensor_loop import NoSensors

LATENCY_MS = 7.0


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EDGE_RUNTIME_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return tiny_bundle(tmp_path)


def fitting_result(bundle: Bundle, **changes: Any) -> ProfileResult:
    """A result of this machine for the null backend with 1 thread: every point takes LATENCY_MS."""
    points = [
        point_of(p.name, blocks_of(LATENCY_MS), backend="null", threads=1) for p in bundle.manifest.points
    ]  # fmt: skip
    environment = read_environment("laptop-x86", ["null"], Readings())
    return result_of(points, bundle=bundle_facts(bundle), environment=environment, **changes)


def search(bundle: Bundle, choice: str | Path = "auto", threads: int = 1) -> Any:
    return find_query_table(bundle, "null", threads, [point.name for point in bundle.manifest.points], choice)


def test_a_result_is_kept_in_the_data_folder_and_beside_the_bundle(bundle: Bundle, data: Path) -> None:
    result = fitting_result(bundle)
    written = keep_result(result, bundle.root, None, pytest.fail)
    assert written == [
        data / "profiles" / f"tiny-{manifest_sha256(bundle)[:12]}" / "2026-01-02T03-04-05Z-quick.json",
        path_beside(bundle.root, result.environment),
    ]
    assert written[1].parent == bundle.root.parent
    assert written[1].name.startswith("tiny.")
    assert [load_result(path) for path in written] == [result, result]


def test_out_names_a_folder_or_a_file(bundle: Bundle, tmp_path: Path) -> None:
    result = fitting_result(bundle)
    assert keep_result(result, bundle.root, tmp_path / "o", pytest.fail)[1] == (
        tmp_path / "o" / "tiny-2026-01-02T03-04-05Z-quick.json"
    )
    assert keep_result(result, bundle.root, tmp_path / "a.json", pytest.fail)[1] == tmp_path / "a.json"
    assert not path_beside(bundle.root, result.environment).exists()


def _refuse_under(monkeypatch: pytest.MonkeyPatch, folders: list[Path], number: int) -> None:
    """Writing below these folders fails; root may write to read-only folders, so permissions do not serve."""
    plain = Path.write_text

    def write(self: Path, *arguments: Any, **options: Any) -> int:
        if any(folder in self.parents for folder in folders):
            raise OSError(number, os.strerror(number))
        return plain(self, *arguments, **options)

    monkeypatch.setattr(Path, "write_text", write)


def test_a_read_only_bundle_folder_is_no_matter(bundle: Bundle, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse_under(monkeypatch, [bundle.root.parent / "x", bundle.root.parent], errno.EROFS)
    monkeypatch.setenv("EDGE_RUNTIME_DATA", str(data.parent.parent / f"{data.parent.name}-data"))
    written = keep_result(fitting_result(bundle), bundle.root, None, pytest.fail)
    assert len(written) == 1


def test_a_full_data_folder_is_told_while_the_other_place_still_serves(
    bundle: Bundle, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _refuse_under(monkeypatch, [data], errno.ENOSPC)
    told: list[str] = []
    written = keep_result(fitting_result(bundle), bundle.root, None, told.append)
    assert [path.parent for path in written] == [bundle.root.parent]
    assert len(told) == 1
    assert "No space left on device" in told[0]


def test_nowhere_to_write_is_an_error_that_names_the_way_out(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _refuse_under(monkeypatch, [tmp_path], errno.ENOSPC)
    with pytest.raises(ResultError, match=r"No space left on device; choose another with --out"):
        keep_result(fitting_result(bundle), bundle.root, None, pytest.fail)
    assert not [name for name in everything_under(tmp_path) if name.endswith((".json.part", ".profile.json"))]


def test_without_platformdirs_the_usual_folder_is_taken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("EDGE_RUNTIME_DATA")
    monkeypatch.setitem(sys.modules, "platformdirs", None)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    assert data_folder() == tmp_path / "xdg" / "edge-runtime"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert data_folder() == Path.home() / "Library" / "Application Support" / "edge-runtime"


def test_results_of_this_state_of_the_bundle_are_looked_at_first(bundle: Bundle) -> None:
    sha = manifest_sha256(bundle)
    old = save_result(result_of({"a": 1.0}), result_folder("tiny", sha) / "old.json")
    new = save_result(result_of({"a": 1.0}), result_folder("tiny", sha) / "new.json")
    other = save_result(result_of({"a": 1.0}), result_folder("tiny", "0" * 64) / "other.json")
    save_result(result_of({"a": 1.0}), result_folder("tiny2", sha) / "no.json")
    for age_s, path in ((0, other), (10, new), (20, old)):
        os.utime(path, (1e9 - age_s, 1e9 - age_s))
    assert candidates(bundle.root, "tiny", sha) == [new, old, other]


def test_no_result_is_nothing_to_say(bundle: Bundle) -> None:
    assert search(bundle) == search(bundle, "none")
    assert (search(bundle).table, search(bundle).sentence) == (None, "")


def test_a_fitting_result_gives_the_table_and_is_named(bundle: Bundle) -> None:
    path = keep_result(fitting_result(bundle), bundle.root, None, pytest.fail)[0]
    found = search(bundle)
    assert set(found.table.latency_ms) == {point.name for point in bundle.manifest.points}
    assert set(found.table.latency_ms.values()) == {LATENCY_MS}
    assert found.sentence == f"query table: {path} (quick, 2026-01-02T03:04:05Z, stable)"


def test_none_takes_nothing_though_a_result_fits(bundle: Bundle) -> None:
    keep_result(fitting_result(bundle), bundle.root, None, pytest.fail)
    assert search(bundle, "none").table is None


def test_the_newest_wins_but_a_stable_one_before_an_unstable_one(bundle: Bundle) -> None:
    unstable = replace(fitting_result(bundle).verdict, stable=False, reason="unstable: foreign load 48 %")
    keep_result(fitting_result(bundle, created="2026-01-03T00:00:00Z", verdict=unstable), bundle.root, None, print)
    found = search(bundle)
    assert found.sentence.endswith("(quick, 2026-01-03T00:00:00Z, unstable: foreign load 48 %)")
    for day in ("01", "02"):
        keep_result(fitting_result(bundle, created=f"2026-01-{day}T00:00:00Z"), bundle.root, None, pytest.fail)
    assert "2026-01-02T00:00:00Z, stable" in search(bundle).sentence


def test_points_that_the_result_lacks_are_said_to_be_scaled(bundle: Bundle) -> None:
    result = fitting_result(bundle)
    keep_result(replace(result, points=result.points[:4]), bundle.root, None, pytest.fail)
    assert search(bundle).sentence.endswith("; 2 points are not in it and are scaled")


def test_a_result_for_another_number_of_threads_is_refused_and_told(bundle: Bundle) -> None:
    path = keep_result(fitting_result(bundle), bundle.root, None, pytest.fail)[0]
    found = search(bundle, threads=2)
    assert found.table is None
    assert found.sentence == (
        f"query table {path} not used: it was made with 1 threads, this run has 2; run edge-runtime profile again"
    )
    with pytest.raises(ResultError, match="does not fit this run: it was made with 1 threads"):
        search(bundle, path, threads=2)


def test_a_changed_bundle_does_not_take_the_old_table(bundle: Bundle) -> None:
    keep_result(fitting_result(bundle), bundle.root, None, pytest.fail)
    manifest = bundle.root / "manifest.json"
    manifest.write_text(manifest.read_text() + "\n")
    found = search(Bundle.load(bundle.root))
    assert found.table is None
    assert "it was made for another bundle or another state of this one (tiny)" in found.sentence


def test_a_broken_file_is_passed_over_and_named_when_nothing_else_fits(bundle: Bundle) -> None:
    path = keep_result(fitting_result(bundle), bundle.root, None, pytest.fail)[0]
    path.write_text(path.read_text()[:-100])
    assert search(bundle).table is not None  # the one beside the bundle
    path_beside(bundle.root, fitting_result(bundle).environment).unlink()
    assert search(bundle).sentence.startswith(f"query table not used: {path}: not a whole JSON file")


WANTED = Wanted(
    "ab" * 32, "onnxruntime", "1.30.0", 2, frozenset({"a"}),
    MachineFacts("linux", "x86_64", cpu_model="Test CPU", cores=4), "2026-01-03T00:00:00Z",
)  # fmt: skip
MISFITS: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "another bundle": ({}, {"manifest_sha256": "cd" * 32}, "it was made for another bundle"),
    "another processor": (
        {"environment": replace(ENVIRONMENT, cpu_model="Other CPU")}, {}, "it was made on Other CPU, this is Test CPU",
    ),
    "other cores": ({"environment": replace(ENVIRONMENT, cores=8)}, {}, "it was made with 8 cores, here are 4"),
    "another backend": ({}, {"backend": "executorch"}, "it has no points of executorch"),
    "another engine version": (
        {}, {"engine_version": "1.32.0"}, "it was made with onnxruntime 1.30.0, this is 1.32.0",
    ),
    "other threads": ({}, {"threads": 4}, "it was made with 2 threads, this run has 4"),
    "another precision": ({}, {"points": frozenset({"a-int8"})}, "it has none of the points of this run"),
    "tomorrow": ({"created": "2030-01-01T00:00:00Z"}, {}, "2030-01-01, which is yet to come: a clock is wrong"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_a_stale_result_is_refused_with_its_reason(name: str) -> None:
    changes, wanted, reason = MISFITS[name]
    assert misfit(result_of({"a": 1.0}), WANTED) is None
    assert reason in str(misfit(result_of({"a": 1.0}, **changes), replace(WANTED, **wanted)))


def load(bundle: Bundle, **options: Any) -> Runtime:
    return Runtime.load(bundle, backend="null", threads=1, sensors=NoSensors(), **options)


def test_the_runtime_takes_the_table_and_says_so(bundle: Bundle) -> None:
    path = keep_result(fitting_result(bundle), bundle.root, None, pytest.fail)[0]
    told: list[str] = []
    with load(bundle, tell=told.append, warn=pytest.fail) as runtime:
        assert runtime.wait_ready(30)
        assert {runtime.latency_ms(point.name) for point in runtime.points} == {LATENCY_MS}
        assert runtime.query_table_source == f"{path} (quick, 2026-01-02T03:04:05Z, stable)"
    assert told == [f"query table: {runtime.query_table_source}"]


def test_the_runtime_scales_the_points_that_the_table_lacks(bundle: Bundle) -> None:
    result = fitting_result(bundle)
    keep = [point for point in result.points if point.name != "w1.00-r032"]
    points = [
        point_of(p.name, blocks_of(3.0 * float(bundle.point(p.name).latency_ms or 0.0)), backend="null", threads=1)
        for p in keep
    ]
    keep_result(replace(result, points=tuple(points)), bundle.root, None, pytest.fail)
    with load(bundle) as runtime:
        assert runtime.latency_ms("w1.00-r032") == pytest.approx(3.0 * 4.0)


def test_the_runtime_warns_of_a_stale_table_and_measures_for_itself(bundle: Bundle) -> None:
    environment = replace(fitting_result(bundle).environment, cpu_model="Other CPU")
    keep_result(replace(fitting_result(bundle), environment=environment), bundle.root, None, pytest.fail)
    warned: list[str] = []
    with load(bundle, warn=warned.append, tell=pytest.fail) as runtime:
        assert runtime.query_table_source == "first runs on this device"
    assert len(warned) == 1
    assert f"it was made on Other CPU, this is {read_machine_facts().cpu_model}" in warned[0]


def test_the_runtime_refuses_a_named_file_that_does_not_fit(bundle: Bundle, tmp_path: Path) -> None:
    path = save_result(result_of({"a": 1.0}), tmp_path / "a.json")
    with pytest.raises(ResultError, match="does not fit this run"):
        load(bundle, query_table=path)
    with pytest.raises(ResultError, match="cannot be read"):
        load(bundle, query_table="none.json")


def test_the_engine_version_is_that_of_whatever_package_brings_it() -> None:
    assert engine_version("onnxruntime")
    assert engine_version("null")
    assert engine_version("unheard-of") == ""


def test_the_environment_is_read_from_the_root(tmp_path: Path) -> None:
    policy = tmp_path / "sys/devices/system/cpu/cpufreq/policy0"
    policy.mkdir(parents=True)
    (policy / "scaling_governor").write_text("powersave\n")
    (policy / "cpuinfo_max_freq").write_text("2400000\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("model name : A CPU\nflags : sse hypervisor\n")
    found = read_environment("x", ["null"], Readings(on_battery=True, temperature_c=41.0), tmp_path)
    assert (found.governor, found.max_frequency_mhz, found.cpu_model) == ("powersave", 2400.0, "A CPU")
    assert (found.on_battery, found.temperature_start_c) == (True, 41.0)
    assert {"edge-runtime", "numpy"} <= set(found.versions)
