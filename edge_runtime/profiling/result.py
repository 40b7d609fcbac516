"""Read and write profile results: one JSON file each, checked when it is read, whole or absent when it is written.

result = load_result("everyday-20.json")
save_result(result, "copy.json")
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

from edge_runtime.errors import ResultError
from edge_runtime.profiling.result_records import (
    FORMAT,
    READABLE_VERSIONS,
    SCHEMA_VERSION,
    Block,
    BundleFacts,
    Delegation,
    Energy,
    Environment,
    Estimate,
    Latency,
    Load,
    Memory,
    Method,
    Operator,
    Operators,
    PointProfile,
    ProfileResult,
    Sustained,
    SustainedSample,
    Verdict,
)
from edge_runtime.records import RecordError, read_record

__all__ = [
    "FORMAT",
    "SCHEMA_VERSION",
    "Block",
    "BundleFacts",
    "Delegation",
    "Energy",
    "Environment",
    "Estimate",
    "Latency",
    "Load",
    "Memory",
    "Method",
    "Operator",
    "Operators",
    "PointProfile",
    "ProfileResult",
    "Sustained",
    "SustainedSample",
    "Verdict",
    "load_result",
    "result_values",
    "save_result",
]

MAX_FILE_BYTES = 128 << 20
NUMBER_LIST = re.compile(r"\[\s+([-+0-9.eE,\s]+?)\s+\]")


def load_result(path: str | Path) -> ProfileResult:
    """Read one result.

    Raises:
        ResultError: missing, not JSON, truncated, of another schema version, or with impossible values.
    """
    path = Path(path)
    values = _read_json(path)
    version = values.get("schema_version") if isinstance(values, dict) else None
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ResultError(f"{path}: not a profile result; make one with edge-runtime profile")
    if version not in READABLE_VERSIONS or isinstance(version, bool):
        newer = isinstance(version, int) and version > SCHEMA_VERSION
        advice = "update edge-runtime" if newer else "profile the bundle again"
        raise ResultError(f"{path}: schema version {str(version)[:40]} is unknown, expected {SCHEMA_VERSION}; {advice}")
    try:
        return read_record(ProfileResult, values, str(path))
    except RecordError as error:
        raise ResultError(f"{error}; profile the bundle again") from error


def save_result(result: ProfileResult, path: str | Path) -> Path:
    """Write one result; a reader sees the old file or the whole new one.

    Raises:
        ResultError: the folder is read-only, the disk is full, ...; nothing is left behind.
    """
    path = Path(path)
    text = json.dumps(result_values(result), indent=1, allow_nan=False, ensure_ascii=False)
    text = NUMBER_LIST.sub(lambda found: "[" + re.sub(r"\s+", "", found[1]) + "]", text)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(text + "\n", encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise ResultError(f"{path}: cannot be written: {error.strerror or error}; choose another with --out") from error
    return path


def result_values(result: ProfileResult) -> dict[str, Any]:
    """The result as plain values, the way the file holds it: without a key that readers of pictures' results lack."""
    values = dataclasses.asdict(result)
    for point in values["points"]:
        if point["frames"] is None:
            del point["frames"]
    return values


def _read_json(path: Path) -> Any:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ResultError(f"{path}: cannot be read: {error.strerror or error}; check the path") from error
    if len(content) > MAX_FILE_BYTES:
        raise ResultError(f"{path}: larger than {MAX_FILE_BYTES >> 20} MiB; this is not a profile result")
    try:
        return json.loads(content.decode("utf-8"), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{path}: not a whole JSON file: {error}; copy it again, or profile again") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"the number {name} is not allowed")
