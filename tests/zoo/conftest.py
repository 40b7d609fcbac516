"""Fixtures of the zoo's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from shape_pictures import write_tree

from zoo.pictures import PictureSource


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """The networks here are too small for more, and a busy machine makes waiting threads slow."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def shapes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 training and 12 test pictures of three classes; read only."""
    return write_tree(tmp_path_factory.mktemp("shapes"))


@pytest.fixture(scope="session")
def source(shapes_folder: Path) -> PictureSource:
    """The same as a source; read only."""
    return PictureSource(shapes_folder)
