"""Labelled pictures from an ImageFolder tree or a zip of one, their splits, and the resize that deployment uses."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from zoo.slim_net import Size

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
TEST_FOLDERS = ("test", "val", "validation")


class DataError(ValueError):
    """A picture, folder or archive that cannot be used; the message says which and what to do."""


@dataclass(frozen=True)
class Split:
    """Pictures of one purpose: names inside the source, and the label of each."""

    names: tuple[str, ...]
    labels: np.ndarray
    """(pictures,) int64, index into the class names."""

    def __len__(self) -> int:
        return len(self.names)


class PictureSource:
    """An ImageFolder tree (`train/<class>/*.jpg`, `test/<class>/*.jpg`, or `<class>/*.jpg`) or a zip of one.

    Decoded pictures are kept in memory while they fit in `cache_bytes`. Without `labelled`, pictures may lie in any
    folder or none, and there are no classes.
    """

    suffixes = SUFFIXES
    contents, layout = "pictures", "train/<class>/*.jpg or <class>/*.jpg"
    """What the files are, in messages."""

    def __init__(self, root: str | Path, cache_bytes: int = 2 << 30, *, labelled: bool = True) -> None:
        self.root = Path(root)
        self._zip: zipfile.ZipFile | None = None
        if self.root.is_dir():
            files = (p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file())
            self.names = sorted(files)
        elif zipfile.is_zipfile(self.root):
            self._zip = zipfile.ZipFile(self.root)
            self.names = sorted(self._zip.namelist())
        else:
            raise DataError(f"{self.root}: expected a folder of {self.contents} or a zip of one; check the path")
        self.names = [n for n in self.names if self._is_wanted(n) and (n.count("/") > 0 or not labelled)]
        if not self.names:
            layout = self.layout if labelled else "*.jpg or *.png"
            raise DataError(f"{self.root}: no {self.contents} found; expected {layout}")
        self.classes = sorted({n.split("/")[-2] for n in self.names}) if labelled else []
        self._cache: dict[str, np.ndarray] = {}
        self._cache_left = cache_bytes

    def __getstate__(self) -> dict[str, object]:
        """Worker processes reopen the archive and cache on their own."""
        return {**self.__dict__, "_zip": None, "_cache": {}}

    def picture(self, name: str) -> np.ndarray:
        """Decode one picture: (H, W, 3) uint8 RGB; do not write into it, it may be cached."""
        found = self._cache.get(name)
        if found is not None:
            return found
        rgb = decode_rgb(self.root, name, self._read)
        if rgb.nbytes <= self._cache_left:
            self._cache[name] = rgb
            self._cache_left -= rgb.nbytes
        return rgb

    def _read(self, name: str) -> bytes:
        if self.root.is_dir():
            return (self.root / name).read_bytes()
        if self._zip is None:
            self._zip = zipfile.ZipFile(self.root)
        return self._zip.read(name)

    def _is_wanted(self, name: str) -> bool:
        """By its name; hidden files and what archivers leave behind are not."""
        hidden = any(part.startswith((".", "__MACOSX")) and part != "." for part in name.split("/"))
        return not hidden and name.lower().endswith(self.suffixes)

    def _part(self, folders: Sequence[str]) -> list[str]:
        return [n for n in self.names if len(n.split("/")) > 2 and n.split("/")[-3] in folders]

    def _split(self, names: Sequence[str]) -> Split:
        index = {name: position for position, name in enumerate(self.classes)}
        return Split(tuple(names), np.array([index[n.split("/")[-2]] for n in names], np.int64))

    def splits(self, calib: int = 500, select: int = 500, seed: int = 0) -> dict[str, Split]:
        """Cut the training pictures into train, calib and select, class by class, with a fixed seed.

        Args:
            calib: pictures for normalisation statistics and activation ranges.
            select: pictures for the query table, thresholds and every other choice.
            seed: of the cut; it is part of a checkpoint's provenance.
        Returns:
            "train", "calib", "select" and, where the source has a test folder (TEST_FOLDERS, all of them together),
            "test".
        Raises:
            DataError: too few pictures, or a class without any.
        """
        test = self._part(TEST_FOLDERS)
        pool = self._split(self._part(["train"]) or [n for n in self.names if n not in set(test)])
        if min(calib, select) < 0 or len(pool) <= calib + select:
            raise DataError(
                f"{self.root}: {len(pool)} training {self.contents} cannot give {calib} for calib and {select} for "
                f"select; ask for fewer or add {self.contents}"
            )
        for label, name in enumerate(self.classes):
            if not np.any(pool.labels == label):
                raise DataError(
                    f"{self.root}: class {name!r} has no training {self.contents}; add some or remove its folder"
                )
        order = np.random.default_rng(seed).permutation(len(pool))
        rank = np.empty(len(pool))  # position of each picture within its class, as a share of the class
        for label in range(len(self.classes)):
            members = order[pool.labels[order] == label]
            rank[members] = (np.arange(len(members)) + 0.5) / max(1, len(members))
        order = order[np.argsort(rank[order], kind="stable")]
        parts = {"calib": order[:calib], "select": order[calib : calib + select], "train": order[calib + select :]}
        found = {name: self._split([pool.names[i] for i in sorted(rows)]) for name, rows in parts.items()}
        if test:
            found["test"] = self._split(test)
        return found


def decode_rgb(root: Path, name: str, read: Callable[[str], bytes]) -> np.ndarray:
    """One picture, (H, W, 3) uint8 RGB.

    Args:
        root: folder or archive, for the message.
        read: name -> content.
    Raises:
        DataError: it cannot be read or is broken.
    """
    try:
        bgr = cv2.imdecode(np.frombuffer(read(name), np.uint8), cv2.IMREAD_COLOR)
    except (OSError, KeyError, zipfile.BadZipFile, zlib.error, cv2.error) as error:
        raise DataError(f"{root}: {name} is not a readable picture; remove or replace it") from error
    if bgr is None:
        raise DataError(f"{root}: {name} is not a readable picture; remove or replace it")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def resize_rgb(picture: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """The deployment resize: area averaging when shrinking, bilinear otherwise.

    Must equal edge_runtime.preprocess.resize_rgb, which a test compares.

    Args:
        picture: (H, W, 3) uint8 RGB, or a clip (T, H, W, 3).
        size_hw: rows and columns of the result.
    Returns:
        (rows, columns, 3) uint8 RGB, or a clip of it; the picture itself when it has that size already.
    """
    height, width = picture.shape[-3:-1]
    if (height, width) == tuple(size_hw):
        return picture
    if picture.ndim == 4:
        return np.stack([resize_rgb(frame, size_hw) for frame in picture])
    shrinks = size_hw[0] <= height and size_hw[1] <= width
    return cv2.resize(picture, (size_hw[1], size_hw[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def centre_square(picture: np.ndarray) -> np.ndarray:
    """The largest centred square of a picture (H, W, 3) or of the frames of a clip (T, H, W, 3), a view."""
    height, width = picture.shape[-3:-1]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return picture[..., top : top + side, left : left + side, :]


def chosen_frames(have: int, wanted: int) -> list[int]:
    """Which frames of a clip a network of fewer frames reads: evenly, over the same time, the newest among them.

    Must equal edge_runtime.preprocess.chosen_frames, which a test compares.

    Args:
        have: frames of the clip.
        wanted: at most `have`.
    """
    return [have - 1 - (k * have) // wanted for k in reversed(range(wanted))]


def at_size(picture: np.ndarray, size: Size) -> np.ndarray:
    """A picture, or a clip with fewer frames too, by the deployment resize: (side, side, 3) or (frames, h, w, 3).

    Args:
        picture: (H, W, 3) uint8 RGB, or a clip (T, H, W, 3) of at least the wanted frames.
        size: pixels of a square picture, or (frames, height, width).
    """
    if isinstance(size, int):
        return resize_rgb(picture, (size, size))
    if len(picture) != size[0]:
        picture = picture[chosen_frames(len(picture), size[0])]
    return resize_rgb(picture, (size[1], size[2]))


def evaluation_batch(source: PictureSource, names: Sequence[str], size: Size) -> np.ndarray:
    """Pictures or clips as deployment sees them: centre square, deployment resize.

    Args:
        size: pixels of a square picture, or (frames, height, width) of a clip.
    Returns:
        (pictures, side, side, 3) uint8 RGB; of clips (clips, frames, height, width, 3).
    """
    return np.stack([at_size(centre_square(source.picture(n)), size) for n in names])
