"""Signatures of bundles."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_runtime.errors import BundleError, EdgeRuntimeError
from edge_runtime.signature import make_keys, require_signature, sign_bundle

pytest.importorskip("cryptography")


@pytest.fixture
def signed(tmp_path: Path) -> tuple[Path, Path]:
    """A folder with a signed manifest, and the public key."""
    root = tmp_path / "a.bundle"
    root.mkdir()
    (root / "manifest.json").write_text("{}")
    private, public = make_keys(tmp_path, "maker")
    sign_bundle(root, private)
    return root, public


def test_a_signed_bundle_is_accepted(signed: tuple[Path, Path]) -> None:
    require_signature(*signed)


def test_an_altered_manifest_is_refused(signed: tuple[Path, Path]) -> None:
    root, public = signed
    (root / "manifest.json").write_text("{ }")
    with pytest.raises(BundleError, match="altered"):
        require_signature(root, public)


def test_another_keys_signature_is_refused(signed: tuple[Path, Path], tmp_path: Path) -> None:
    _, stranger = make_keys(tmp_path, "stranger")
    with pytest.raises(BundleError, match="not by stranger"):
        require_signature(signed[0], stranger)


def test_a_missing_signature_is_refused(signed: tuple[Path, Path]) -> None:
    root, public = signed
    (root / "manifest.json.sig").unlink()
    with pytest.raises(BundleError, match="is not signed"):
        require_signature(root, public)


def test_a_signature_that_is_a_link_is_refused(signed: tuple[Path, Path], tmp_path: Path) -> None:
    root, public = signed
    (root / "manifest.json.sig").rename(tmp_path / "elsewhere.sig")
    (root / "manifest.json.sig").symlink_to(tmp_path / "elsewhere.sig")
    with pytest.raises(BundleError, match="is not signed"):
        require_signature(root, public)


def test_a_key_is_never_overwritten(signed: tuple[Path, Path], tmp_path: Path) -> None:
    before = (tmp_path / "maker.private.pem").read_bytes()
    with pytest.raises(EdgeRuntimeError, match="already exists"):
        make_keys(tmp_path, "maker")
    assert (tmp_path / "maker.private.pem").read_bytes() == before


def test_the_private_key_is_for_its_owner_only(signed: tuple[Path, Path], tmp_path: Path) -> None:
    assert (tmp_path / "maker.private.pem").stat().st_mode & 0o077 == 0


def test_what_is_no_key_gives_one_sentence(signed: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "not.pem").write_text("nonsense")
    with pytest.raises(EdgeRuntimeError, match="not a key in PEM form"):
        require_signature(signed[0], tmp_path / "not.pem")
