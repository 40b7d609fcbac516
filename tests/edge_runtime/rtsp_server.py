"""A small RTSP server: one video as JPEG (RFC 2435) over the RTSP connection itself, for tests and by hand.

python tests/edge_runtime/rtsp_server.py VIDEO --port 8554     then     --source rtsp://127.0.0.1:8554/video
"""

from __future__ import annotations

import argparse
import socketserver
import struct
import threading
import time
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

CLOCK_HZ = 90_000
PAYLOAD_TYPE = 26
FRAGMENT_BYTES = 1200


class RtspServer(socketserver.ThreadingTCPServer):
    """Serves the same pictures to each client, from the first one."""

    allow_reuse_address, daemon_threads, block_on_close = True, True, False

    def __init__(
        self, pictures: Sequence[np.ndarray], fps: float, *, port: int = 0, stated_s: float | None = None
    ) -> None:
        """Listen on 127.0.0.1.

        Args:
            pictures: (H, W, 3) uint8 BGR; sides are multiples of 16.
            fps: rate at which they are sent.
            port: 0 takes a free one.
            stated_s: length that the description states; None: none, as of a camera. At the end it hangs up.
        """
        super().__init__(("127.0.0.1", port), _Session)
        self.jpegs = [_scan(picture) for picture in pictures]
        self.fps, self.stated_s = fps, stated_s
        self.transports: list[str] = []
        """What clients asked for in SETUP."""

    @property
    def url(self) -> str:
        return f"rtsp://127.0.0.1:{self.server_address[1]}/video"

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that leaves is no news."""


class _Session(socketserver.StreamRequestHandler):
    server: RtspServer

    def handle(self) -> None:
        while (request := self.rfile.readline().decode().split()) and len(request) == 3:
            headers = {}
            while line := self.rfile.readline().decode().strip():
                name, _, value = line.partition(":")
                headers[name.strip().lower()] = value.strip()
            method = request[0]
            if method == "SETUP":
                self.server.transports.append(headers["transport"])
            self._answer(method, headers.get("cseq", "0"))
            if method == "PLAY":
                threading.Thread(target=self._swallow, daemon=True).start()
                return self._play()
            if method == "TEARDOWN":
                return None
        return None

    def _answer(self, method: str, sequence: str) -> None:
        extra, body = "", ""
        if method == "OPTIONS":
            extra = "Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN\r\n"
        elif method == "DESCRIBE":
            length = "" if self.server.stated_s is None else f"a=range:npt=0-{self.server.stated_s:.3f}\r\n"
            body = (
                f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\n{length}"
                f"m=video 0 RTP/AVP {PAYLOAD_TYPE}\r\na=framerate:{self.server.fps:g}\r\na=control:track0\r\n"
            )
            extra = f"Content-Type: application/sdp\r\nContent-Length: {len(body)}\r\n"
        elif method == "SETUP":
            extra = "Session: 1\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
        elif method == "PLAY":
            extra = "Session: 1\r\n"
        self.wfile.write(f"RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\n{extra}\r\n{body}".encode())

    def _swallow(self) -> None:
        """Take receiver reports off the connection, which would fill up."""
        try:
            while self.connection.recv(4096):
                pass
        except OSError:
            pass

    def _play(self) -> None:
        begin_s, number = time.monotonic(), 0
        for index, (kind, tables, size_hw, scan) in enumerate(self.server.jpegs):
            time.sleep(max(0.0, begin_s + index / self.server.fps - time.monotonic()))
            stamp = round(index * CLOCK_HZ / self.server.fps)
            for offset in range(0, len(scan), FRAGMENT_BYTES):
                part = scan[offset : offset + FRAGMENT_BYTES]
                marker = 0x80 if offset + FRAGMENT_BYTES >= len(scan) else 0
                rtp = struct.pack(">BBHII", 0x80, marker | PAYLOAD_TYPE, number & 0xFFFF, stamp, 1)
                jpeg = struct.pack(">IBBBB", offset, kind, 255, size_hw[1] // 8, size_hw[0] // 8)
                if offset == 0:
                    jpeg += struct.pack(">BBH", 0, 0, len(tables)) + tables
                packet = rtp + jpeg + part
                self.wfile.write(struct.pack(">BBH", 0x24, 0, len(packet)) + packet)
                number += 1


def _scan(picture: np.ndarray) -> tuple[int, bytes, tuple[int, int], bytes]:
    """A JPEG taken apart as RTP carries it: type, quantization tables, size, entropy-coded data."""
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
    place, tables, kind = 2, b"", 1
    while True:
        marker, length = struct.unpack(">HH", data[place : place + 4])
        segment = data[place + 4 : place + 2 + length]
        place += 2 + length
        if marker == 0xFFDB:
            tables += b"".join(segment[at + 1 : at + 65] for at in range(0, len(segment), 65))
        elif marker == 0xFFC0:
            kind = {0x21: 0, 0x22: 1}[segment[7]]
        elif marker == 0xFFDA:
            return kind, tables, picture.shape[:2], data[place:-2]


def _video(path: str) -> tuple[Iterable[np.ndarray], float]:
    capture = cv2.VideoCapture(path)
    fps, pictures = capture.get(cv2.CAP_PROP_FPS) or 25.0, []
    while (step := capture.read())[0]:
        height, width = step[1].shape[:2]
        pictures.append(step[1][: height // 16 * 16, : width // 16 * 16])
    return pictures, fps


def main() -> None:
    """Serve a video until stopped."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video")
    parser.add_argument("--port", type=int, default=8554)
    parser.add_argument("--camera", action="store_true", help="state no length, as a camera")
    options = parser.parse_args()
    pictures, fps = _video(options.video)
    pictures = list(pictures)
    stated_s = None if options.camera else len(pictures) / fps
    with RtspServer(pictures, fps, port=options.port, stated_s=stated_s) as server:
        print(f"{server.url}: {len(pictures)} frames at {fps:g} a second", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
