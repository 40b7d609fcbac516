"""Importing the device side loads numpy and the standard library only, and every module loads without any extra."""

from __future__ import annotations

import json
import subprocess
import sys

HEAVY = ("torch", "onnx", "cv2", "onnxruntime", "executorch", "click", "psutil", "rich", "jinja2", "vl_convert")
OURS = ("zoo", "converters", "apps")


def fresh(program: str) -> str:
    """Standard output of a program in a new interpreter."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_the_package_loads_nothing_heavy() -> None:
    loaded = json.loads(fresh("import edge_runtime, json, sys; print(json.dumps(sorted(sys.modules)))"))
    top = {name.split(".")[0] for name in loaded}
    assert top & {*HEAVY, *OURS} == set()
    foreign = top - set(sys.stdlib_module_names) - {"edge_runtime", "numpy", "tomli"}
    assert {n for n in foreign if not n.startswith(("_", "sitecustomize", "usercustomize", "apport"))} == set()


def test_every_module_loads_where_no_extra_is_installed() -> None:
    program = f"""
import importlib, pkgutil, sys
for name in {(*HEAVY, *OURS)!r}:
    sys.modules[name] = None
import edge_runtime
for found in pkgutil.walk_packages(edge_runtime.__path__, "edge_runtime."):
    if not found.name.startswith(("edge_runtime.cli", "edge_runtime.__main__")):  # they say that click is missing
        importlib.import_module(found.name)
        print(found.name)
"""
    assert len(fresh(program).split()) > 30
