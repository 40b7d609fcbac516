"""python -m converters boxes: a checkpoint of a detector -> bundle."""

from __future__ import annotations

from typing import Any

import click
import torch

from converters.box_task import Detection
from converters.build import build
from converters.build_options import BuildOptions, say_written, with_build_options
from converters.errors import ConversionError
from zoo.checkpoint import load_checkpoint
from zoo.pictures import PictureSource

ONLY_ENGINE = "onnxruntime"


@click.command("boxes")
@with_build_options
def boxes_command(**values: Any) -> None:
    """Export, verify and pack a detector that python -m zoo boxes trained."""
    options = BuildOptions(**values)
    _require_engine(f"--backend is {options.backend!r}", options.backend or ONLY_ENGINE)
    choices = options.choices()
    _require_engine(f"device profile {options.profile!r} asks for executorch", ",".join(choices.backends))
    torch.set_num_threads(choices.threads)
    held = load_checkpoint(options.checkpoint)
    request = options.request("boxes", held, PictureSource(options.data), choices, kind=Detection)
    say_written(*build(request, click.echo))


def _require_engine(what: str, backends: str) -> None:
    if "executorch" in backends:
        raise ConversionError(
            f"{what}, and detectors are converted for ONNX Runtime alone; give --backend {ONLY_ENGINE}"
        )  # fmt: skip
