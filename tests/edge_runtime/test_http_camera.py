"""A real stream over HTTP, served by the test."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from edge_runtime.errors import SourceError, StreamBroken
from edge_runtime.sources import open_source


class MjpegHandler(http.server.BaseHTTPRequestHandler):
    """Sends a few JPEG pictures as multipart, then closes the connection, as a camera that loses power."""

    pictures = 12

    def do_GET(self) -> None:
        if not self.path.startswith("/live"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        for index in range(self.pictures):
            _, jpeg = cv2.imencode(".jpg", np.full((48, 64, 3), 20 * index, np.uint8))
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
            self.wfile.write(head.encode() + jpeg.tobytes() + b"\r\n")
            time.sleep(0.01)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mjpeg_port() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), MjpegHandler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_http_camera_is_live_and_its_end_is_a_broken_stream(mjpeg_port: int) -> None:
    with open_source(f"http://me:secret@127.0.0.1:{mjpeg_port}/live?key=1", timeout_s=5) as source:
        assert source.live
        assert source.size_hw == (48, 64)
        assert "secret" not in source.name
        indices: list[int] = []
        with pytest.raises(StreamBroken, match=r"the stream stopped after 1[0-2] frames") as caught:
            indices.extend(frame.index for frame in source.frames())
    assert "secret" not in str(caught.value)
    assert indices == sorted(set(indices))
    assert len(indices) + source.dropped in (10, 11, 12)


def test_a_wrong_path_on_a_server_that_answers_says_so(mjpeg_port: int) -> None:
    with pytest.raises(SourceError, match="the server answers but gives no video there"):
        open_source(f"http://127.0.0.1:{mjpeg_port}/wrong", timeout_s=5)
