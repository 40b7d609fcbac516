"""Made-up videos: a whole labelled picture that drifts slowly over what stays, the same whenever the seed is."""

from __future__ import annotations

import numpy as np

from zoo.focus_scenes import SceneSpec
from zoo.focus_video import DRIFT, drifting_scenes
from zoo.pictures import PictureSource, centre_square, resize_rgb

SPEC = SceneSpec(canvas=64, objects=(16, 24), pieces=(4, 8))
FRAMES = 60  # long enough to turn back at an edge


def video(source: PictureSource, name: str, seed: int = 0, spec: SceneSpec = SPEC) -> tuple[np.ndarray, np.ndarray]:
    return drifting_scenes(source, name, source.names, spec, seed, FRAMES)


def test_the_labelled_picture_lies_whole_where_the_box_says_in_every_frame(source: PictureSource) -> None:
    for name in source.names[:8]:
        scenes, boxes = video(source, name)
        assert (scenes.shape, scenes.dtype, boxes.shape) == ((FRAMES, 64, 64, 3), np.uint8, (FRAMES, 3))
        side = int(boxes[0, 2])
        assert SPEC.objects[0] <= side <= SPEC.objects[1]
        expected = resize_rgb(centre_square(source.picture(name)), (side, side))
        for scene, (top, left, _) in zip(scenes, boxes, strict=True):
            assert np.array_equal(scene[top : top + side, left : left + side], expected)


def test_it_moves_slowly_and_all_else_stays(source: PictureSource) -> None:
    turned = 0
    for name in source.names[:8]:
        scenes, boxes = video(source, name)
        steps = np.diff(boxes[:, :2], axis=0)
        assert np.abs(steps).max() <= np.ceil(DRIFT[1])  # whole pixels
        assert np.hypot(*steps.T).sum() >= DRIFT[0] * FRAMES * 0.8
        turned += int((np.sign(steps).min(0) * np.sign(steps).max(0) < 0).any())
        covered = np.zeros((64, 64), bool)
        for top, left, side in boxes:
            covered[top : top + side, left : left + side] = True
        assert (scenes[:, ~covered] == scenes[0][~covered]).all()
        assert (~covered).any()
    assert turned >= 4  # most reach an edge and come back


def test_a_video_depends_on_seed_and_name_alone(source: PictureSource) -> None:
    first = video(source, source.names[0])
    again = video(source, source.names[0])
    assert np.array_equal(first[0], again[0])
    assert not np.array_equal(first[1], video(source, source.names[0], seed=1)[1])
    assert not np.array_equal(first[1], video(source, source.names[1])[1])


def test_a_picture_as_large_as_the_canvas_stays(source: PictureSource) -> None:
    _, boxes = video(source, source.names[0], spec=SceneSpec(canvas=64, objects=(64, 64)))
    assert (boxes == [0, 0, 64]).all()
