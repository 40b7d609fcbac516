"""Transport zips: a bundle survives the round trip, and hostile archives are refused and leave nothing behind."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from pathlib import Path

import pytest
from bundles import everything_under, write_bundle
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime import bundle_files
from edge_runtime.bundle import Bundle
from edge_runtime.bundle_files import unzip_bundle, zip_bundle
from edge_runtime.errors import BundleError, SinkError


def test_a_bundle_survives_the_round_trip(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "a.bundle")
    zip_bundle(root, tmp_path / "a.zip")
    again = unzip_bundle(tmp_path / "a.zip", tmp_path / "b.bundle")
    assert again == tmp_path / "b.bundle"
    assert Bundle.load(again).manifest == Bundle.load(root).manifest
    assert everything_under(root) == everything_under(again)
    assert everything_under(tmp_path) & {"a.zip.part", "b.bundle.part"} == set()


def test_a_folder_with_a_link_is_not_packed(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "a.bundle")
    (root / "extra").symlink_to("/etc/passwd")
    with pytest.raises(BundleError, match="is a link"):
        zip_bundle(root, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_packing_where_nothing_can_be_written_says_so(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "a.bundle")
    with pytest.raises(SinkError, match=r"absent/a.zip: cannot be written: No such file or directory"):
        zip_bundle(root, tmp_path / "absent" / "a.zip")


def test_a_zip_packed_into_the_folder_itself_ends(tmp_path: Path) -> None:
    root = write_bundle(tmp_path / "a.bundle")
    zip_bundle(root, root / "a.zip")
    assert "a.zip.part" not in zipfile.ZipFile(root / "a.zip").namelist()


def archive_of(path: Path, *members: tuple[str | zipfile.ZipInfo, bytes], deflated: bool = False) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED if deflated else zipfile.ZIP_STORED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return path


def refusal(archive: Path) -> str:
    """Why unpacking is refused; nothing may be left of it."""
    before = everything_under(archive.parent)
    with pytest.raises(BundleError) as caught:
        unzip_bundle(archive, archive.parent / "new.bundle")
    assert everything_under(archive.parent) == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "a/../../evil", "a\\..\\evil", "C:evil", "a/./../evil", ".."])
def test_a_name_outside_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("x")
    entry.filename = name  # the constructor would clean it
    assert "leaves the bundle" in refusal(archive_of(tmp_path / "a.zip", ("good", b"x"), (entry, b"evil")))
    assert not (tmp_path / "evil").exists()


def test_a_link_is_refused(tmp_path: Path) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    assert "'link' is a link, expected plain files" in refusal(archive_of(tmp_path / "a.zip", (entry, b"/etc/passwd")))


def test_a_bomb_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", ("bomb", b"\0" * (70 << 20)), deflated=True)
    assert archive.stat().st_size < 1 << 20
    assert "more than a bundle may hold" in refusal(archive)


def test_too_many_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_files, "MAX_FILES", 3)
    archive = archive_of(tmp_path / "a.zip", *((f"f{i}", b"") for i in range(4)))
    assert "4 files of 0 bytes, more than a bundle may hold" in refusal(archive)


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = archive_of(tmp_path / "a.zip", ("a", b"1"), ("a", b"2"))
    assert "holds one name twice" in refusal(archive)


def test_a_file_that_is_also_a_folder_is_refused(tmp_path: Path) -> None:
    assert "cannot be unpacked" in refusal(archive_of(tmp_path / "a.zip", ("a", b"1"), ("a/b", b"2")))


@pytest.mark.parametrize("stated", [1, 100])
def test_a_wrong_length_is_refused(stated: int, tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", ("a", b"0123456789" * 5))
    content = bytearray(archive.read_bytes())
    at = content.find(b"PK\x01\x02")
    content[at + 24 : at + 28] = stated.to_bytes(4, "little")  # the directory's uncompressed size
    archive.write_bytes(content)
    refusal(archive)


def test_a_damaged_stream_is_refused(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", ("a", os.urandom(100) + b"\0" * 1000), deflated=True)
    content = bytearray(archive.read_bytes())
    content[40:60] = b"\xff" * 20
    archive.write_bytes(content)
    assert "cannot be unpacked" in refusal(archive)


def test_what_is_no_zip_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no zip")
    assert "cannot be unpacked: File is not a zip file" in refusal(tmp_path / "a.zip")
    assert "No such file" in refusal(tmp_path / "absent.zip")


def test_an_existing_target_is_kept(tmp_path: Path) -> None:
    archive = archive_of(tmp_path / "a.zip", ("a", b"1"))
    (tmp_path / "b.bundle").mkdir()
    (tmp_path / "b.bundle" / "mine").write_text("kept")
    with pytest.raises(BundleError, match="already exists; choose another folder or remove it"):
        unzip_bundle(archive, tmp_path / "b.bundle")
    assert everything_under(tmp_path / "b.bundle") == {"mine"}


GOOD = io.BytesIO()
with zipfile.ZipFile(GOOD, "w", zipfile.ZIP_DEFLATED) as _archive:
    _archive.writestr("manifest.json", b"{}" * 40)
    _archive.writestr("programs/a", b"abc" * 30)


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 255)), min_size=1, max_size=4))
def test_any_damage_gives_a_folder_or_a_bundle_error(
    tmp_path_factory: pytest.TempPathFactory, edits: list[tuple[int, int]]
) -> None:
    content = bytearray(GOOD.getvalue())
    for at, value in edits:
        content[at % len(content)] = value
    folder = tmp_path_factory.mktemp("zip")
    (folder / "a.zip").write_bytes(content)
    try:
        unzip_bundle(folder / "a.zip", folder / "in" / "a.bundle")
    except BundleError:
        assert everything_under(folder) <= {"a.zip", "in"}
