"""Device profiles: every shipped one is sound, a bad one is refused in one sentence, and machines find theirs."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import device_trees as trees
import pytest

import edge_runtime.device_profile as device_profile
from edge_runtime.device_profile import (
    DeviceProfile,
    FallingBand,
    MachineFacts,
    MatchRule,
    RisingBand,
    list_profiles,
    load_profile,
    match_profile,
    read_machine_facts,
)
from edge_runtime.errors import ProfileError
from edge_runtime.profile_file import parse_profile
from edge_runtime.profile_schema import band_fault
from edge_runtime.readings import Readings

PROFILES = Path(__file__).parents[2] / "profiles"
SHIPPED = sorted(path.stem for path in PROFILES.glob("*.toml"))
PROMISED = {
    "raspberry-pi-4",
    "raspberry-pi-5",
    "jetson-orin-nano",
    "pixel-8",
    "generic-android",
    "iphone-15",
    "laptop-x86",
    "server-x86-vnni",
    "generic-arm64",
}
SOUND = (PROFILES / "raspberry-pi-5.toml").read_text()


# ---- every shipped profile


def test_the_promised_profiles_are_shipped() -> None:
    assert set(SHIPPED) >= PROMISED
    assert [profile.name for profile in list_profiles()] == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_loads_and_every_fact_has_a_source(name: str) -> None:
    profile = load_profile(name)
    assert profile.hardware
    assert all(len(fact.source) > 15 for fact in profile.hardware)
    assert not profile.measured, "a profile that claims measurements must point to them: extend this test"


@pytest.mark.parametrize("name", SHIPPED)
def test_bands_of_a_shipped_profile_overlap_and_get_stricter(name: str) -> None:
    profile = load_profile(name)
    rising = (*profile.thermal_bands, *profile.load_bands, *profile.memory_pressure_bands)
    assert all(band.leave_below < band.enter_above for band in rising)
    assert all(band.leave_above > band.enter_below for band in profile.battery_bands)
    for bands in (profile.thermal_bands, profile.battery_bands, profile.load_bands, profile.memory_pressure_bands):
        caps = [band.cap_share for band in bands]
        assert caps == sorted(set(caps), reverse=True)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_gives_way_before_the_hardware_does(name: str) -> None:
    profile = load_profile(name)
    limits = [fact.value for fact in profile.hardware if "throttling starts" in fact.name or "passive" in fact.name]
    for limit in limits:
        assert isinstance(limit, (int, float))
        assert profile.thermal_bands[-1].enter_above < limit


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_profile_trusts_the_sensor_of_each_of_its_bands(name: str) -> None:
    profile = load_profile(name)
    needed = {
        "temperature_c": profile.thermal_bands,
        "battery_share": profile.battery_bands,
        "foreign_load": profile.load_bands,
        "memory_pressure": profile.memory_pressure_bands,
    }
    assert {sensor for sensor, bands in needed.items() if bands} <= set(profile.sensors)


def test_exactly_one_shipped_profile_is_the_fallback() -> None:
    assert [profile.name for profile in list_profiles() if profile.match.fallback] == ["laptop-x86"]


def test_the_documents_table_names_every_profile() -> None:
    text = (PROFILES.parent / "docs" / "profiles.md").read_text()
    for profile in list_profiles():
        row = next(line for line in text.splitlines() if line.startswith(f"| `{profile.name}` |"))
        assert f"| {profile.backend} | {profile.precision} | {profile.threads} |" in row
        thresholds = ", ".join(f"{band.enter_above:g}" for band in profile.thermal_bands)
        assert thresholds in row if thresholds else row.endswith("| none |")


# ---- bad files


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("threads =", "thredas =", "[runtime] threads is missing, expected a whole number from 1 to 256; is 'thredas'"),
        ("[runtime]", "[runtime]\nthredas = 2", "thredas is not a known key; did you mean 'threads'"),
        ("[match]", "[match]\nregion = 'EU'", "[match] region is not a known key; known here: priority"),
        ("schema = 1", "schema = 1\ncolour = 'red'", "colour is not a known key"),
        ("[[hardware]]", "[[hardware]]\nnote = 'x'", "[hardware 1] note is not a known key"),
        ("[[load_bands]]", "[[load_bands]]\nenter_above_c = 1", "enter_above_c is not a known key"),
        ("threads = 3", "threads = 'three'", "threads is 'three', expected a whole number"),
        ("threads = 3", "threads = true", "threads is True, expected a whole number"),
        ("threads = 3", "threads = 0", "threads is 0, expected a whole number from 1"),
        ("threads = 3", "threads = 3.0", "threads is 3.0, expected a whole number"),
        ("arena = true", "arena = 1", "arena is 1, expected true or false"),
        ('"onnxruntime"', '"tensorrt"', "backend is 'tensorrt', expected one of onnxruntime"),
        ('"int8"', '["int8"]', "precision is ['int8'], expected one of fp32, int8"),
        ("period_s = 1.0", "period_s = nan", "period_s is nan, expected a number"),
        ("period_s = 1.0", "period_s = inf", "period_s is inf, expected a number"),
        ("period_s = 1.0", "period_s = 0", "period_s is 0, expected a number from 0.001"),
        ('"own_load"', '"humidity"', "[sensors] trusted names 'humidity', expected some of"),
        ('"linux"', '"beos"', "[match] systems names 'beos', expected some of linux"),
        ("[runtime]", "[runtimes]", "runtime is missing, expected a table"),
        ('title = "Raspberry Pi 5"', 'title = ""', "title is '', expected a text"),
        ("schema = 1", "schema = 2", "schema is 2, this runtime reads 1"),
        ("schema = 1", "", "schema is missing"),
        ("schema = 1", "schema = ", "this is not TOML"),
        ("leave_below_c = 74.0", "leave_below_c = 79.0", "thermal_bands: band 'warm' does not overlap"),
        ("leave_below_c = 76.0", "leave_below_c = 70.0", "'hot' does not lie beyond band 'warm'"),
        ("cap_share = 0.7\n", "cap_share = 0.95\n", "'hot' must cap lower than band 'warm'"),
        ("cap_share = 0.95", "cap_share = 0", "cap_share 0, expected more than 0"),
        ("cap_share = 0.95", "cap_share = 1.5", "cap_share is 1.5, expected a number from 0 to 1"),
        ("enter_above_c = 78.0", "enter_above_c = 500.0", "enter_above_c is 500.0, expected a number"),
    ],
)
def test_a_bad_profile_is_refused_in_one_sentence(tmp_path: Path, old: str, new: str, said: str) -> None:
    path = tmp_path / "board.toml"
    assert old in SOUND, "the change must change something"
    path.write_text(SOUND.replace(old, new, 1))
    with pytest.raises(ProfileError) as caught:
        load_profile(path)
    message = str(caught.value)
    assert said in message
    assert message.startswith(str(path))
    assert "\n" not in message


def test_two_bands_of_one_name_are_refused() -> None:
    assert band_fault([RisingBand("a", 60, 50, 0.9), RisingBand("a", 70, 65, 0.5)], 0, 130) == "two bands are named 'a'"


def test_falling_bands_are_checked_the_other_way_round() -> None:
    assert band_fault([FallingBand("low", 0.2, 0.25, 0.5), FallingBand("last", 0.1, 0.15, 0.2)], 0, 1) is None
    assert "does not overlap" in str(band_fault([FallingBand("low", 0.2, 0.15, 0.5)], 0, 1))
    swapped = [FallingBand("last", 0.1, 0.15, 0.5), FallingBand("low", 0.2, 0.25, 0.2)]
    assert "does not lie beyond" in str(band_fault(swapped, 0, 1))


def test_a_missing_file_is_one_clear_sentence(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match=r"nope\.toml: cannot be read: No such file") as caught:
        load_profile(str(tmp_path / "nope.toml"))
    assert caught.value.exit_code == 7


def test_an_unknown_name_names_the_nearest() -> None:
    with pytest.raises(ProfileError, match="no device profile is named 'raspbery-pi-5'; did you mean 'raspberry-pi-5'"):
        load_profile("raspbery-pi-5")
    with pytest.raises(ProfileError, match="there are: generic-android, generic-arm64"):
        load_profile("toaster")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x00" * 100, b"[" * 100_000, b"x" * ((1 << 20) + 1)])
def test_a_file_that_is_not_a_profile_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "noise.toml"
    path.write_bytes(content)
    with pytest.raises(ProfileError, match=r"noise\.toml"):
        load_profile(path)


def test_a_folder_is_not_a_profile(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="cannot be read"):
        load_profile(tmp_path)


def test_file_name_and_name_must_agree_for_shipped_profiles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "__init__.py").touch()
    shutil.copy(PROFILES / "pixel-8.toml", tmp_path / "pixel-9.toml")
    monkeypatch.setattr(device_profile, "WHEEL_FOLDER", tmp_path)
    with pytest.raises(ProfileError, match="the file says its name is 'pixel-8'"):
        load_profile("pixel-9")


def test_the_wheel_s_folder_is_used_and_its_absence_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_profile, "CHECKOUT_FOLDER", tmp_path / "absent")
    monkeypatch.setattr(device_profile, "WHEEL_FOLDER", tmp_path / "profiles")
    with pytest.raises(ProfileError, match="shipped device profiles are missing; reinstall"):
        list_profiles()
    shutil.copytree(PROFILES, tmp_path / "profiles")
    assert [profile.name for profile in list_profiles()] == SHIPPED


# ---- what a profile does


def test_sensors_that_are_not_trusted_become_unknown() -> None:
    profile = dataclasses.replace(load_profile("raspberry-pi-5"), sensors=("own_load", "throttled"))
    readings = Readings(taken_s=3.0, own_load=0.5, temperature_c=60.0, sources={"own_load": "a", "temperature_c": "b"})
    assert profile.trusted(readings) == Readings(taken_s=3.0, own_load=0.5, sources={"own_load": "a"})


# ---- matching


def facts(**known: object) -> MachineFacts:
    return dataclasses.replace(MachineFacts("linux", "aarch64"), **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("machine", "name", "reason"),
    [
        (
            facts(model="Raspberry Pi 5 Model B Rev 1.0"),
            "raspberry-pi-5",
            'it calls itself "Raspberry Pi 5 Model B Rev 1.0"',
        ),
        (facts(model="Raspberry Pi 4 Model B Rev 1.5", architecture="armv7l"), "raspberry-pi-4", "Raspberry Pi 4"),
        (facts(model="Raspberry Pi 400 Rev 1.0"), "raspberry-pi-4", "Raspberry Pi 400"),
        (
            facts(model="NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super"),
            "jetson-orin-nano",
            "Orin Nano",
        ),
        (facts(model="Radxa ROCK 5B"), "generic-arm64", "the architecture is aarch64"),
        (facts(system="darwin", has_battery=True), "generic-arm64", "it runs darwin"),
        (facts(system="android", model="Pixel 8 Pro"), "pixel-8", "Pixel 8 Pro"),
        (facts(system="android", model="SM-S911B"), "generic-android", "it runs android"),
        (facts(system="ios", model="iPhone15,4"), "iphone-15", "iPhone15,4"),
        (facts(architecture="x86_64", has_battery=True, cpu_features=frozenset({"avx_vnni"})), "laptop-x86", "x86_64"),
        (
            facts(architecture="x86_64", cpu_features=frozenset({"avx512_vnni", "sse2"}), has_battery=False),
            "server-x86-vnni",
            "has avx512_vnni, it has no battery",
        ),
        (facts(architecture="x86_64", cpu_features=frozenset({"avx512_vnni"})), "server-x86-vnni", "it has no battery"),
        (facts(architecture="x86_64", cpu_features=frozenset({"avx2"})), "laptop-x86", "the architecture is x86_64"),
        (facts(architecture="x86_64", system="windows"), "laptop-x86", "the architecture is x86_64"),
        (facts(architecture="riscv64"), "laptop-x86", "no profile is made for linux on riscv64"),
        (facts(system="ios", model="iPhone16,1"), "laptop-x86", "no profile is made for ios on aarch64"),
    ],
)
def test_a_machine_finds_its_profile_and_the_reason(machine: MachineFacts, name: str, reason: str) -> None:
    profile, why = match_profile(machine)
    assert profile.name == name
    assert reason in why


def test_without_a_fallback_no_match_is_an_error() -> None:
    with pytest.raises(ProfileError, match="no device profile fits linux on riscv64; give one with --profile"):
        match_profile(facts(architecture="riscv64"), [load_profile("pixel-8")])


def test_a_rule_that_asks_nothing_fits_everything() -> None:
    anything = dataclasses.replace(load_profile("laptop-x86"), match=MatchRule(priority=1))
    assert match_profile(facts(), [anything])[1] == "it asks nothing special of the machine"


# ---- facts of a machine


def test_facts_of_a_raspberry_pi(tmp_path: Path) -> None:
    known = read_machine_facts(trees.raspberry_pi_5(tmp_path), "linux", "aarch64")
    assert known.model == "Raspberry Pi 5 Model B Rev 1.0"
    assert known.cpu_model == "1 x Cortex-A76"
    assert "asimddp" in known.cpu_features
    assert known.cores == 4
    assert known.memory_bytes == 4096 * trees.MIB
    assert known.has_battery is None
    assert match_profile(known)[0].name == "raspberry-pi-5"


def test_facts_of_a_laptop(tmp_path: Path) -> None:
    known = read_machine_facts(trees.laptop(tmp_path), "linux", "AMD64")
    assert known.architecture == "x86_64"
    assert known.cpu_model == "Intel(R) Core(TM) i5"
    assert known.has_battery is True
    assert match_profile(known)[0].name == "laptop-x86"


def test_features_are_those_that_all_cores_share(tmp_path: Path) -> None:
    trees.put(
        tmp_path,
        {"proc/cpuinfo": "Features : fp asimd asimddp\nCPU part : 0xd4e\n\nFeatures : fp asimd\nCPU part : 0xfff"},
    )
    known = read_machine_facts(tmp_path, "linux", "aarch64")
    assert known.cpu_features == {"fp", "asimd"}
    assert known.cpu_model == "1 x Cortex-X3 + 1 x Arm part 0xfff"


def test_an_android_phone_is_known_by_its_properties(tmp_path: Path) -> None:
    trees.put(tmp_path, {"system/build.prop": "# made\nro.build.id=1\nro.product.system.model=Pixel 8\n"})
    known = read_machine_facts(tmp_path, architecture="aarch64")
    assert (known.system, known.model) == ("android", "Pixel 8")


@pytest.mark.parametrize(
    ("online", "cores"),
    [("0-3", 4), ("0-3,6", 5), ("0", 1), ("", None), ("3-0", None), ("a-b", None), ("0-" + "9" * 30, None)],
)
def test_online_cores_are_counted_or_unknown(tmp_path: Path, online: str, cores: int | None) -> None:
    trees.put(tmp_path, {"sys/devices/system/cpu/online": online})
    assert read_machine_facts(tmp_path, "linux", "x86_64").cores == cores


def test_facts_of_a_machine_that_tells_nothing(tmp_path: Path) -> None:
    known = read_machine_facts(tmp_path, "plan9", "mips")
    assert dataclasses.replace(known, cpu_model="") == MachineFacts("plan9", "mips")


def test_a_profile_is_immutable() -> None:
    profile: DeviceProfile = parse_profile(SOUND, "here")
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.threads = 8  # type: ignore[misc]
