"""Average precision against hand-made cases and a slow reference; suppression against a case by hand."""

from __future__ import annotations

import numpy as np
import pytest

from zoo.box_metrics import IOUS, Boxes, average_precision, mean_precision, overlaps
from zoo.efficientdet_boxes import suppress

SQUARE = (0.0, 0.0, 10.0, 10.0)


def shifted(by: float, box: tuple[float, ...] = SQUARE) -> tuple[float, ...]:
    return (box[0] + by, box[1], box[2] + by, box[3])


def found(*rows: tuple[tuple[float, ...], int, float]) -> Boxes:
    boxes, labels, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return Boxes(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64), np.array(scores, np.float32))


def there(*rows: tuple[tuple[float, ...], int]) -> Boxes:
    boxes, labels = zip(*rows, strict=True) if rows else ((), ())
    return Boxes(np.array(boxes, np.float32).reshape(-1, 4), np.array(labels, np.int64))


def ap50(ours: list[Boxes], truth: list[Boxes], classes: int = 1) -> float:
    return mean_precision(average_precision(ours, truth, classes))[0]


def test_overlaps_are_intersection_over_union() -> None:
    boxes = np.array([SQUARE, shifted(5.0), shifted(20.0), (0.0, 0.0, 5.0, 5.0)])
    np.testing.assert_allclose(overlaps(np.array(SQUARE), boxes), [1.0, 1 / 3, 0.0, 0.25])


def test_perfect_boxes_have_a_precision_of_one_and_none_have_zero() -> None:
    truth = [there((SQUARE, 0), (shifted(30.0), 1)), there((SQUARE, 1))]
    perfect = [found((SQUARE, 0, 0.9), (shifted(30.0), 1, 0.8)), found((SQUARE, 1, 0.1))]
    assert mean_precision(average_precision(perfect, truth, 2)) == (1.0, 1.0)
    assert mean_precision(average_precision([found(), found()], truth, 2)) == (0.0, 0.0)


def test_the_mean_over_overlaps_counts_those_that_a_box_reaches() -> None:
    wide = [found(((0.0, 0.0, 10.0, 7.7), 0, 0.5))]  # IoU 0.77: found at 0.5 to 0.75, six of ten
    assert mean_precision(average_precision(wide, [there((SQUARE, 0))], 1)) == (1.0, pytest.approx(0.6))


def test_a_box_of_exactly_the_overlap_counts() -> None:
    assert ap50([found(((0.0, 0.0, 10.0, 5.0), 0, 0.5))], [there((SQUARE, 0))]) == 1.0
    assert ap50([found(((0.0, 0.0, 10.0, 4.99), 0, 0.5))], [there((SQUARE, 0))]) == 0.0


@pytest.mark.parametrize(
    ("right", "total", "expected"),
    [
        ([True, False], 2, 51 / 101),  # recall 0.5 at precision 1: points 0.00 to 0.50
        ([False, True], 1, 0.5),  # precision 1/2 at every recall
        ([True, False, True], 2, (51 + 50 * 2 / 3) / 101),
        ([False, True, True], 2, 2 / 3),  # 1/2, then 2/3: the better one counts from the start
        ([True, False, False, True, True], 4, (26 + 50 * 3 / 5) / 101),
    ],
)
def test_precision_is_read_at_101_recalls_as_the_best_at_any_higher_one(
    right: list[bool], total: int, expected: float
) -> None:
    truth = there(*((shifted(100.0 * i), 0) for i in range(total)))
    rows, hit = [], 0
    for place, good in enumerate(right):
        rows.append((shifted(100.0 * hit if good else 5000.0 + 100.0 * place), 0, 0.9 - 0.1 * place))
        hit += good
    assert ap50([found(*rows)], [truth]) == pytest.approx(expected)


def test_scores_rank_over_all_pictures() -> None:
    truth = [there((SQUARE, 0)), there((SQUARE, 0))]
    ours = [found((shifted(50.0), 0, 0.6)), found((SQUARE, 0, 0.9))]
    assert ap50(ours, truth) == pytest.approx(51 / 101)
    ours = [found((shifted(50.0), 0, 0.9)), found((SQUARE, 0, 0.6))]
    assert ap50(ours, truth) == pytest.approx(0.5 * 51 / 101)


def test_a_second_box_on_the_same_object_is_wrong_and_the_better_score_chooses_first() -> None:
    truth = [there((SQUARE, 0), (shifted(100.0), 0))]
    twice = [found((SQUARE, 0, 0.9), (shifted(0.5), 0, 0.8), (shifted(100.0), 0, 0.7))]
    assert ap50(twice, truth) == pytest.approx((51 + 50 * 2 / 3) / 101)


def test_a_box_takes_the_object_that_it_overlaps_most_among_those_left() -> None:
    truth = [there((SQUARE, 0), (shifted(3.0), 0))]
    ours = [found((shifted(2.9), 0, 0.9), (shifted(1.6), 0, 0.8))]  # the second overlaps both; the first one is left
    assert ap50(ours, truth) == 1.0


def test_the_right_place_with_the_wrong_class_is_wrong_for_both_classes() -> None:
    table = average_precision([found((SQUARE, 1, 0.9))], [there((SQUARE, 0))], 3)
    assert table[0].tolist() == [0.0] * len(IOUS)
    assert np.isnan(table[1:]).all()  # no picture has them: they do not count
    assert mean_precision(table) == (0.0, 0.0)


def _slow_precision(ours: list[Boxes], truth: list[Boxes], label: int, least: float) -> float:
    """By loops over plain numbers."""
    rows = sorted(
        ((s, p, b) for p, o in enumerate(ours) for b, c, s in zip(o.boxes_xyxy, o.labels, o.scores, strict=True)
         if c == label), key=lambda row: -row[0],
    )  # fmt: skip
    free = {(p, i) for p, t in enumerate(truth) for i, c in enumerate(t.labels) if c == label}
    total, hits, curve = len(free), 0, []
    for rank, (_, picture, box) in enumerate(rows, start=1):
        shares = {
            key: float(overlaps(box.astype(np.float64), truth[picture].boxes_xyxy[key[1]].astype(np.float64)))
            for key in free if key[0] == picture
        }  # fmt: skip
        best = max(shares, key=shares.get, default=None)
        if best is not None and shares[best] >= least:
            free.discard(best)
            hits += 1
        curve.append((hits / total, hits / rank))
    return sum(max((p for r, p in curve if r >= at), default=0.0) for at in np.linspace(0, 1, 101)) / 101


@pytest.mark.parametrize("seed", range(3))
def test_precision_equals_a_loop_over_random_boxes(seed: int) -> None:
    draw = np.random.default_rng(seed)
    truth, ours = [], []
    for _ in range(12):
        low = draw.uniform(0, 60, (3, 2))
        boxes, labels = np.concatenate([low, low + draw.uniform(15, 40, (3, 2))], 1), draw.integers(0, 2, 3)
        truth.append(Boxes(boxes.astype(np.float32), labels))
        near = np.repeat(boxes, 2, 0) + draw.normal(0, 2.0, (6, 4))
        ours.append(
            Boxes(near.astype(np.float32), np.where(draw.random(6) < 0.8, np.repeat(labels, 2), 0), draw.random(6))
        )
    table = average_precision(ours, truth, 2)
    expected = [[_slow_precision(ours, truth, label, least) for least in IOUS] for label in range(2)]
    np.testing.assert_allclose(table, expected, atol=1e-12)
    assert 0.1 < table.mean() < 0.9


def test_pictures_without_a_match_are_refused_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="found: boxes of 1 pictures, expected 2"):
        average_precision([found()], [there(), there()], 1)
    with pytest.raises(ValueError, match="no picture has a box; give it pictures with boxes"):
        mean_precision(average_precision([found()], [there()], 2))


def test_suppression_keeps_the_best_of_a_class_and_stops_where_told() -> None:
    boxes = np.array([SQUARE, shifted(1.0), shifted(4.0), shifted(1.0), shifted(90.0)])
    scores, labels = np.array([0.5, 0.9, 0.8, 0.7, 0.9]), np.array([0, 0, 0, 1, 0])
    # 0 overlaps 1 by 9/11; 2 overlaps 1 by 7/13, just above a half; 3 is of another class
    assert suppress(boxes, scores, labels, 0.5).tolist() == [1, 4, 3]
    assert suppress(boxes, scores, labels, 0.6).tolist() == [1, 4, 2, 3]
    assert suppress(boxes, scores, labels, 0.6, most=2).tolist() == [1, 4]
    assert suppress(boxes[:0], scores[:0], labels[:0], 0.5).tolist() == []
