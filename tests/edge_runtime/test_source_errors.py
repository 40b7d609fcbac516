"""Bad inputs of sources: each is one sentence that says why, without credentials."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from source_files import write_video

from edge_runtime.errors import SourceError, StreamBroken
from edge_runtime.opencv_capture import masked
from edge_runtime.sources import open_source


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("97", "no camera at /dev/video97"),
        ("/dev/video98", "no camera at /dev/video98"),
        ("nowhere/clip.mp4", "no such file or folder"),
        ("/dev/null", "neither a file nor a folder"),
        ("*.nothing", "no picture matches"),
        ("a\0b", "cannot be read"),
        ("pattern:0", "pattern:300"),
        ("pattern:x", "pattern:300"),
        ("ftp://host/clip.mp4", "ftp:// cannot be read"),
        ("file:///etc/passwd", "file:// cannot be read"),
        ("rtsp:///stream", "names no host"),
        ("rtsp://host:port/stream", "not a valid address"),
        ("rtsp://no-such-host.invalid/stream", "no host is known"),
    ],
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="device names are Linux's")
def test_a_source_that_cannot_be_opened_says_why(text: str, words: str) -> None:
    with pytest.raises(SourceError) as caught:
        open_source(text, timeout_s=2)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not isinstance(caught.value, StreamBroken)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.mp4", b"", "the file is empty"),
        ("text.mp4", b"hello, this is a letter\n" * 50, "it is text"),
        ("list.m3u8", b"#EXTM3U\nhttp://elsewhere/secret\n", "it is text"),
        ("noise.mp4", bytes(range(256)) * 40, "not a video"),
        ("broken.jpg", b"\xff\xd8\xff\xe0\0\0\0", "not a picture"),
        ("empty.png", b"", "the file is empty"),
    ],
)
def test_a_file_that_is_no_video_says_so(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError) as caught:
        open_source(str(tmp_path / name))
    assert words in str(caught.value)
    assert name in str(caught.value)


def test_an_empty_folder_says_what_is_expected(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"no pictures in this folder; expected .*\.jpg"):
        open_source(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_says_so(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", 2)
    path.chmod(0)
    with pytest.raises(SourceError, match="Permission denied"):
        open_source(str(path))


def test_nothing_but_our_sentence_is_printed(tmp_path: Path) -> None:
    (tmp_path / "noise.mp4").write_bytes(bytes(range(256)) * 40)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"rtsp://user:secret@127.0.0.1:{closed.getsockname()[1]}/x"
        script = (
            "import sys; from edge_runtime.sources import open_source; from edge_runtime.errors import SourceError\n"
            "for text in sys.argv[1:]:\n"
            "    try: open_source(text, timeout_s=2)\n"
            "    except SourceError as error: print(error)\n"
        )
        command = [sys.executable, "-c", script, str(tmp_path / "noise.mp4"), url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert len(done.stdout.splitlines()) == 2
    assert done.stderr == ""
    assert "secret" not in done.stdout


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://me:pw@cam:554/live?token=1", "rtsp://***@cam:554/live?***"),
        ("rtsp://me:p/w@cam/live", "rtsp://***@cam/live"),
        ("http://cam?key=1", "http://cam?***"),
        ("rtsp://cam/user=admin&password=x&channel=1", "rtsp://cam/user=***&password=***&channel=1"),
        ("http://cam:80/stream", "http://cam:80/stream"),
    ],
)
def test_credentials_are_masked(url: str, shown: str) -> None:
    assert masked(url) == shown
