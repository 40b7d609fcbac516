"""edge-runtime compare: a gate for continuous integration, from two profile results."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edge_runtime.errors import ResultError

REGRESSED_CODE = 1


def _share(context: click.Context, option: click.Parameter, text: str) -> float:
    """A share such as 5% or 0.05, as a number from 0 to below 10."""
    text = text.strip()
    try:
        share = float(text[:-1]) / 100.0 if text.endswith("%") else float(text)
    except ValueError:
        share = -1.0
    if not 0.0 <= share < 10.0:
        raise click.BadParameter(f"{text[:40]!r}: expected a share such as 5% or 0.05", context, option)
    return share


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--fail-over", callback=_share, default="5%", show_default=True, help="Slower than by this fails.")
@click.option(
    "--fail-accuracy", callback=_share, default="1%", show_default=True, help="A greater loss of accuracy fails."
)
@click.option(
    "--as-measured", is_flag=True, help="Do not take out what the device's own speed changed between A and B."
)
@click.option("--format", "-f", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def compare(a: Path, b: Path, fail_over: float, fail_accuracy: float, as_measured: bool, form: str) -> None:
    """Say whether profile result B is slower or less accurate than A, beyond the limits and the noise.

    Exit code 0: no regression; 1: regression; 9: the two cannot be judged.
    """
    from edge_runtime.profiling.compare import compare_results
    from edge_runtime.profiling.comparison_table import render_comparison
    from edge_runtime.profiling.result import load_result

    comparison = compare_results(load_result(a), load_result(b), fail_over, fail_accuracy, as_measured=as_measured)
    click.echo(json.dumps(comparison.to_dict()) if form == "json" else render_comparison(comparison))
    if comparison.inconclusive:
        raise click.exceptions.Exit(ResultError.exit_code)
    if comparison.regressed:
        raise click.exceptions.Exit(REGRESSED_CODE)
