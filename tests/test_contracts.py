"""What holds for the whole project: who may import whom, and what the front doors offer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import edge_runtime

ROOT = Path(__file__).resolve().parents[1]


def lint_imports(folder: Path, config: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter on the packages of a folder."""
    program = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(*sys.argv[1:]))"
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONUTF8": "1"}
    return subprocess.run(
        [sys.executable, "-c", program, str(config)],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=280,
    )  # fmt: skip


def test_every_package_imports_only_what_it_may() -> None:
    done = lint_imports(ROOT, ROOT / "pyproject.toml")
    assert done.returncode == 0, done.stdout
    assert "0 broken" in done.stdout


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("edge_runtime", "import torch"), ("zoo", "import edge_runtime"), ("converters", "import apps"),
        ("apps", "import zoo"),
    ],
)  # fmt: skip
def test_a_forbidden_import_is_found(tmp_path: Path, package: str, line: str) -> None:
    for name in ("edge_runtime", "zoo", "converters", "apps"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(line + "\n" if name == package else "")
    done = lint_imports(tmp_path, ROOT / "pyproject.toml")
    assert done.returncode == 1
    assert "1 broken" in done.stdout


def test_every_name_of_the_front_door_exists_and_is_sorted() -> None:
    assert edge_runtime.__all__ == sorted(edge_runtime.__all__)
    assert [name for name in edge_runtime.__all__ if not hasattr(edge_runtime, name)] == []
    public = {n for n, v in vars(edge_runtime).items() if not n.startswith("_") and getattr(v, "__module__", "")}
    assert public == set(edge_runtime.__all__)
