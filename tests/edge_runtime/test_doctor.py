"""The doctor's findings on emulated machines, their text and their plain data."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import device_trees as trees
import pytest

import edge_runtime.package_probe as package_probe
from edge_runtime.device_list import devices_as_json, render_devices
from edge_runtime.device_profile import MachineFacts, list_profiles, read_machine_facts
from edge_runtime.doctor import PACKAGES, Finding, diagnose, findings_as_json, render_doctor
from edge_runtime.package_probe import PackageState, probe_packages
from edge_runtime.profile_schema import SENSORS

PI = MachineFacts("linux", "aarch64", model="Raspberry Pi 5 Model B Rev 1.0", cores=4, has_battery=False)
OPENCV = PackageState("5.0.0", note="QT5")


def everything(names: list[str]) -> dict[str, PackageState]:
    return {name: OPENCV if name == "opencv" else PackageState("1.0") for name in names}


def nothing(names: list[str]) -> dict[str, PackageState]:
    return {name: PackageState(None) for name in names}


def only(**states: PackageState) -> Callable[[list[str]], dict[str, PackageState]]:
    return lambda names: {**everything(names), **states}


def look(
    root: Path, facts: MachineFacts = PI, probe: package_probe.Probe = everything, **more: object
) -> dict[str, Finding]:
    options: dict[str, object] = {"environment": {}, "pause": lambda seconds: None, **more}
    findings = diagnose(root, facts=facts, probe=probe, **options)  # type: ignore[arg-type]
    assert len({finding.name for finding in findings}) == len(findings)
    return {finding.name: finding for finding in findings}


def test_a_healthy_raspberry_pi_shows_each_sensor_with_its_source(tmp_path: Path) -> None:
    trees.raspberry_pi_5(tmp_path)
    found = look(tmp_path, environment={"DISPLAY": ":0"})
    assert found["temperature_c"].detail == "61.2 °C  from /sys/class/thermal/thermal_zone0/temp"
    assert found["core_frequency_mhz"].detail.startswith("2400 to 2400 MHz on 4 cores")
    assert found["throttled"].detail.startswith("no  from ")
    assert found["best match"].detail.startswith("raspberry-pi-5 (Raspberry Pi 5): it calls itself")
    assert found["memory"].detail == "4.0 GiB, of which 3.0 GiB free"
    assert found["display"].status == "ok"
    assert {found[name].status for name in ("onnxruntime", "executorch", "opencv", "best match")} == {"ok"}
    assert (found["battery_share"].status, found["battery_share"].detail) == ("missing", "not available here")


def test_the_load_is_looked_at_twice(tmp_path: Path) -> None:
    trees.quiet_linux(tmp_path)

    def work(seconds: float) -> None:
        trees.put(tmp_path, {"proc/stat": trees.stat_line(75, 25), "proc/self/stat": trees.process_stat(25)})

    found = look(tmp_path, pause=work)
    assert found["own_load"].detail.startswith("25 %  from /proc/stat")
    assert found["foreign_load"].detail.startswith("50 %")


def test_the_tasks_that_want_a_core_are_counted_or_it_says_what_their_absence_means(tmp_path: Path) -> None:
    assert look(tmp_path)["crowding"].status == "missing"
    assert "first late frame" in look(tmp_path)["crowding"].hint
    trees.put(tmp_path, {"proc/loadavg": "0.10 0.20 0.30 3/80 900"})
    detail = look(tmp_path)["crowding"].detail
    assert detail == f"{3 / (os.cpu_count() or 1):.2f} tasks for each core  from /proc/loadavg"


def test_power_of_the_processor_is_told_from_two_looks_at_its_counter(tmp_path: Path) -> None:
    domain = "sys/class/powercap/intel-rapl:0"
    trees.put(tmp_path, {f"{domain}/name": "package-0", f"{domain}/energy_uj": 0})
    found = look(tmp_path, pause=lambda seconds: trees.put(tmp_path, {f"{domain}/energy_uj": int(7e6 * seconds)}))
    assert found["power_w"].detail.startswith("7.00 W  from")


def test_a_machine_that_tells_nothing_is_diagnosed_without_an_error(tmp_path: Path) -> None:
    found = look(tmp_path, MachineFacts("plan9", "mips"), nothing)
    assert {found[name].status for name in SENSORS} == {"missing"}
    assert found["memory"].status == "missing"
    assert "no profile is made for plan9 on mips" in found["best match"].detail


@pytest.mark.parametrize(
    ("package", "extra"),
    [
        ("onnxruntime", "camera"),
        ("executorch", "executorch"),
        ("opencv", "camera"),
        *[(package, extra) for package, (extra, _) in PACKAGES.items()],
    ],
)
def test_what_is_missing_is_named_with_the_extra_that_brings_it(tmp_path: Path, package: str, extra: str) -> None:
    finding = look(tmp_path, probe=nothing)[package]
    assert finding.status == "missing"
    assert finding.hint == f"pip install 'edge-runtime[{extra}]'"


@pytest.mark.parametrize("extra", ["camera", "report", "convert", "executorch", "train", "sign"])
def test_every_extra_that_the_doctor_names_exists_and_brings_the_package(extra: str) -> None:
    text = (Path(__file__).parents[2] / "pyproject.toml").read_text()
    block = text.partition("[project.optional-dependencies]")[2].partition("\n[")[0]
    listed = block.partition(f"\n{extra} = ")[2].partition("\n]" if f"\n{extra} = [\n" in block else "]\n")[0]
    for package, (its_extra, _) in {
        **PACKAGES,
        "executorch": ("executorch", ""),
        "onnxruntime": ("camera", ""),
    }.items():
        if its_extra == extra:
            assert f'"{package}>' in listed or f'"{package}=' in listed, package


def test_an_engine_that_cannot_be_imported_is_a_warning_with_the_reason(tmp_path: Path) -> None:
    found = look(tmp_path, probe=only(onnxruntime=PackageState("1.32.0", failure="ImportError: GLIBC_2.38 not found")))
    assert found["onnxruntime"].status == "warning"
    assert "GLIBC_2.38" in found["onnxruntime"].detail
    assert found["onnxruntime"].hint == "pip install --force-reinstall onnxruntime"


def test_a_profile_whose_engine_is_absent_is_a_warning(tmp_path: Path) -> None:
    found = look(tmp_path, probe=only(onnxruntime=PackageState(None)))
    assert found["best match"].status == "warning"
    assert found["best match"].hint == "it prefers onnxruntime: pip install 'edge-runtime[camera]'"


@pytest.mark.parametrize(("note", "status"), [("QT5", "ok"), ("NONE", "warning"), ("", "warning")])
def test_opencv_without_windows_is_told(tmp_path: Path, note: str, status: str) -> None:
    assert look(tmp_path, probe=only(opencv=PackageState("5.0.0", note=note)))["opencv"].status == status


def test_a_broken_opencv_names_the_package_to_reinstall(tmp_path: Path) -> None:
    found = look(tmp_path, probe=only(opencv=PackageState("5.0.0", failure="ImportError: libGL.so.1")))
    assert found["opencv"].hint == "pip install --force-reinstall opencv-python"


@pytest.mark.parametrize(
    ("system", "variables", "status"),
    [
        ("linux", {}, "missing"),
        ("linux", {"DISPLAY": ""}, "missing"),
        ("linux", {"DISPLAY": ":1"}, "ok"),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, "ok"),
        ("darwin", {}, "ok"),
    ],
)
def test_a_display_is_found_or_its_absence_told(
    tmp_path: Path, system: str, variables: dict[str, str], status: str
) -> None:
    assert look(tmp_path, MachineFacts(system, "aarch64"), environment=variables)["display"].status == status


def test_cameras_are_listed_by_name_in_natural_order(tmp_path: Path) -> None:
    names = {"dev/video10": "", "dev/video2": "", "sys/class/video4linux/video2/name": "HD Webcam"}
    found = look(trees.put(tmp_path, names))
    assert [name for name in found if name.startswith("/dev/video")] == ["/dev/video2", "/dev/video10"]
    assert found["/dev/video2"] == Finding("Pictures", "/dev/video2", "ok", "HD Webcam")


def test_a_camera_that_may_not_be_opened_says_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_runtime.doctor.os.access", lambda path, mode: False)
    found = look(trees.put(tmp_path, {"dev/video0": ""}))
    assert found["/dev/video0"].status == "warning"
    assert "video" in found["/dev/video0"].hint


def test_without_a_camera_other_sources_are_named(tmp_path: Path) -> None:
    found = look(tmp_path)
    assert found["cameras"].status == "missing"
    assert "rtsp://" in found["cameras"].hint


def test_a_container_s_limits_are_told(tmp_path: Path) -> None:
    trees.container_v2(tmp_path)
    trees.put(tmp_path, {"sys/fs/cgroup/pods.slice/pod7/cpu.max": "150000 100000"})
    found = look(tmp_path)
    assert found["processor"].status == "warning"
    assert "may use 1.5 of them" in found["processor"].detail
    assert found["memory"].status == "warning"  # 212 MiB of room
    assert "limit of /sys/fs/cgroup/pods.slice/pod7/memory.max" in found["memory"].detail


@pytest.mark.parametrize("quota", ["max 100000", "", "garbage", "-1 0", "800000 100000"])
def test_a_quota_that_does_not_bind_is_not_mentioned(tmp_path: Path, quota: str) -> None:
    trees.container_v2(tmp_path)
    trees.put(tmp_path, {"sys/fs/cgroup/pods.slice/pod7/cpu.max": quota})
    assert look(tmp_path)["processor"].status == "ok"


def test_throttling_is_something_to_look_at(tmp_path: Path) -> None:
    trees.raspberry_pi_5(tmp_path)
    trees.put(tmp_path, {"sys/class/hwmon/hwmon1/in0_lcrit_alarm": 1})
    found = look(tmp_path)
    assert found["throttled"].status == "warning"
    assert "power supply" in found["throttled"].hint


# ---- text and data


def test_the_text_has_every_finding_under_one_heading_per_section(tmp_path: Path) -> None:
    findings = diagnose(trees.raspberry_pi_5(tmp_path), facts=PI, environment={}, probe=nothing, pause=lambda s: None)
    text = render_doctor(findings)
    lines = text.splitlines()
    for finding in findings:
        assert finding.detail in text
        assert finding.hint in text
    assert [line for line in lines if line and not line.startswith(" ")][:-1] == [
        "System",
        "Engines",
        "Packages",
        "Pictures",
        "Sensors",
        "Device profile",
    ]
    count = sum(finding.status == "missing" for finding in findings)
    assert f"{count} missing" in lines[-1]


def test_no_finding_is_still_a_text() -> None:
    assert render_doctor([]).splitlines()[-1] == "0 ok, 0 missing, 0 to look at"


def test_the_data_survives_json(tmp_path: Path) -> None:
    findings = diagnose(trees.laptop(tmp_path), facts=PI, environment={}, probe=nothing, pause=lambda s: None)
    data = json.loads(json.dumps(findings_as_json(findings)))
    assert [Finding(**record) for record in data] == findings


def test_the_list_of_devices_marks_the_best_and_says_why() -> None:
    text = render_devices(PI)
    marked = [line for line in text.splitlines() if line.startswith("->")]
    assert len(marked) == 1
    assert "raspberry-pi-5" in marked[0]
    assert 'Best for this machine: raspberry-pi-5 (it calls itself "Raspberry Pi 5 Model B Rev 1.0").' in text
    assert all(profile.name in text for profile in list_profiles())


def test_the_list_of_devices_as_data_holds_facts_and_sources() -> None:
    data = json.loads(json.dumps(devices_as_json(PI)))
    assert data["best"] == "raspberry-pi-5"
    assert data["machine"]["model"] == PI.model
    assert data["profiles"][0]["hardware"][0]["source"]


def test_this_very_machine_has_a_profile() -> None:
    assert "Best for this machine: " in render_devices(read_machine_facts())


# ---- the probe itself


def test_the_probe_imports_in_a_child_and_reports_what_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(package_probe.IMPORTS, "pytest", "import pytest; note = 'here'")
    monkeypatch.setitem(package_probe.IMPORTS, "hypothesis", "import no_such_module_at_all")
    states = probe_packages(["pytest", "hypothesis", "no-such-package-at-all"])
    assert states["pytest"] == PackageState(pytest.__version__, "", "here")
    assert states["hypothesis"].failure == "ModuleNotFoundError: No module named 'no_such_module_at_all'"
    assert states["no-such-package-at-all"] == PackageState(None)


def test_a_package_that_ends_its_process_does_not_end_the_doctor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(package_probe.IMPORTS, "pytest", "import os; os._exit(3)")
    assert probe_packages(["pytest"])["pytest"].failure == "the import ended the process (3)"


def test_a_package_whose_import_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package_probe, "IMPORT_TIMEOUT_S", 0.2)
    monkeypatch.setitem(package_probe.IMPORTS, "pytest", "import time; time.sleep(60)")
    assert probe_packages(["pytest"])["pytest"].failure == "the import did not end within 0.2 s"


def test_importing_the_doctor_loads_nothing_heavy() -> None:
    code = (
        "import sys, edge_runtime.doctor, edge_runtime.device_list;"
        "print([name for name in ('torch', 'cv2', 'onnxruntime', 'click', 'rich', 'psutil') if name in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "[]"
