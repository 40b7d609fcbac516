"""The files of a bundle: paths that stay inside, hashes, transport as a zip."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import stat
import zipfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from edge_runtime.errors import BundleError, SinkError

MAX_FILES = 10_000
MAX_TOTAL_BYTES = 8 << 30
MAX_EXPANSION = 64
"""A transport zip may grow this much: weights hardly shrink, and JSON shrinks about tenfold."""
CHUNK_BYTES = 1 << 20
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class FileFact:
    """What the manifest says of one file."""

    sha256: str
    size_bytes: int

    def __post_init__(self) -> None:
        if len(self.sha256) != 64 or set(self.sha256) - set("0123456789abcdef"):
            raise ValueError(f"sha256 is {self.sha256[:80]!r}, expected 64 lower-case hexadecimal digits")
        if not 0 <= self.size_bytes <= MAX_TOTAL_BYTES:
            raise ValueError(f"size_bytes is {self.size_bytes}, expected 0 to {MAX_TOTAL_BYTES}")


def inner_path(root: Path, name: str) -> Path:
    """The file `name` inside the bundle.

    Raises:
        BundleError: the name is absolute, leaves the folder, or passes through a link.
    """
    parts = PurePosixPath(name).parts
    plain = "\\" not in name and ":" not in name and "\0" not in name
    if not parts or not plain or PurePosixPath(name).is_absolute() or any(p in ("..", ".") for p in parts):
        raise BundleError(f"{root}: file name {name[:200]!r} leaves the bundle; it is not safe to use this bundle")
    path = root
    for part in parts:
        path = path / part
        if os.path.islink(path):
            raise BundleError(f"{root}: {name!r} passes through a link, expected plain files; make the bundle again")
    return path


def require_listed(root: Path, name: str, facts: dict[str, FileFact]) -> None:
    """Refuse a file that the manifest uses without stating its size and hash.

    Raises:
        BundleError: it is not listed.
    """
    if name not in facts:
        raise BundleError(f"{root}: {name[:200]!r} is used but not listed under files; make the bundle again")


def read_verified(root: Path, name: str, facts: dict[str, FileFact]) -> bytes:
    """Read a file whose size and hash the manifest states; the bytes returned are the bytes that were checked.

    Raises:
        BundleError: not listed, missing, of another size, or altered.
    """
    require_listed(root, name, facts)
    path, fact = inner_path(root, name), facts[name]
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise BundleError(f"{root}: {name!r} is not a plain file; make the bundle again")
        with path.open("rb") as stream:
            content = stream.read(fact.size_bytes + 1)
    except FileNotFoundError as error:
        raise BundleError(f"{root}: {name!r} is missing; copy the bundle again") from error
    except OSError as error:
        raise BundleError(f"{root}: {name!r} cannot be read: {error.strerror}") from error
    if len(content) != fact.size_bytes:
        raise BundleError(f"{root}: {name!r} is not {fact.size_bytes} bytes long as the manifest says; copy it again")
    if hashlib.sha256(content).hexdigest() != fact.sha256:
        raise BundleError(
            f"{root}: {name!r} was altered (its SHA-256 differs from the manifest); copy the bundle again"
        )
    return content


def file_facts(root: Path) -> dict[str, FileFact]:
    """Hash every file of a folder except the manifest."""
    facts = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_file() and name not in (MANIFEST, MANIFEST + ".sig"):
            content = path.read_bytes()
            facts[name] = FileFact(hashlib.sha256(content).hexdigest(), len(content))
    return facts


def zip_bundle(root: Path, target: Path) -> None:
    """Pack a bundle folder for transport.

    Raises:
        BundleError: the folder holds a link.
        SinkError: the zip cannot be written; nothing is left behind.
    """
    paths = sorted(root.rglob("*"))
    for path in paths:
        if path.is_symlink():
            raise BundleError(f"{path}: is a link, expected plain files; make the bundle again")
    temporary = target.with_name(target.name + ".part")
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
            for path in paths:
                if path.is_file():
                    archive.write(path, path.relative_to(root).as_posix())
        os.replace(temporary, target)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise SinkError(f"{target}: cannot be written: {error.strerror}; choose another path") from error


def unzip_bundle(archive_path: Path, target: Path) -> Path:
    """Unpack a transport zip into a new folder, with the checks of loading.

    Args:
        target: a folder that does not exist yet.
    Raises:
        BundleError: not a zip, entries outside the folder, links, too many or too large files; nothing is left behind.
    """
    if target.exists():
        raise BundleError(f"{target}: already exists; choose another folder or remove it")
    temporary = target.with_name(target.name + ".part")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        with zipfile.ZipFile(archive_path) as archive:
            _check_entries(archive, archive_path)
            temporary.mkdir(parents=True)
            for entry in archive.infolist():
                if not entry.is_dir():
                    _extract(archive, entry, inner_path(temporary, entry.filename))
        os.replace(temporary, target)
    except BundleError:
        raise
    except Exception as error:  # zipfile and its decompressors raise many kinds for a broken file
        raise BundleError(f"{archive_path}: cannot be unpacked: {error or type(error).__name__}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def _check_entries(archive: zipfile.ZipFile, path: Path) -> None:
    entries = archive.infolist()
    total = sum(e.file_size for e in entries)
    allowed = min(MAX_TOTAL_BYTES, MAX_EXPANSION * max(1 << 20, path.stat().st_size))
    if len(entries) > MAX_FILES or total > allowed:
        raise BundleError(f"{path}: {len(entries)} files of {total} bytes, more than a bundle may hold")
    if len({entry.filename for entry in entries}) < len(entries):
        raise BundleError(f"{path}: holds one name twice; pack the bundle again")
    for entry in entries:
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise BundleError(f"{path}: {entry.filename[:200]!r} is a link, expected plain files")


def _extract(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    left = entry.file_size
    with archive.open(entry) as source, path.open("wb") as out:
        while chunk := source.read(CHUNK_BYTES):
            left -= len(chunk)
            if left < 0:
                raise BundleError(f"{archive.filename}: {entry.filename!r} is larger than it says")
            out.write(chunk)
    if left:
        raise BundleError(f"{archive.filename}: {entry.filename!r} is smaller than it says")
