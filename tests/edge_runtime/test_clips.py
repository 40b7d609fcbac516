"""Networks that read several frames of a video: which frames, at which size, through switches, pauses and gaps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from bundles import default_files, manifest_values, npz_bytes, point_values, write_bundle
from hypothesis import given
from hypothesis import strategies as st

from edge_runtime.backends.null import NullBackend
from edge_runtime.budget import Budget
from edge_runtime.bundle import Bundle
from edge_runtime.clip_buffer import FINEST_STEP, ClipBuffer
from edge_runtime.errors import BundleError, FrameError
from edge_runtime.frame import Frame
from edge_runtime.manifest import Clip, OperatingPoint, version_to_write
from edge_runtime.preprocess import TensorSpec, chosen_frames, preprocess
from edge_runtime.profiling.blocks import BlockMeter, Entry
from edge_runtime.profiling.result_records import Load, Memory
from edge_runtime.readings import Readings
from edge_runtime.runtime import Runtime
from edge_runtime.self_check import verify_bundle

PLAIN = TensorSpec((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
DURATION_S = 0.8


def clip_point(frames: int, side: int = 16, width: float = 0.5) -> OperatingPoint:
    return OperatingPoint(f"f{frames}-r{side}", "null-fp32", width, (side, side), 1000, {"select": 0.5}, frames=frames)


def grey(level: int, time_s: float, side: int = 20) -> Frame:
    """A frame of one grey level that was captured then."""
    return Frame(np.full((side, side, 3), level, np.uint8), captured_s=time_s)


def levels(clip: npt.NDArray[np.float32]) -> list[int]:
    """The grey level of each frame of an input (1, 3, T, H, W)."""
    assert clip.min(axis=(0, 1, 3, 4)).tolist() == clip.max(axis=(0, 1, 3, 4)).tolist()
    return [round(float(frame.mean())) for frame in clip[0].swapaxes(0, 1)]


def fill(buffer: ClipBuffer, frame: Frame, point: OperatingPoint) -> tuple[list[int], int]:
    out = np.full(point.input_shape, -1.0, np.float32)
    real = buffer.fill(frame, point, out)
    return levels(out), real


def test_frames_of_an_even_stream_are_a_step_apart_and_end_with_the_newest() -> None:
    buffer, point = ClipBuffer(PLAIN, [clip_point(4)], DURATION_S), clip_point(4)
    found = [fill(buffer, grey(number, 10.0 + number / 10), point) for number in range(12)]  # a step is two frames
    assert found[-1] == ([5, 7, 9, 11], 4)
    assert found[0] == ([0, 0, 0, 0], 1)
    assert found[3] == ([0, 0, 1, 3], 3)


def test_a_slow_stream_repeats_frames() -> None:
    buffer, point = ClipBuffer(PLAIN, [clip_point(4)], DURATION_S), clip_point(4)
    found = [fill(buffer, grey(number, number * 0.4), point) for number in range(4)]
    assert found[-1] == ([2, 2, 3, 3], 2)  # wanted 0.6, 0.8, 1.0 and 1.2 s; had 0.8 and 1.2; at 1.0 the later of two


def test_a_switch_of_frames_and_size_keeps_the_past() -> None:
    points = [clip_point(8, 16), clip_point(4, 16), clip_point(4, 8)]
    buffer = ClipBuffer(PLAIN, points, DURATION_S)
    for number in range(8):
        fill(buffer, grey(number, number / 10), points[0])
    assert fill(buffer, grey(8, 0.8), points[2])[0] == [2, 4, 6, 8]
    assert fill(buffer, grey(9, 0.9), points[0])[0] == [2, 3, 4, 5, 6, 7, 8, 9]
    assert fill(buffer, grey(10, 1.0), points[1])[0] == [4, 6, 8, 10]


@pytest.mark.parametrize("jump_s", [-0.1, 0.9, -100.0])
def test_a_stream_that_goes_back_or_pauses_begins_anew(jump_s: float) -> None:
    buffer, point = ClipBuffer(PLAIN, [clip_point(4)], DURATION_S), clip_point(4)
    for number in range(8):
        fill(buffer, grey(number, 5.0 + number / 10), point)
    assert fill(buffer, grey(99, 5.7 + jump_s), point) == ([99] * 4, 1)


def test_forget_empties_the_past() -> None:
    buffer, point = ClipBuffer(PLAIN, [clip_point(4)], DURATION_S), clip_point(4)
    for number in range(8):
        fill(buffer, grey(number, number / 10), point)
    buffer.forget()
    assert fill(buffer, grey(8, 0.8), point) == ([8] * 4, 1)


def test_media_time_goes_before_the_time_of_capture() -> None:
    """A file that is played faster than it was filmed keeps its steps."""
    buffer, point = ClipBuffer(PLAIN, [clip_point(4)], DURATION_S), clip_point(4)
    for number in range(12):
        frame = Frame(np.full((20, 20, 3), number, np.uint8), captured_s=number / 1000, media_s=number / 10)
        found = fill(buffer, frame, point)
    assert found[0] == [5, 7, 9, 11]


def test_a_very_fast_stream_takes_bounded_memory_and_keeps_the_clip() -> None:
    buffer, point = ClipBuffer(PLAIN, [clip_point(4)], DURATION_S), clip_point(4)
    for number in range(2000):
        found = fill(buffer, grey(number % 250, number / 1000), point)  # a step is 200 frames
        assert len(buffer._kept) <= 4 * FINEST_STEP + 3
    newest = 1999
    wanted = [newest - 600, newest - 400, newest - 200, newest]
    assert all(abs(level - number % 250) <= 50 for level, number in zip(found[0], wanted, strict=True))
    assert found[0][-1] == newest % 250


def test_frames_are_cut_and_reduced_as_single_pictures_are() -> None:
    """At the largest size, exactly; smaller ones are made of that."""
    draw = np.random.default_rng(0)
    points = [clip_point(2, 32), clip_point(2, 16)]
    spec = TensorSpec((120.0, 110.0, 100.0), (60.0, 50.0, 40.0))
    buffer = ClipBuffer(spec, points, DURATION_S)
    pictures = [draw.integers(0, 256, (48, 64, 3), np.uint8) for _ in range(2)]
    for number, picture in enumerate(pictures):
        out = [np.empty(point.input_shape, np.float32) for point in points]
        frame = Frame(picture, captured_s=number * 0.4)
        for point, array in zip(points, out, strict=True):
            buffer.fill(frame, point, array)
    for slot, picture in enumerate(pictures):
        np.testing.assert_array_equal(out[0][:, :, slot], preprocess(picture, spec, (32, 32)))
        large = preprocess(picture, PLAIN, (32, 32))[0].transpose(1, 2, 0).astype(np.uint8)
        np.testing.assert_allclose(out[1][:, :, slot], preprocess(large, spec, (16, 16)), atol=1e-5)


def test_sizes_of_another_shape_are_cut_of_the_frame_itself() -> None:
    square, wide = clip_point(2, 16), OperatingPoint("wide", "p", 0.5, (8, 16), 1, {"select": 0.5}, frames=2)
    buffer = ClipBuffer(PLAIN, [square, wide], DURATION_S)
    picture = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    out = np.empty(wide.input_shape, np.float32)
    buffer.fill(Frame(picture), wide, out)
    np.testing.assert_array_equal(out[:, :, 0], preprocess(picture, PLAIN, (8, 16)))


@given(
    st.lists(st.integers(10, 900), min_size=1, max_size=40), st.sampled_from([2, 3, 5, 8]), st.data(),
)  # fmt: skip
def test_the_buffer_equals_one_that_keeps_everything(gaps_ms: list[int], most: int, data: st.DataObject) -> None:
    """Gaps of a quarter step and more: nothing is thinned out. Points change from frame to frame."""
    shortest_ms = 800 // most // FINEST_STEP + 1
    times_s = (np.cumsum([max(gap, shortest_ms) for gap in gaps_ms]) / 1000.0).tolist()
    points = [clip_point(count) for count in {2, most}]
    buffer = ClipBuffer(PLAIN, points, DURATION_S)
    for number, time_s in enumerate(times_s):
        point = data.draw(st.sampled_from(points))
        found = fill(buffer, grey(number, time_s), point)
        begin = 0
        for row in range(1, number + 1):
            if times_s[row] - times_s[row - 1] > DURATION_S:
                begin = row
        assert found[0] == nearest_levels(times_s[begin : number + 1], int(point.frames or 0), begin)
        assert found[1] == len(set(found[0]))


def nearest_levels(times_s: Sequence[float], count: int, begin: int) -> list[int]:
    """By trying every frame there ever was."""
    wanted = [times_s[-1] - (count - 1 - slot) * (DURATION_S / count) for slot in range(count)]
    return [
        begin + min(range(len(times_s)), key=lambda row: (abs(times_s[row] - time_s), -row)) for time_s in wanted
    ]  # fmt: skip


@pytest.mark.parametrize(("have", "wanted", "expected"), [
    (8, 8, [0, 1, 2, 3, 4, 5, 6, 7]), (8, 4, [1, 3, 5, 7]), (8, 3, [2, 5, 7]), (5, 1, [4]),
])  # fmt: skip
def test_a_whole_clip_is_read_with_fewer_frames(have: int, wanted: int, expected: list[int]) -> None:
    assert chosen_frames(have, wanted) == expected
    clip = np.arange(have, dtype=np.uint8)[:, None, None, None] * np.ones((have, 12, 12, 3), np.uint8)
    assert levels(preprocess(clip, PLAIN, (wanted, 8, 8))) == expected


def test_a_clip_with_too_few_frames_is_refused() -> None:
    with pytest.raises(FrameError, match="clip is 3x12x12x3, expected 4 frames"):
        preprocess(np.zeros((3, 12, 12, 3), np.uint8), PLAIN, (4, 8, 8))
    with pytest.raises(FrameError, match="clip is 12x12x3, expected 4 frames"):
        preprocess(np.zeros((12, 12, 3), np.uint8), PLAIN, (4, 8, 8))


def test_bundles_of_pictures_keep_the_version_that_older_runtimes_read() -> None:
    assert version_to_write(None) == 2
    assert version_to_write(Clip(500.0)) == 3


# ---- the whole road

POINTS = ((0.25, 4, 16), (0.5, 4, 32), (1.0, 8, 32))


def clip_bundle(folder: Path, **changes: Any) -> Path:
    points = [
        {**point_values(width, side), "frames": frames, "name": f"w{width:.2f}-f{frames:02d}-r{side:03d}"}
        for width, frames, side in POINTS
    ]
    values = manifest_values(schema_version=3, points=points, clip={"duration_ms": 800.0}, **changes)
    return write_bundle(folder / "clips.bundle", values)


@dataclass
class Recorder:
    """A backend whose runners note the grey level of each frame that they were given."""

    seen: list[tuple[str, list[int]]]
    name: str = "null"

    def load(self, point: OperatingPoint) -> Any:
        seen = self.seen

        class Runner:
            input = np.zeros(point.input_shape, np.float32)

            def run(self) -> npt.NDArray[np.float32]:
                seen.append((point.name, levels(self.input * 64.0 + 127.5)))
                return np.array([[0.0, 1.0, 0.0]], np.float32)

            def close(self) -> None:
                pass

        return Runner()

    def close(self) -> None:
        pass


class NoSensors:
    def read(self, now_s: float) -> Readings:
        return Readings()


@pytest.fixture
def recorded(tmp_path: Path) -> Iterator[tuple[Runtime, list[tuple[str, list[int]]]]]:
    bundle = Bundle.load(clip_bundle(tmp_path))
    backend = Recorder([])
    runtime = Runtime(
        bundle, backend, bundle.manifest.points, budget=Budget(), sensors=NoSensors(), resident="all"
    )  # fmt: skip
    with runtime:
        runtime.wait_ready(10.0)
        backend.seen.clear()
        yield runtime, backend.seen


def film(count: int, first: int = 0, step_s: float = 0.1) -> list[Frame]:
    return [
        Frame(np.full((40, 60, 3), 2 * number, np.uint8), number, media_s=number * step_s)
        for number in range(first, first + count)
    ]  # fmt: skip


def test_frames_in_a_row_are_answered_as_clips(recorded: tuple[Runtime, list[tuple[str, list[int]]]]) -> None:
    runtime, seen = recorded
    runtime.pin("w1.00-f08-r032")
    results = [runtime.infer(frame) for frame in film(10)]
    assert seen[-1] == ("w1.00-f08-r032", [2 * number for number in range(2, 10)])
    assert [result.clip_frames for result in results] == [1, 2, 3, 4, 5, 6, 7, 8, 8, 8]
    runtime.pin("w0.25-f04-r016")
    result = runtime.infer(film(1, 10)[0])
    assert seen[-1] == ("w0.25-f04-r016", [8, 12, 16, 20])
    assert result.clip_frames == 4
    assert result.decision.point == "w0.25-f04-r016"


def test_another_video_begins_without_the_past(recorded: tuple[Runtime, list[tuple[str, list[int]]]]) -> None:
    runtime, seen = recorded
    runtime.pin("w0.25-f04-r016")
    for frame in film(10):
        runtime.infer(frame)
    runtime.forget()
    runtime.infer(film(1, 10)[0])
    assert seen[-1][1] == [20, 20, 20, 20]


def test_dropped_frames_leave_the_steps_as_they_are(recorded: tuple[Runtime, list[tuple[str, list[int]]]]) -> None:
    runtime, seen = recorded
    runtime.pin("w0.25-f04-r016")
    for frame in film(20):
        if frame.index % 2 == 0:  # the even ones arrive
            runtime.infer(frame)
    assert seen[-1][1] == [2 * number for number in (12, 14, 16, 18)]


def test_telemetry_names_the_frames_of_points(tmp_path: Path) -> None:
    log = tmp_path / "run.jsonl"
    with Runtime.load(clip_bundle(tmp_path), backend="null", telemetry=log, query_table="none") as runtime:
        for frame in film(3):
            runtime.infer(frame)
    start = json.loads(log.read_text(encoding="utf-8").splitlines()[0])
    assert [point["frames"] for point in start["points"]] == [4, 4, 8]


def test_points_that_differ_in_frames_alone_have_labels_of_their_own() -> None:
    from edge_runtime.reporting.run_points import read_points

    rows = [
        {"name": name, "width": 0.5, "size_hw": [32, 32], "frames": frames} for name, frames in (("a", 4), ("b", 8))
    ]  # fmt: skip
    points, _ = read_points(rows, [], ["a", "b"])
    assert [point.label for point in points] == ["0.50 × 4 × 32", "0.50 × 8 × 32"]


def vectors_bundle(folder: Path, frames: int) -> Bundle:
    """A bundle whose self-test has clips of so many frames, answered as the null backend does."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, frames, 24, 24, 3), np.uint8)
    plain, arrays = Bundle.load(clip_bundle(folder)), {"pixels": pixels}
    for point in plain.manifest.points:
        runner = NullBackend(plain, wait=lambda point: None).load(point)
        rows = []
        for clip in pixels if frames >= (point.frames or 0) else ():
            preprocess(clip, plain.spec, point.size, out=runner.input)
            rows.append(runner.run()[0].copy())
        arrays[f"logits/{point.name}"] = np.array(rows or np.zeros((2, 3)), np.float32)
    files = {**default_files(), "vectors.npz": npz_bytes(**arrays)}
    values = json.loads((plain.root / "manifest.json").read_text(encoding="utf-8"))
    del values["files"]
    return Bundle.load(
        write_bundle(
            folder / "vectors.bundle", {**values, "vectors": {"file": "vectors.npz", "tolerance": 0.01}}, files
        )
    )


def test_the_self_test_reads_clips(tmp_path: Path) -> None:
    verdicts = verify_bundle(vectors_bundle(tmp_path, 8), backends=("null",))
    assert [(verdict.point, verdict.error) for verdict in verdicts] == [
        (f"w{width:.2f}-f{frames:02d}-r{side:03d}", 0.0) for width, frames, side in POINTS
    ]


def test_self_test_clips_that_are_too_short_are_the_bundles_fault(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"no vectors for point .w1\.00-f08-r032.; make the bundle again"):
        verify_bundle(vectors_bundle(tmp_path, 4), backends=("null",))


def test_the_profiler_fills_every_frame(tmp_path: Path) -> None:
    bundle = Bundle.load(clip_bundle(tmp_path))
    point = bundle.point("w1.00-f08-r032")
    runner = NullBackend(bundle).load(point)
    entry = Entry(point, "null", "fp32", 1, runner, Load(), Memory())
    BlockMeter(bundle.spec, NoSensors(), 0.0, lambda: 0.0, lambda s: None).prepare(entry)
    frames = runner.input[0].swapaxes(0, 1)
    assert float(frames[0].std()) > 0.01
    assert all(np.array_equal(frames[0], frame) for frame in frames)
