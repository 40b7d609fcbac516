"""edge-runtime report: a page about profiles and recorded runs."""

from __future__ import annotations

from pathlib import Path

import click

DEFAULT_PAGE = Path("report.html")


@click.command()
@click.argument("results", nargs=-1, required=True, metavar="RESULT...", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="File to write; default: report.html, else the output.")
@click.option(
    "--format",
    "-f",
    "form",
    type=click.Choice(["html", "json", "csv", "md"]),
    default="html",
    show_default=True,
    help="A page with charts, or its figures and tables; only html needs the extra 'report'.",
)
def report(results: tuple[Path, ...], out: Path | None, form: str) -> None:
    """Show what a model costs on this device, or how a recorded run went.

    RESULT is what edge-runtime profile wrote, or a telemetry file (--telemetry FILE of run and of the camera). Several
    profiles of one bundle stand side by side.
    """
    from edge_runtime.reporting.report import report_text, write_report

    if out is None and form != "html":
        click.echo(report_text(results, form), nl=False)
        return
    written = write_report(results, form, out or DEFAULT_PAGE)
    click.echo(f"wrote {written} ({written.stat().st_size / 1e6:.2f} MB)")
