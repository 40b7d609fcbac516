"""The README's table of what adapting is worth."""

from __future__ import annotations

from benchmarks.readme_table import LOADS, adapting_table


def test_each_load_has_a_row_with_every_way_to_run_and_the_clairvoyant_last() -> None:
    policies = ("oracle", "ours", "static", "best-static", "alert")
    live = {
        f"recorded {load} 30 fps": {
            name: {"attainment": 0.9 + number / 100, "in_time_accuracy": 0.5 + (number + 5 * row) / 100}
            for number, name in enumerate(policies)
        }
        for row, load in enumerate(LOADS)
    }
    lines = adapting_table(live).splitlines()
    assert len(lines) == 2 + len(LOADS)
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert lines[2] == "| no other program | 92.0%, 52.0% | 93.0%, 53.0% | 91.0%, 51.0% | 50.0% |"
    assert lines[4].endswith("| 92.0%, 62.0% | 93.0%, 63.0% | 91.0%, 61.0% | 60.0% |")
