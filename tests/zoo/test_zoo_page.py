"""What docs/zoo.md says of adding a block core is what the code is: one file under 100 lines, one row."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from zoo.models import MODELS, create

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLE = ROOT / "zoo" / "squeeze_excitation.py"


def test_the_worked_example_on_the_page_is_the_code_of_its_file() -> None:
    page = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    block = re.search(r"## Add a block core.*?```python\n(.*?)```", page, re.DOTALL)
    assert block is not None
    code = EXAMPLE.read_text(encoding="utf-8")
    without_docstring = re.sub(r'    """Global mean.*?"""\n\n', "", code, flags=re.DOTALL)
    for part in block[1].split("\n\n\n"):
        assert part.strip() in without_docstring


def test_the_worked_example_takes_one_file_under_100_lines_and_one_row() -> None:
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 100
    assert (ROOT / "zoo" / "models.py").read_text(encoding="utf-8").count("squeeze_excitation.VARIANTS") == 1
    others = [p.name for p in (ROOT / "zoo").glob("*.py") if "squeeze_excitation" in p.read_text(encoding="utf-8")]
    assert sorted(others) == ["models.py", "sda.py"]  # SDA-SENet takes the gate as well


def test_a_new_core_in_a_file_of_its_own_is_a_network_that_trains_at_half_width(tmp_path: Path) -> None:
    text = '''
from functools import partial
from torch import nn
from zoo.resnet import Plan, ResNet, Site
from zoo.slim_layers import Channels, SlimBatchNorm, SlimConv

def depthwise_core(channels: Channels, site: Site) -> nn.Module:
    """A depthwise 3x3 convolution in place of the full one."""
    convolution = SlimConv(channels, channels, 3, stride=site.stride, groups=channels)
    return nn.Sequential(convolution, SlimBatchNorm(channels), nn.ReLU(inplace=True))

VARIANTS = {"depthwise_resnet50": partial(ResNet, plan=Plan(core=depthwise_core))}
'''
    module: dict[str, object] = {}
    exec(compile(text, str(tmp_path / "depthwise.py"), "exec"), module)
    MODELS.update(module["VARIANTS"])
    try:
        model = create("depthwise_resnet50", num_classes=3, width_mult=0.25, depths=(1, 1, 1, 1), small_input=True)
        model.train()(torch.randn(2, 3, 32, 32), 0.5).sum().backward()
        assert any(p.grad is not None and float(p.grad.abs().sum()) > 0 for p in model.stages.parameters())
    finally:
        del MODELS["depthwise_resnet50"]
