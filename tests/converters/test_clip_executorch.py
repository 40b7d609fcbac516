"""Networks for clips run on ExecuTorch in two dimensions, their norms folded: the numbers of torch."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from converters.executorch_export import lower
from converters.norm_folding import find_norm_pairs, fold_norms
from edge_runtime.backends.executorch import LoadedProgram, import_engine
from zoo.clip_taps import two_dimensional
from zoo.stm import STM
from zoo.x3d import X3D

pytest.importorskip("executorch")
pytestmark = pytest.mark.slow  # half a minute to a minute of lowering each
MIN_DELEGATED = 0.9

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "X3D": lambda: X3D(5, depths=(1, 1, 1, 1), width_mult=0.5),
    "STM": lambda: STM(5, frames=4, depths=(1, 1, 1, 1), width_mult=0.25),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_executorch_equals_torch(name: str) -> None:
    import zoo

    torch.manual_seed(0)
    model = NETWORKS[name]()
    for module in model.modules():
        if hasattr(module, "running_var"):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.8, 1.2)
    plain = zoo.materialise(model.eval(), width=1.0, resolution=32).eval()
    clip = torch.randn(1, 3, 4, 32, 32)
    with torch.no_grad():
        expected: Tensor = plain(clip)
        flat = two_dimensional(fold_norms(plain, find_norm_pairs(plain, clip), clip))
        exported = torch.export.export(flat, (clip,))
    lowered = lower({"forward": exported}, None, lambda line: None, MIN_DELEGATED)
    _, engine = import_engine()
    program = LoadedProgram(engine, lowered.program)
    found = program.module.run_method("forward", (clip,))[0]
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
