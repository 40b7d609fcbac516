"""Picture sources, splits and the deployment resize."""

from __future__ import annotations

import pickle
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from shape_pictures import CLASSES, write_tree, zip_tree

from zoo.pictures import DataError, PictureSource, centre_square, evaluation_batch, resize_rgb


@pytest.mark.parametrize("top", ["", "shapes/", "./"])
def test_a_zip_gives_the_same_pictures_as_its_folder(shapes_folder: Path, tmp_path: Path, top: str) -> None:
    folder = PictureSource(shapes_folder)
    archive = PictureSource(zip_tree(shapes_folder, tmp_path / "shapes.zip", top))
    assert archive.classes == folder.classes == list(CLASSES)
    splits = [source.splits(6, 6) for source in (folder, archive)]
    for name in splits[0]:
        ours, theirs = (s[name] for s in splits)
        assert [top + n for n in ours.names] == list(theirs.names)
        assert ours.labels.tolist() == theirs.labels.tolist()
        batches = [evaluation_batch(source, split.names, 16) for source, split in ((folder, ours), (archive, theirs))]
        assert np.array_equal(*batches)


def test_pictures_are_decoded_as_rgb(tmp_path: Path) -> None:
    (tmp_path / "red").mkdir()
    cv2.imwrite(str(tmp_path / "red" / "1.png"), np.full((4, 6, 3), (0, 10, 200), np.uint8))  # OpenCV writes BGR
    picture = PictureSource(tmp_path).picture("red/1.png")
    assert picture.shape == (4, 6, 3)
    assert picture[0, 0].tolist() == [200, 10, 0]


@pytest.mark.parametrize("cache_bytes", [0, 5000, 1 << 30])
def test_the_cache_changes_nothing_but_keeps_its_limit(shapes_folder: Path, cache_bytes: int) -> None:
    source, plain = PictureSource(shapes_folder, cache_bytes), PictureSource(shapes_folder, 0)
    for name in source.names[:10] * 2:
        assert np.array_equal(source.picture(name), plain.picture(name))
    held = sum(p.nbytes for p in source._cache.values())
    assert held <= cache_bytes
    assert (held > 0) == (cache_bytes > 0)


def test_a_source_can_be_sent_to_another_process(shapes_folder: Path, tmp_path: Path) -> None:
    source = PictureSource(zip_tree(shapes_folder, tmp_path / "shapes.zip"))
    name = source.names[0]
    picture = source.picture(name)
    assert np.array_equal(pickle.loads(pickle.dumps(source)).picture(name), picture)


def test_splits_are_disjoint_complete_stratified_and_reproducible(shapes_folder: Path) -> None:
    source = PictureSource(shapes_folder)
    splits = source.splits(calib=9, select=12)
    assert {name: len(split) for name, split in splits.items()} == {"calib": 9, "select": 12, "train": 27, "test": 12}
    names = [n for split in splits.values() for n in split.names]
    assert sorted(names) == source.names
    for split in splits.values():
        assert set(Counter(split.labels.tolist()).values()) == {len(split) // 3}
        assert [source.classes[label] for label in split.labels] == [n.split("/")[-2] for n in split.names]
    again = PictureSource(shapes_folder).splits(calib=9, select=12)
    assert all(again[name].names == split.names for name, split in splits.items())
    assert source.splits(9, 12, seed=1)["calib"].names != splits["calib"].names


def test_an_unbalanced_source_is_split_in_proportion(tmp_path: Path) -> None:
    write_tree(tmp_path, train_per_class=20, test_per_class=1)
    for index in range(10):
        (tmp_path / "train" / "square" / f"{index:03d}.png").unlink()
    splits = PictureSource(tmp_path).splits(calib=10, select=10)
    for name in ("calib", "select"):
        assert Counter(splits[name].labels.tolist()) == {0: 4, 1: 2, 2: 4}


def test_a_tree_without_a_train_folder_is_all_training(shapes_folder: Path) -> None:
    source = PictureSource(shapes_folder / "train")
    splits = source.splits(3, 3)
    assert "test" not in splits
    assert sum(map(len, splits.values())) == 48


def test_hidden_files_and_an_archivers_leftovers_are_not_pictures(shapes_folder: Path, tmp_path: Path) -> None:
    path = zip_tree(shapes_folder, tmp_path / "shapes.zip")
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("__MACOSX/train/disc/._000.png", "train/disc/._001.png", "train/.thumbs/disc/000.png", "a.png"):
            archive.writestr(name, b"not a picture")
    assert PictureSource(path).names == PictureSource(shapes_folder).names


def _no_path(root: Path) -> str:
    return str(root / "missing")


def _empty(root: Path) -> str:
    return str(root)


def _not_a_zip(root: Path) -> str:
    (root / "a.zip").write_bytes(b"PK not really")
    return str(root / "a.zip")


def _text_only(root: Path) -> str:
    (root / "train").mkdir()
    (root / "train" / "read.me").write_text("pictures elsewhere")
    return str(root)


@pytest.mark.parametrize("make", [_no_path, _empty, _not_a_zip, _text_only])
def test_a_source_without_pictures_says_what_it_expected(tmp_path: Path, make: Callable[[Path], str]) -> None:
    path = make(tmp_path)
    with pytest.raises(DataError, match="expected") as caught:
        PictureSource(path)
    assert str(caught.value).startswith(path)


@pytest.mark.parametrize("content", [b"", b"not a picture", b"\x89PNG\r\n\x1a\n" + b"\0" * 40])
@pytest.mark.parametrize("zipped", [False, True])
def test_a_broken_picture_is_named(shapes_folder: Path, tmp_path: Path, content: bytes, zipped: bool) -> None:
    root = shutil.copytree(shapes_folder, tmp_path / "tree")
    (root / "train" / "disc" / "bad.png").write_bytes(content)
    source = PictureSource(zip_tree(root, tmp_path / "tree.zip") if zipped else root)
    with pytest.raises(DataError, match=r"train/disc/bad\.png is not a readable picture"):
        source.picture("train/disc/bad.png")


def test_a_damaged_archive_names_the_picture(shapes_folder: Path, tmp_path: Path) -> None:
    path = zip_tree(shapes_folder, tmp_path / "shapes.zip")
    source = PictureSource(path)
    with zipfile.ZipFile(path) as archive:
        start = archive.getinfo("train/disc/000.png").header_offset + 60
    content = bytearray(path.read_bytes())
    content[start : start + 20] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train/disc/000\.png is not a readable picture"):
        PictureSource(path).picture("train/disc/000.png")
    assert source.classes == list(CLASSES)


def test_a_picture_that_vanished_is_named(shapes_folder: Path, tmp_path: Path) -> None:
    root = shutil.copytree(shapes_folder, tmp_path / "tree")
    source = PictureSource(root)
    (root / "train" / "disc" / "000.png").unlink()
    with pytest.raises(DataError, match=r"train/disc/000\.png"):
        source.picture("train/disc/000.png")


@pytest.mark.parametrize(("calib", "select"), [(24, 24), (48, 0), (-1, 3)])
def test_splits_that_the_source_cannot_give_are_refused(shapes_folder: Path, calib: int, select: int) -> None:
    with pytest.raises(DataError, match=rf"{calib} for calib and {select} for select"):
        PictureSource(shapes_folder).splits(calib, select)


def test_a_class_without_training_pictures_is_named(shapes_folder: Path, tmp_path: Path) -> None:
    root = shutil.copytree(shapes_folder, tmp_path / "tree")
    shutil.rmtree(root / "train" / "square")
    with pytest.raises(DataError, match="'square' has no training pictures"):
        PictureSource(root).splits(3, 3)


def test_the_resize_averages_when_shrinking_and_interpolates_when_growing() -> None:
    checkers = (np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    assert abs(int(resize_rgb(checkers, (4, 4)).mean()) - 127) <= 1
    assert resize_rgb(checkers, (4, 4)).std() < 1  # every pixel is the mean of its four
    ramp = np.arange(4, dtype=np.uint8)[None, :, None].repeat(2, 0).repeat(3, 2) * 60
    assert np.all(np.diff(resize_rgb(ramp, (2, 16))[0, :, 0].astype(int)) >= 0)
    assert resize_rgb(ramp, (2, 4)) is ramp


def test_evaluation_takes_the_centre_square(tmp_path: Path) -> None:
    wide = np.zeros((4, 10, 3), np.uint8)
    wide[:, 3:7] = 200
    assert centre_square(wide).shape == (4, 4, 3)
    assert centre_square(wide).min() == 200
    assert centre_square(wide.transpose(1, 0, 2)).min() == 200
