"""Fuzz the loader of bundles with atheris (pip install atheris):

    python tests/fuzz/fuzz_bundle.py recipe|arrays|packed|manifest|archive [-max_total_time=60] [CORPUS_FOLDER]

It stops with a traceback at the first input that gives anything but a value or a BundleError.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["edge_runtime"]):
    import bundle_targets


def main() -> None:
    """Choose the target by the first argument; libFuzzer reads the others."""
    target = sys.argv.pop(1)
    root = Path(tempfile.mkdtemp())
    corpus = root / "corpus"
    corpus.mkdir()
    for index, content in enumerate(bundle_targets.seeds()[target]):
        (corpus / str(index)).write_bytes(content)

    def one(content: bytes) -> None:
        folder = root / "case"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        (folder / "weights.npz").write_bytes(b"")
        bundle_targets.run(target, content, folder)

    atheris.Setup([*sys.argv, str(corpus)], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
