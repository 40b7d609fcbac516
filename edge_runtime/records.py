"""Read frozen dataclasses from untrusted JSON or TOML values: every key known, every value of its type and finite."""

from __future__ import annotations

import dataclasses
import functools
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

Record = TypeVar("Record")
MAX_TEXT = 4096
MAX_INTEGER = 2**62
NO_TEXT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")
"""Signs that steer a terminal, and half signs that no file name or terminal can hold."""


class RecordError(ValueError):
    """A value that does not fit its record; the message names the key."""


def read_record(kind: type[Record], values: object, where: str) -> Record:
    """Build a dataclass from plain values.

    Args:
        kind: a dataclass whose fields are bool, int, float, str, None, tuples, dicts of these, or dataclasses.
        values: what a JSON or TOML reader gave.
        where: how messages call this place ("manifest.json: points[3]").
    Raises:
        RecordError: an unknown or missing key, a wrong type, a number that is not finite, or a refusal of the
            dataclass's own checks (ValueError).
    """
    if not isinstance(values, Mapping):
        raise RecordError(f"{where}: expected an object with keys, found {type(values).__name__}")
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise RecordError(f"{where}: unknown key {str(key)[:80]!r}; known keys are {', '.join(sorted(fields))}")
    hints = _hints(kind)  # type: ignore[arg-type]
    arguments = {}
    for name, field in fields.items():
        if name in values:
            arguments[name] = read_value(hints[name], values[name], f"{where}: {name}")
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise RecordError(f"{where}: key {name!r} is missing")
    try:
        return kind(**arguments)
    except RecordError:
        raise
    except ValueError as error:
        raise RecordError(f"{where}: {error}") from error


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """Types of a record's fields; resolving their names takes longer than reading a record."""
    return typing.get_type_hints(kind)


def read_value(hint: Any, value: object, where: str) -> Any:
    """Check one value against a type and return it in that type."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        chosen = next(a for a in arguments if a is not type(None))
        return read_value(chosen, value, where)
    if dataclasses.is_dataclass(hint):
        return read_record(hint, value, where)  # type: ignore[arg-type]
    if origin is tuple:
        return _read_tuple(arguments, value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise RecordError(f"{where}: expected an object, found {type(value).__name__}")
        return {_text(k, where): read_value(arguments[1], v, f"{where}[{k!r}]") for k, v in value.items()}
    return _read_scalar(hint, value, where)


def _read_tuple(arguments: tuple[Any, ...], value: object, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise RecordError(f"{where}: expected a list, found {type(value).__name__}")
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        kinds: tuple[Any, ...] = (arguments[0],) * len(value)
    else:
        kinds = arguments
    if len(kinds) != len(value):
        raise RecordError(f"{where}: expected {len(kinds)} values, found {len(value)}")
    return tuple(read_value(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))


def _read_scalar(hint: Any, value: object, where: str) -> Any:
    if hint in (int, float) and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) > MAX_INTEGER:
            raise RecordError(f"{where}: is larger than any possible value")
        return hint(value)
    if hint is float and isinstance(value, float):
        if not math.isfinite(value):
            raise RecordError(f"{where}: is {value}, expected a finite number")
        return value
    if hint is bool and isinstance(value, bool):
        return value
    if hint is str:
        return _text(value, where)
    raise RecordError(f"{where}: expected {getattr(hint, '__name__', hint)}, found {type(value).__name__}")


def _text(value: object, where: str) -> str:
    if not isinstance(value, str):
        raise RecordError(f"{where}: expected text, found {type(value).__name__}")
    if len(value) > MAX_TEXT:
        raise RecordError(f"{where}: text of {len(value)} characters, expected at most {MAX_TEXT}")
    if NO_TEXT.search(value):
        raise RecordError(f"{where}: holds signs that are no text: {value[:80]!r}")
    return value
