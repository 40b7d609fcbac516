"""A user's labelled pictures, as a tree of class folders or flat with answers, zipped or not; and their splits."""

from __future__ import annotations

import csv
import difflib
import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zoo.pictures import SUFFIXES, TEST_FOLDERS, DataError, Split, decode_rgb

SPLITS = ("calib", "select", "test")
CALIB_PICTURES, CALIB_SHARE = 128, 0.2
FEWEST = 8
CACHE_BYTES = 1 << 30


class PictureFiles:
    """The pictures of a folder or a zip, in alphabetical order; decoded ones are kept while they fit in the cache."""

    def __init__(self, root: str | Path, cache_bytes: int = CACHE_BYTES) -> None:
        self.root = Path(root)
        self._zip: zipfile.ZipFile | None = None
        if self.root.is_dir():
            found = [p.relative_to(self.root).as_posix() for p in self.root.rglob("*") if p.is_file()]
        elif zipfile.is_zipfile(self.root):
            self._zip = zipfile.ZipFile(self.root)
            found = self._zip.namelist()
        else:
            raise DataError(f"{self.root}: expected a folder of pictures or a zip of one; check the path")
        self.names = sorted(n for n in found if _is_picture(n))
        if not self.names:
            raise DataError(f"{self.root}: no pictures found; expected {', '.join(SUFFIXES)}")
        self._cache: dict[str, np.ndarray] = {}
        self._cache_left = cache_bytes

    def picture(self, name: str) -> np.ndarray:
        """(H, W, 3) uint8 RGB; do not write into it.

        Raises:
            DataError: it is broken.
        """
        if name in self._cache:
            return self._cache[name]
        rgb = decode_rgb(self.root, name, self._content)
        if rgb.nbytes <= self._cache_left:
            self._cache[name] = rgb
            self._cache_left -= rgb.nbytes
        return rgb

    def _content(self, name: str) -> bytes:
        return (self.root / name).read_bytes() if self._zip is None else self._zip.read(name)

    def several(self, names: Sequence[str]) -> Pictures:
        """Pictures that are decoded while one goes through them."""
        return Pictures(self, tuple(names))


@dataclass(frozen=True)
class Pictures:
    """Some pictures of a source; decoded one by one, so that they need not fit in memory."""

    source: PictureFiles
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self.source.picture(name) for name in self.names)


def read_labels(path: Path) -> tuple[str, ...]:
    """One label a line, in the order of the model's outputs.

    Raises:
        DataError: unreadable or empty.
    """
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a text of labels: {error}") from error
    labels = tuple(line for line in lines if line)
    if len(labels) < 2:
        raise DataError(f"{path}: holds {len(labels)} labels, expected one a line in the order of the model's outputs")
    return labels


def read_answers(path: Path) -> dict[str, str]:
    """Picture -> label or index, from a CSV of two columns; a first line "file,label" is allowed.

    Raises:
        DataError: unreadable, or a row of another form.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            rows = [row for row in csv.reader(stream) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: cannot be read as CSV: {error}") from error
    for number, row in enumerate(rows, 1):
        if len(row) != 2:
            raise DataError(f"{path}: line {number} has {len(row)} columns, expected picture,label")
    pairs = {row[0].strip(): row[1].strip() for row in rows}
    if rows and not rows[0][0].strip().lower().endswith(SUFFIXES):
        del pairs[rows[0][0].strip()]
    return pairs


def label_pictures(source: PictureFiles, labels: tuple[str, ...], answers: dict[str, str] | None = None) -> Split:
    """The class of each picture: from the answers, else from its folder, else from a number that its name begins with.

    Raises:
        DataError: a picture without a class, or one that is none of the labels.
    """
    index = _LabelIndex(labels)
    flat = not any("/" in name for name in source.names)
    names, classes = [], []
    for name in source.names:
        if answers is not None:
            said = answers.get(name, answers.get(name.split("/")[-1]))
            if said is None:
                raise DataError(f"{source.root}: {name} has no answer; add it to the CSV of --answers, or remove it")
        elif flat:
            number = re.match(r"(\d+)(?=[_.\- ])", name)
            if number is None:
                raise DataError(
                    f"{source.root}: {name} has no class; put pictures into class folders, give --answers, or begin "
                    "each name with the number of its class (0007_cock.jpg)"
                )
            said = number[1]
        elif "/" in name:
            said = name.split("/")[-2]
        else:
            raise DataError(f"{source.root}: {name} lies outside the class folders; move it into one")
        names.append(name)
        classes.append(index.find(said, f"{source.root}: {name}"))
    return Split(tuple(names), np.array(classes, np.int64))


def split_pictures(pictures: Split, most: int | None = None) -> tuple[dict[str, Split], str]:
    """Cut pictures into calib, select and test, always in the same way, and say how.

    A test folder stays together; otherwise everything is cut by a permutation with a fixed seed.

    Args:
        most: use at most so many pictures.
    Raises:
        DataError: too few pictures.
    """
    in_test = np.array([len(n.split("/")) > 2 and n.split("/")[-3] in TEST_FOLDERS for n in pictures.names])
    order = np.random.default_rng(0).permutation(len(pictures))
    if most is not None:
        order = order[:most]
    given = bool(in_test.any())
    pool = order[~in_test[order]] if given else order
    if len(pool) < FEWEST or (given and not in_test[order].any()):
        raise DataError(f"{len(pool)} labelled pictures are too few to choose by; expected at least {FEWEST}")
    calib = min(CALIB_PICTURES, int(CALIB_SHARE * len(pool)))
    half = len(pool) if given else calib + (len(pool) - calib + 1) // 2
    rows = {"calib": pool[:calib], "select": pool[calib:half], "test": order[in_test[order]] if given else pool[half:]}
    splits = {
        name: Split(tuple(pictures.names[i] for i in sorted(part)), pictures.labels[sorted(part)])
        for name, part in rows.items()
    }
    how = "the test folder is kept for test" if given else "the one set of pictures was cut by a fixed seed"
    sizes = ", ".join(f"{len(split)} {name}" for name, split in splits.items())
    return splits, f"{how}: {sizes}; points are chosen by select, report what test says"


class _LabelIndex:
    """Finds a label by its number, its text, or the part of its text before a comma."""

    def __init__(self, labels: tuple[str, ...]) -> None:
        self.count = len(labels)
        self.by_text: dict[str, set[int]] = {}
        for position, label in enumerate(labels):
            for text in {label, label.split(",")[0]}:
                self.by_text.setdefault(_plain(text), set()).add(position)

    def find(self, said: str, where: str) -> int:
        found = self.by_text.get(_plain(said), set())
        if len(found) == 1:
            return next(iter(found))
        if not found and said.isdigit() and int(said) < self.count:
            return int(said)
        if found:
            raise DataError(f"{where}: {said!r} is the label of several outputs; use their numbers, from 0")
        near = difflib.get_close_matches(_plain(said), self.by_text, n=1)
        advice = f"did you mean {near[0]!r}?" if near else f"there are {self.count}, in the order of the outputs"
        raise DataError(f"{where}: {said!r} is none of the labels; {advice}")


def _plain(text: str) -> str:
    return " ".join(text.replace("_", " ").lower().split())


def _is_picture(name: str) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    return not hidden and name.lower().endswith(SUFFIXES)
