"""RTSP on loopback: a recording ends, a camera that goes away is a broken stream."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from rtsp_server import RtspServer

from edge_runtime.errors import StreamBroken
from edge_runtime.sources import open_source

FPS = 30.0
PICTURES = [np.full((48, 64, 3), 30 + 5 * index, np.uint8) for index in range(40)]

Serve = Callable[[float | None], RtspServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    servers: list[tuple[RtspServer, threading.Thread]] = []

    def start(stated_s: float | None) -> RtspServer:
        server = RtspServer(PICTURES, FPS, stated_s=stated_s)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        servers.append((server, thread))
        return server

    yield start
    for server, thread in servers:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_stream_with_a_stated_length_comes_to_its_ordinary_end(serve: Serve) -> None:
    server = serve(len(PICTURES) / FPS)
    with open_source(server.url, timeout_s=8) as source:
        frames = list(source.frames())
        assert source.live
        assert source.size_hw == (48, 64)
    indices = [frame.index for frame in frames]
    assert indices == sorted(set(indices))
    assert len(frames) + source.dropped == pytest.approx(len(PICTURES), abs=2)
    assert int(frames[-1].pixels[20, 20, 0]) == pytest.approx(30 + 5 * 39, abs=12)
    assert all("TCP" in transport for transport in server.transports)  # no lost UDP packets, no firewall trouble


def test_a_camera_that_goes_away_is_a_broken_stream(serve: Serve) -> None:
    server = serve(None)
    with open_source(server.url, timeout_s=8) as source, pytest.raises(StreamBroken, match=r"after \d\d frames; check"):
        list(source.frames())


def test_a_stream_that_ends_long_before_its_stated_length_is_broken(serve: Serve) -> None:
    server = serve(60.0)
    with open_source(server.url, timeout_s=8) as source, pytest.raises(StreamBroken, match="stopped"):
        list(source.frames())
