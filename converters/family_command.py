"""python -m converters family a.onnx b.onnx ...: arguments of the road from anybody's models to a bundle."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import click

from converters.build_choices import choose
from converters.errors import ConversionError
from converters.family import FamilyRequest, FamilyResult, build_family
from converters.family_net import CHANNEL_ORDERS, LAYOUTS, FamilyNet, read_net
from converters.family_pictures import PictureFiles, label_pictures, read_answers, read_labels, split_pictures
from converters.int8_graph import QuantSpec
from edge_runtime.manifest import Preprocessing
from edge_runtime.preprocess import FITS, RESIZES

SIDES = re.compile(r"(\d+)(?:x(\d+))?")


@click.command("family")
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--labels", type=click.Path(path_type=Path), required=True, help="One label a line, in output order.")
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Labelled pictures: folder or zip.")
@click.option("--answers", type=click.Path(path_type=Path), help="CSV of picture,label for a flat folder.")
@click.option("--calibration", type=click.Path(path_type=Path), help="Pictures for int8 ranges; default: some of DATA.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="NAME.bundle, a new folder.")
@click.option(
    "--resolutions", multiple=True, metavar="[MODEL=]N,N,..", help="Input sizes, 224 or 192x256 (rows x columns)."
)
@click.option("--layout", type=click.Choice(LAYOUTS), default="auto", show_default=True)
@click.option("--channels", type=click.Choice(CHANNEL_ORDERS), default="rgb", show_default=True)
@click.option("--mean", default="0", show_default=True, help="One number or three, in 0-255 units, in R,G,B order.")
@click.option("--std", default="255", show_default=True, help="Likewise; input = (pixel - mean) / std.")
@click.option("--fit", type=click.Choice(FITS), default="crop", show_default=True)
@click.option("--crop-share", type=click.FloatRange(0.05, 1.0), default=1.0, show_default=True)
@click.option("--resize", type=click.Choice(RESIZES), default="area", show_default=True)
@click.option("--output", help="Which output to use, where a model has several.")
@click.option("--profile", help="Device profile (name or file): precision, threads and number of points from there.")
@click.option("--precision", help="fp32, int8, or fp32,int8; default: the profile's, else fp32,int8.")
@click.option("--reduce-range/--full-range", default=None, help="7-bit weights for x86 without VNNI; default: by CPU.")
@click.option("--max-drop", type=click.FloatRange(0, 1), default=0.01, show_default=True, help="What int8 may lose.")
@click.option("--threads", type=click.IntRange(1), help="For measuring and timing; default: 1, or the profile's.")
@click.option("--max-points", type=click.IntRange(2), help="Keep at most so many points.")
@click.option(
    "--drop-dominated/--keep-dominated", default=None, help="Default: drop, unless PROFILE is another machine."
)
@click.option("--max-pictures", type=click.IntRange(8), default=2000, show_default=True, help="Use so many of DATA.")
@click.option("--force", is_flag=True, help="Replace an existing bundle.")
def family_command(
    models: tuple[Path, ...], labels: Path, data: Path, answers: Path | None, calibration: Path | None, out: Path,
    resolutions: tuple[str, ...], layout: str, channels: str, mean: str, std: str, fit: str, crop_share: float,
    resize: str, output: str | None, profile: str | None, precision: str | None, reduce_range: bool | None,
    max_drop: float, threads: int | None, max_points: int | None, drop_dominated: bool | None, max_pictures: int,
    force: bool,
) -> None:  # fmt: skip
    """Make one bundle of separately trained models of one task (any ONNX classifiers with equal outputs)."""
    wanted = precision or ("fp32,int8" if profile is None else None)
    choices = choose(profile, None, wanted, threads, reduce_range, max_points, drop_dominated)
    if choices.backends != ("onnxruntime",):
        raise ConversionError(
            f"device profile {profile!r} asks for {','.join(choices.backends)}, but an .onnx file runs on onnxruntime "
            "only; choose another profile, or build from a checkpoint (python -m converters build)"
        )
    preprocessing = Preprocessing(three("--mean", mean), three("--std", std), fit, crop_share, resize)
    names = read_labels(labels)
    nets = tuple(read_net(path, layout, channels, output) for path in models)
    sizes = input_sizes(nets, resolutions)
    source = PictureFiles(data)
    pictures = label_pictures(source, names, None if answers is None else read_answers(answers))
    splits, how = split_pictures(pictures, max_pictures)
    click.echo(how)
    request = FamilyRequest(
        nets, sizes, names, preprocessing, out, source, splits,
        calibration=None if calibration is None else PictureFiles(calibration),
        precisions=choices.precisions, quant=QuantSpec(reduce_range=choices.reduce_range, max_drop=max_drop),
        threads=choices.threads, overwrite=force,
        drop_dominated=choices.drop_dominated if profile is not None or drop_dominated is not None else True,
        max_points=choices.max_points, notes=(how,),
        provenance={
            "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "models": ", ".join(path.name for path in models),
            "command": f"converters family {' '.join(p.name for p in models)} --data {data.name} --out {out.name}",
        },
    )  # fmt: skip
    print_result(build_family(request, click.echo))


def input_sizes(nets: Sequence[FamilyNet], resolutions: Sequence[str]) -> Mapping[str, tuple[tuple[int, int], ...]]:
    """Net -> sizes, from "224,192" for all or "NAME=224,192" for one; a net of fixed size has that one.

    Raises:
        ConversionError: a name or size is wrong, or a net that takes any size gets none.
    """
    by_net: dict[str, tuple[tuple[int, int], ...]] = {}
    for text in resolutions:
        name, equals, rest = text.rpartition("=")
        by_net[name if equals else ""] = _sizes(rest)
    for name in by_net:
        if name and name not in {net.name for net in nets}:
            raise ConversionError(f"--resolutions names {name!r}, expected one of {', '.join(n.name for n in nets)}")
    found = {}
    for net in nets:
        wanted = by_net.get(net.name, by_net.get("", ()))
        fixed = net.fixed_size
        if fixed is not None and net.name in by_net and wanted != (fixed,):
            raise ConversionError(f"{net.name}: takes only {fixed[0]}x{fixed[1]}; export it with free height and width")
        if fixed is None and not wanted:
            raise ConversionError(f"{net.name}: takes pictures of any size; say which with --resolutions 224,192,160")
        found[net.name] = (fixed,) if fixed is not None else wanted
        for given, own in ((h_w[axis], net.size_hw[axis]) for h_w in found[net.name] for axis in (0, 1)):
            if own not in (None, given):
                raise ConversionError(f"{net.name}: one side is fixed to {own} pixels, {given} asked for")
    return found


def three(option: str, text: str) -> tuple[float, float, float]:
    """ "127" or "123.7,116.3,103.5".

    Raises:
        ConversionError: it is neither.
    """
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) == 1:
        numbers *= 3
    if len(numbers) != 3 or (option == "--std" and min(numbers) <= 0):
        raise ConversionError(f"{option} is {text!r}, expected one number or three with commas between")
    return (numbers[0], numbers[1], numbers[2])


def print_result(result: FamilyResult) -> None:
    """The table of points, and where the bundle is."""
    from edge_runtime.bundle import Bundle

    kept = {p.name for p in Bundle.load(result.path, verify=False).manifest.points}
    click.echo(f"{'point':28} {'select':>7} {'test':>7} {'ms':>8}")
    for point in sorted(result.points, key=lambda p: p.latency_ms or 0.0):
        select, test = (f"{point.accuracy[s]:.1%}" if s in point.accuracy else "-" for s in ("select", "test"))
        left_out = "" if point.name in kept else "  left out"
        click.echo(f"{point.name:28} {select:>7} {test:>7} {point.latency_ms or 0.0:8.2f}{left_out}")
    size = sum(p.stat().st_size for p in result.path.rglob("*") if p.is_file())
    click.echo(f"wrote {result.path}: {len(kept)} points, {size / 1e6:.1f} MB")


def _sizes(text: str) -> tuple[tuple[int, int], ...]:
    found = []
    for part in text.split(","):
        match = SIDES.fullmatch(part.strip())
        size = None if match is None else (int(match[1]), int(match[2] or match[1]))
        if size is None or not all(8 <= side <= 4096 for side in size):
            raise ConversionError(f"--resolutions: {part!r} is no size; expected 224, or 192x256 (rows x columns)")
        found.append(size)
    return tuple(dict.fromkeys(found))
