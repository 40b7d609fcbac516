"""Fixtures of the converters' tests: one checkpoint and one bundle for all of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from built_bundle import Built
from small_training import make_checkpoint, small_net_in_the_zoo, write_pictures

from converters.build import BuildRequest, build
from zoo.checkpoint import Checkpoint
from zoo.pictures import PictureSource


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def source(tmp_path_factory: pytest.TempPathFactory) -> PictureSource:
    return PictureSource(write_pictures(tmp_path_factory.mktemp("pictures")))


@pytest.fixture(scope="session")
def checkpoint(source: PictureSource) -> Iterator[Checkpoint]:
    with small_net_in_the_zoo():
        yield make_checkpoint(source)


@pytest.fixture(scope="session")
def narrow(source: PictureSource, checkpoint: Checkpoint) -> Checkpoint:
    """One width, one resolution: for what has to be built again."""
    return make_checkpoint(source, (0.5,), (16,))


@pytest.fixture(scope="session")
def built(checkpoint: Checkpoint, source: PictureSource, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The checkpoint as a float bundle."""
    torch.set_num_threads(1)
    lines: list[str] = []
    target = tmp_path_factory.mktemp("bundles") / "small.bundle"
    request = BuildRequest(checkpoint, source, target, "small", provenance={"commit": "abc"})
    return Built(*build(request, lines.append), lines)
