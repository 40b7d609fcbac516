"""The tables of the family and of published weights say what was measured and what was left out."""

from __future__ import annotations

from types import SimpleNamespace

from benchmarks import family_table, published_weights


def point(name: str, share: float) -> SimpleNamespace:
    return SimpleNamespace(name=name, accuracy={"select": 0.5, "test": share, "all": share - 0.1}, madds=385_000_000)


def test_a_family_table_has_a_row_per_size_and_names_what_is_missing() -> None:
    points = [point("lite0-r224-fp32", 0.8), point("lite0-r224-int8", 0.75), point("lite0-r128-fp32", 0.6)]
    bundle = SimpleNamespace(manifest=SimpleNamespace(points=points))
    rows = family_table.rows_of(bundle, {p.name: 2.5 for p in points})
    assert family_table.render(rows).splitlines()[2:] == [
        "| lite0-r224 | 385 | 80.0 % / 70.0 % | 75.0 % / 65.0 % | 2.50 ms, 2.50 ms |",
        "| lite0-r128 | 385 | 60.0 % / 50.0 % | left out | 2.50 ms, - |",
    ]


def test_the_table_of_weights_says_how_pictures_were_prepared() -> None:
    row = {"network": "lite2", "side": 260, "padding": "same", "crop_share": 0.875, "resize": "cubic", "top1": 0.8765}
    lines = published_weights.render([row | {"fit": "crop"}, row | {"fit": "squash"}]).splitlines()
    assert lines[2] == "| lite2 | 260 | same | centred square x 0.875 | cubic | 87.6 % |"
    assert "all, squashed" in lines[3]


def test_the_bundles_preprocessing_is_among_what_is_compared() -> None:
    from converters.imagenet_lite import PREPROCESSING, SIZES

    ours = ("same", PREPROCESSING.fit, PREPROCESSING.crop_share, PREPROCESSING.resize)
    assert all(ours in trials for trials in published_weights.TRIALS.values())
    assert {name: sides[0] for name, sides in SIZES.items()} == published_weights.SIDES
