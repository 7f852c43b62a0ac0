import subprocess
import sys

import torch
from torch import nn

from poseglass.core.shapes_only import shapes_only


def test_modules_have_shapes_and_no_values():
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    with shapes_only():
        conv = nn.Conv2d(3, 8, 3)
        nn.init.kaiming_normal_(conv.weight)
        nn.init.normal_(tensor=conv.weight)
        nn.init.zeros_(conv.bias)
    assert conv.weight.is_meta
    assert conv.weight.shape == (8, 3, 3, 3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert (nn.init.ones_(nn.Conv2d(3, 8, 3).weight) == 1).all()  # outside, they fill again


def test_the_compiler_is_not_imported_for_it():
    """PyTorch's compiler takes a second to import, which everybody who opens weights would wait."""
    code = (
        "import sys, poseglass as pg; pg.load_top_down(); "
        "print([name for name in ('torch._dynamo', 'matplotlib', 'onnxruntime', 'openvino') if name in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ran.stdout.strip() == "[]", ran.stdout + ran.stderr
