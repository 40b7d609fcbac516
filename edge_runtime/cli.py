"""The edge-runtime command. Each command parses, calls one function, prints, and returns a code."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

try:
    import click
except ImportError:  # the command belongs to an extra; say so instead of a traceback
    print(
        "error: click is not installed; it is needed for this command: pip install 'edge-runtime[camera]'",
        file=sys.stderr,
    )
    sys.exit(4)

from edge_runtime.bundle import Bundle, default_bundle_path
from edge_runtime.cli_compare import compare
from edge_runtime.cli_profile import profile
from edge_runtime.cli_replay import replay
from edge_runtime.cli_report import report
from edge_runtime.cli_run import run
from edge_runtime.errors import EdgeRuntimeError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Adaptive inference: one model, many operating points, chosen frame by frame."""


@cli.command()
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option("--format", "-f", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def inspect(bundle: Path | None, form: str) -> None:
    """Check a bundle and show what is in it."""
    opened = Bundle.load(bundle or default_bundle_path())
    manifest = opened.manifest
    rows = [
        {
            "point": p.name, "width": p.width, "size_hw": list(p.size_hw), "madds": p.madds, "accuracy": p.accuracy,
            "latency_ms": p.latency_ms, **({} if p.frames is None else {"frames": p.frames}),
            **({} if p.anchors is None else {"anchors": p.anchors}),
        }
        for p in sorted(manifest.points, key=lambda p: p.madds)
    ]  # fmt: skip
    size = sum(f.size_bytes for f in manifest.files.values())
    if form == "json":
        click.echo(json.dumps({"name": manifest.name, "labels": manifest.labels, "size_bytes": size, "points": rows}))
        return
    click.echo(
        f"{manifest.name}: {manifest.task}, {len(manifest.labels)} labels, {len(rows)} points, {size / 1e6:.2f} MB"
    )
    click.echo(f"labels: {', '.join(manifest.labels[:30])}{' ...' if len(manifest.labels) > 30 else ''}")
    for key, value in {**manifest.splits, **manifest.provenance}.items():
        click.echo(f"{key}: {value}")
    for row in rows:
        click.echo(_point_line(row))


def _point_line(row: dict[str, Any]) -> str:
    measure = "AP50 " if "anchors" in row else ""
    accuracy = "  ".join(f"{measure}{split} {value:.3f}" for split, value in row["accuracy"].items())
    latency = "" if row["latency_ms"] is None else f"  {row['latency_ms']:7.3f} ms"
    size = "x".join(map(str, [*([row["frames"]] if "frames" in row else []), *row["size_hw"]]))
    work = f"{row['madds'] / 1e6:9.2f} MMAdds"
    return f"  {row['point']:<18} width {row['width']:.2f}  {size:>9}  {work}{latency}  {accuracy}"


@cli.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("archive", type=click.Path(path_type=Path))
def pack(bundle: Path, archive: Path) -> None:
    """Put a bundle into a zip for transport."""
    from edge_runtime.bundle_files import zip_bundle

    Bundle.load(bundle)
    zip_bundle(bundle, archive)
    click.echo(f"wrote {archive}")


@cli.command()
@click.argument("archive", type=click.Path(path_type=Path))
@click.argument("bundle", type=click.Path(path_type=Path))
def unpack(archive: Path, bundle: Path) -> None:
    """Take a bundle out of its zip, with the same checks as loading."""
    from edge_runtime.bundle_files import unzip_bundle

    unpacked = unzip_bundle(archive, bundle)
    try:
        Bundle.load(unpacked)
    except EdgeRuntimeError:
        shutil.rmtree(unpacked, ignore_errors=True)
        raise
    click.echo(f"unpacked to {bundle}")


@cli.command()
@click.argument("bundle", type=click.Path(path_type=Path), required=False)
@click.option("--backend", multiple=True, help="Engine to test; default: all that the bundle has programs for.")
@click.option("--threads", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--require-signature", type=click.Path(path_type=Path), default=None, metavar="KEY", help="Public key.")
@click.option("--format", "-f", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def verify(
    bundle: Path | None, backend: tuple[str, ...], threads: int, require_signature: Path | None, form: str
) -> None:
    """Check a bundle on this device: signature, hashes, self-test through the engine, latency."""
    from edge_runtime.self_check import require_passed, verify_bundle
    from edge_runtime.signature import require_signature as check_signature

    path = bundle or default_bundle_path()
    if require_signature is not None:
        check_signature(path, require_signature)
    opened = Bundle.load(path)
    verdicts = verify_bundle(opened, threads, backend or None)
    if form == "json":
        click.echo(json.dumps([v.to_dict() for v in verdicts]))
    else:
        click.echo(f"{path}: {len(opened.manifest.files)} files as the manifest says")
        for verdict in verdicts:
            error = "no vectors" if verdict.error is None else f"error {verdict.error:.1e}"
            state = verdict.fault or "ok"
            click.echo(f"  {verdict.point:<20} {verdict.backend:<12} {error:<16} {verdict.latency_ms:8.3f} ms  {state}")
    require_passed(verdicts)


@cli.command()
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path(), help="Folder for the keys.")
def keys(name: str, out: Path) -> None:
    """Make a pair of keys for signing bundles."""
    from edge_runtime.signature import make_keys

    private, public = make_keys(out, name)
    click.echo(f"wrote {private} (keep it secret) and {public}")


@cli.command()
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("private_key", type=click.Path(path_type=Path))
def sign(bundle: Path, private_key: Path) -> None:
    """Sign a bundle with a private key."""
    from edge_runtime.signature import sign_bundle

    Bundle.load(bundle)
    click.echo(f"wrote {sign_bundle(bundle, private_key)}")


@cli.command()
@click.option("--format", "-f", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def doctor(form: str) -> None:
    """Say what this machine has, what is missing, and which extra brings it."""
    from edge_runtime.doctor import diagnose, findings_as_json, render_doctor

    findings = diagnose()
    click.echo(json.dumps(findings_as_json(findings)) if form == "json" else render_doctor(findings))


@cli.command()
@click.option("--format", "-f", "form", type=click.Choice(["table", "json"]), default="table", show_default=True)
def devices(form: str) -> None:
    """List the device profiles and name the best match for this machine, with the reason."""
    from edge_runtime.device_list import devices_as_json, render_devices

    click.echo(json.dumps(devices_as_json()) if form == "json" else render_devices())


cli.add_command(run)
cli.add_command(profile)
cli.add_command(report)
cli.add_command(replay)
cli.add_command(compare)


def main() -> None:
    """Entry point: errors become one sentence and an exit code. A reader that leaves, such as `head`, is click's: 1."""
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except click.Abort:
        code = 130
    except EdgeRuntimeError as error:
        click.echo(f"error: {error}", err=True)
        code = error.exit_code
    except KeyboardInterrupt:
        code = 130
    sys.exit(code if isinstance(code, int) else 0)
