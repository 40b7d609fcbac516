"""Reads a device profile from TOML, strictly: a key that is unknown or of the wrong type is named in one sentence."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from edge_runtime.errors import ProfileError
from edge_runtime.profile_schema import (
    BACKENDS,
    PRECISIONS,
    SENSORS,
    DeviceProfile,
    FallingBand,
    HardwareFact,
    MatchRule,
    RisingBand,
    band_fault,
)

SCHEMA_VERSION = 1
SYSTEMS = ("linux", "android", "darwin", "ios", "windows")
MAX_THREADS = 256
MAX_POINTS = 1000
MAX_PERIOD_S = 3600.0
BAND_RANGES = {  # table -> (suffix of its threshold keys, lowest and highest threshold)
    "thermal_bands": ("c", 0.0, 130.0),
    "battery_bands": ("share", 0.0, 1.0),
    "load_bands": ("share", 0.0, 1.0),
    "memory_pressure_bands": ("share", 0.0, 1.0),
}

Value = TypeVar("Value")
Band = TypeVar("Band", RisingBand, FallingBand)
REQUIRED: Any = object()


def parse_profile(text: str, where: str) -> DeviceProfile:
    """Turn a profile's text into the profile.

    Args:
        text: TOML as in docs/profiles.md.
        where: file name for messages.
    Raises:
        ProfileError: not TOML, an unknown or missing key, a wrong type, or a value that makes no sense.
    """
    top = _Table(_parse_toml(text, where), where, "")
    version = top.integer("schema", 1, 10**6)
    if version != SCHEMA_VERSION:
        raise ProfileError(f"{where}: schema is {version}, this runtime reads {SCHEMA_VERSION}; update edge-runtime")
    runtime, sensors = top.table("runtime"), top.table("sensors")
    profile = DeviceProfile(
        name=top.text("name"),
        title=top.text("title"),
        summary=top.text("summary"),
        measured=top.boolean("measured"),
        hardware=tuple(_hardware_fact(table) for table in top.tables("hardware")),
        match=_match_rule(top.table("match")),
        backend=runtime.choice("backend", BACKENDS),
        precision=runtime.choice("precision", PRECISIONS),
        threads=runtime.integer("threads", 1, MAX_THREADS),
        max_points=runtime.integer("max_points", 1, MAX_POINTS),
        memory_limit_bytes=runtime.integer("memory_limit_bytes", 1, 1 << 50),
        arena=runtime.boolean("arena"),
        spinning=runtime.boolean("spinning"),
        sensors=sensors.choices("trusted", SENSORS),
        sensor_period_s=sensors.number("period_s", 0.001, MAX_PERIOD_S),
        temperature_zones=sensors.texts("temperature_zones", ()),
        thermal_bands=_bands(top, "thermal_bands", RisingBand, "enter_above", "leave_below"),
        battery_bands=_bands(top, "battery_bands", FallingBand, "enter_below", "leave_above"),
        load_bands=_bands(top, "load_bands", RisingBand, "enter_above", "leave_below"),
        memory_pressure_bands=_bands(top, "memory_pressure_bands", RisingBand, "enter_above", "leave_below"),
    )
    for table in (top, runtime, sensors):
        table.refuse_unknown()
    return profile


class _Table:
    """A TOML table that knows where it stands, checks what is taken from it and refuses what is left."""

    def __init__(self, values: dict[str, Any], where: str, name: str) -> None:
        self._values = values
        self._where = where
        self._name = name
        self._known: list[str] = []

    def take(self, key: str, kind: str, fits: Callable[[Any], bool], default: Value = REQUIRED) -> Value:
        """The value of a key, if it fits.

        Args:
            kind: what is expected, for the message.
        """
        self._known.append(key)
        if key not in self._values:
            if default is REQUIRED:
                near = difflib.get_close_matches(key, self._values, n=1)
                advice = f"; is {near[0]!r} meant for it?" if near and near[0] not in self._known else ""
                raise ProfileError(f"{self.place(key)} is missing, expected {kind}{advice}")
            return default
        value: Value = self._values[key]
        if not fits(value):
            raise ProfileError(f"{self.place(key)} is {_shown(value)}, expected {kind}")
        return value

    def text(self, key: str) -> str:
        return self.take(key, "a text that is not empty", lambda value: isinstance(value, str) and value.strip() != "")

    def boolean(self, key: str, default: bool | None = REQUIRED) -> Any:
        return self.take(key, "true or false", lambda value: isinstance(value, bool), default)

    def integer(self, key: str, low: int, high: int) -> int:
        kind = f"a whole number from {low} to {high}"
        return self.take(key, kind, lambda value: type(value) is int and low <= value <= high)

    def number(self, key: str, low: float, high: float) -> float:
        kind = f"a number from {low:g} to {high:g}"
        return float(self.take(key, kind, lambda value: _is_number(value) and low <= value <= high))

    def choice(self, key: str, options: Sequence[str]) -> str:
        return self.take(key, f"one of {', '.join(options)}", lambda value: isinstance(value, str) and value in options)

    def texts(self, key: str, default: tuple[str, ...] = REQUIRED) -> tuple[str, ...]:
        def fits(value: Any) -> bool:
            return isinstance(value, list) and all(isinstance(item, str) and item for item in value)

        return tuple(self.take(key, "a list of texts", fits, default))

    def choices(self, key: str, options: Sequence[str], default: tuple[str, ...] = REQUIRED) -> tuple[str, ...]:
        items = self.texts(key, default)
        for item in items:
            if item not in options:
                raise ProfileError(f"{self.place(key)} names {item!r}, expected some of {', '.join(options)}")
        return items

    def table(self, key: str) -> _Table:
        return _Table(self.take(key, "a table", lambda value: isinstance(value, dict)), self._where, key)

    def tables(self, key: str) -> list[_Table]:
        def fits(value: Any) -> bool:
            return isinstance(value, list) and all(isinstance(item, dict) for item in value)

        found: list[dict[str, Any]] = self.take(key, f"tables headed [[{key}]]", fits, [])
        return [_Table(values, self._where, f"{key} {index + 1}") for index, values in enumerate(found)]

    def refuse_unknown(self) -> None:
        """Raise for the first key that nobody asked for."""
        for key in self._values:
            if key not in self._known:
                near = difflib.get_close_matches(key, self._known, n=1)
                advice = f"did you mean {near[0]!r}?" if near else f"known here: {', '.join(self._known)}"
                raise ProfileError(f"{self.place(key)} is not a known key; {advice}")

    def place(self, key: str) -> str:
        return f"{self._where}: {f'[{self._name}] ' if self._name else ''}{key}"


def _parse_toml(text: str, where: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib  # type: ignore[import-not-found,unused-ignore]
    try:
        values: dict[str, Any] = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ProfileError(f"{where}: this is not TOML: {error}; compare docs/profiles.md") from error
    return values


def _hardware_fact(table: _Table) -> HardwareFact:
    def fits(value: Any) -> bool:
        return _is_number(value) or (isinstance(value, str) and value != "")

    fact = HardwareFact(
        table.text("name"), table.take("value", "a number or a text", fits), table.text("unit"), table.text("source")
    )
    table.refuse_unknown()
    return fact


def _match_rule(table: _Table) -> MatchRule:
    rule = MatchRule(
        priority=table.integer("priority", 0, 1000),
        systems=table.choices("systems", SYSTEMS, ()),
        architectures=table.texts("architectures", ()),
        models=table.texts("models", ()),
        cpu_features=table.texts("cpu_features", ()),
        battery=table.boolean("battery", None),
        fallback=table.boolean("fallback", False),
    )
    table.refuse_unknown()
    return rule


def _bands(top: _Table, key: str, kind: type[Band], enter: str, leave: str) -> tuple[Band, ...]:
    suffix, low, high = BAND_RANGES[key]
    bands = []
    for table in top.tables(key):
        bands.append(
            kind(
                table.text("name"),
                table.number(f"{enter}_{suffix}", low, high),
                table.number(f"{leave}_{suffix}", low, high),
                table.number("cap_share", 0.0, 1.0),
            )
        )
        table.refuse_unknown()
    fault = band_fault(bands, low, high)
    if fault is not None:
        raise ProfileError(f"{top.place(key)}: {fault}; see docs/profiles.md, bands")
    return tuple(bands)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
