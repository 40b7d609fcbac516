"""Which device profile a scenario is played with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from apps.camera.__main__ import main
from apps.camera.scenario import Scenario, load_scenario
from apps.camera.stand_in import chosen_profile, missing_bands
from edge_runtime.device_profile import load_profile
from edge_runtime.errors import SinkError
from edge_runtime.runtime import Runtime

ROOT = Path(__file__).resolve().parents[2]
HOT = "[[phase]]\nname = 'a'\nstart_s = 0\n[[phase]]\nname = 'b'\nstart_s = 1\ntemperature_c = 90.0\n"


def scenario(tmp_path: Path, text: str) -> Scenario:
    path = tmp_path / "scenario.toml"
    path.write_text(text)
    return load_scenario(path)


def choose(played: Scenario | None, own: str, chosen: str | None = None) -> tuple[str | None, list[str]]:
    told: list[str] = []
    return chosen_profile(chosen, played, told.append, lambda: load_profile(own)), told


def test_a_server_without_thermal_bands_plays_a_hot_phase_as_a_laptop_and_says_so(tmp_path: Path) -> None:
    played = scenario(tmp_path, "stand_in_profile = 'laptop-x86'\n" + HOT)
    name, told = choose(played, "server-x86-vnni")
    assert name == "laptop-x86"
    assert told == [
        "server-x86-vnni has no thermal bands, which the scenario plays with: laptop-x86 stands in "
        "(--profile server-x86-vnni keeps it out)"
    ]


@pytest.mark.parametrize("own", ["laptop-x86", "raspberry-pi-5"])
def test_a_device_with_the_bands_keeps_its_own_profile(tmp_path: Path, own: str) -> None:
    assert choose(scenario(tmp_path, "stand_in_profile = 'laptop-x86'\n" + HOT), own) == (None, [])


def test_the_command_line_goes_first_and_nothing_stands_in_unasked(tmp_path: Path) -> None:
    asked = scenario(tmp_path, "stand_in_profile = 'laptop-x86'\n" + HOT)
    assert choose(asked, "server-x86-vnni", "server-x86-vnni") == ("server-x86-vnni", [])
    assert choose(scenario(tmp_path, HOT), "server-x86-vnni") == (None, [])
    assert choose(None, "server-x86-vnni") == (None, [])
    calm = scenario(tmp_path, "stand_in_profile = 'laptop-x86'\n[[phase]]\nname = 'a'\nstart_s = 0\n")
    assert choose(calm, "server-x86-vnni") == (None, [])


@pytest.mark.parametrize("name", ["scenario.toml", "focus-scenario.toml"])
def test_the_demos_play_all_of_their_phases_on_any_profile(name: str) -> None:
    played = load_scenario(ROOT / "apps" / "demo" / name)
    assert played.stand_in_profile is not None
    assert missing_bands(played, load_profile(played.stand_in_profile)) == []


def test_a_stand_in_that_is_no_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "scenario.toml"
    path.write_text("stand_in_profile = 3\n" + HOT)
    done = CliRunner().invoke(main, ["--scenario", str(path)])
    assert done.exit_code == 2
    assert "stand_in_profile is 3, expected the name of a device profile" in done.output


def test_the_profile_of_the_command_line_reaches_the_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("apps.camera.__main__.signal.signal", lambda *_: None)
    run: list[Any] = ["--source", "pattern", "--max-frames", "1", "--show", "no", "--profile"]
    done = CliRunner().invoke(main, [*run, "toaster"])
    assert done.exit_code != 0
    assert "toaster" in done.output
    assert len(done.output.strip().splitlines()) == 1
    taken = []

    def load(*_: object, **options: Any) -> None:  # no engine: the pool of the command would be this process's
        taken.append(options["profile"])
        raise SinkError("enough")

    monkeypatch.setattr(Runtime, "load", staticmethod(load))
    assert "error: enough" in CliRunner().invoke(main, [*run, "laptop-x86"]).output
    assert taken == ["laptop-x86"]


@pytest.mark.parametrize("name", ["scenario.toml", "focus-scenario.toml"])
def test_the_last_phase_of_a_demo_says_what_became_of_each_played_reading(name: str) -> None:
    """A device without a battery or thermometer reads nothing afterwards, and what was read last holds."""
    phases = load_scenario(ROOT / "apps" / "demo" / name).phases
    played = {reading for phase in phases for reading in phase.overrides()}
    assert played == set(phases[-1].overrides())
