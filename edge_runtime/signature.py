"""Ed25519 signatures of a bundle: the manifest is signed, and it holds the hash of every other file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edge_runtime.bundle_files import MANIFEST
from edge_runtime.errors import BundleError, EdgeRuntimeError, missing_package

SIGNATURE = MANIFEST + ".sig"
SIGNATURE_BYTES = 64


def make_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """A new pair of key files, NAME.private.pem (readable by its owner only) and NAME.public.pem.

    Raises:
        EdgeRuntimeError: one of them exists already, or cannot be written.
    """
    keys, serialization = _cryptography()
    private_path, public_path = folder / f"{name}.private.pem", folder / f"{name}.public.pem"
    for path in (private_path, public_path):
        if path.exists():
            raise EdgeRuntimeError(f"{path}: already exists; choose another name")
    private = keys.Ed25519PrivateKey.generate()
    pem = serialization.Encoding.PEM
    private_bytes = private.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public_format = serialization.PublicFormat.SubjectPublicKeyInfo
    try:
        private_path.touch(mode=0o600)
        private_path.write_bytes(private_bytes)
        public_path.write_bytes(private.public_key().public_bytes(pem, public_format))
    except OSError as error:
        raise EdgeRuntimeError(f"{folder}: keys cannot be written: {error.strerror}") from error
    return private_path, public_path


def sign_bundle(root: Path, private_key: Path) -> Path:
    """Write manifest.json.sig.

    Raises:
        EdgeRuntimeError: the key cannot be used.
    """
    keys, serialization = _cryptography()
    key = _read_key(private_key, lambda content: serialization.load_pem_private_key(content, None))
    if not isinstance(key, keys.Ed25519PrivateKey):
        raise EdgeRuntimeError(f"{private_key}: not an Ed25519 private key; make one with edge-runtime keys")
    path = root / SIGNATURE
    path.write_bytes(key.sign((root / MANIFEST).read_bytes()))
    return path


def require_signature(root: Path, public_key: Path) -> None:
    """Check that the manifest was signed with the key that belongs to `public_key`.

    Raises:
        BundleError: no signature, another key's, or an altered manifest.
        EdgeRuntimeError: the key cannot be used.
    """
    keys, serialization = _cryptography()
    key = _read_key(public_key, serialization.load_pem_public_key)
    if not isinstance(key, keys.Ed25519PublicKey):
        raise EdgeRuntimeError(f"{public_key}: not an Ed25519 public key")
    from cryptography.exceptions import InvalidSignature

    path = root / SIGNATURE
    if path.is_symlink() or not path.is_file():
        raise BundleError(f"{root}: is not signed, and a signature is required; ask whoever made it for a signed one")
    with path.open("rb") as stream:
        signature = stream.read(SIGNATURE_BYTES + 1)
    try:
        key.verify(signature, (root / MANIFEST).read_bytes())
    except InvalidSignature as error:
        raise BundleError(
            f"{root}: the signature is not by {public_key.name}'s owner, or the manifest was altered; do not use it"
        ) from error


def _read_key(path: Path, parse: Any) -> Any:
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise EdgeRuntimeError(f"{path}: the key cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise EdgeRuntimeError(f"{path}: not a key in PEM form without a password") from error


def _cryptography() -> tuple[Any, Any]:
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise missing_package("cryptography", "sign", "sign bundles and check signatures") from error
    return ed25519, serialization
