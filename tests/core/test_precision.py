"""bfloat16 is what it says everywhere: also on processors with AMX, where PyTorch gets some convolutions wrong."""

import pytest
import torch
from torch import nn

from poseglass.core import precision
from poseglass.core.precision import guarded_precision, has_bfloat16, narrow_convolution_fault, narrow_convolutions
from poseglass.networks import NETWORKS

CPU = torch.device("cpu")


class Narrowing(nn.Module):
    """Three convolutions, of which the second is of the faulty shape at 16 pixels of width."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 160, 3, stride=4, padding=1)
        self.second = nn.Conv2d(160, 320, 3, stride=4, padding=1)
        self.third = nn.Conv2d(320, 2, 3, padding=1)

    def forward(self, images):
        return [{"heatmap": self.third(self.second(self.first(images)))}]


class Asking(Narrowing):
    """One that looks at its numbers, which the meta device does not have."""

    def forward(self, images):
        return super().forward(images) if images.sum() == 0 else []


def leave_nan_in_freed_memory() -> None:
    """Fill what the allocator will hand out next with NaN, in blocks of many sizes."""
    blocks = [torch.full((n,), float("nan")) for n in (2**k for k in range(6, 22)) for _ in range(4)]
    del blocks


@pytest.mark.parametrize("kind", [Narrowing, Asking])
def test_convolutions_to_one_pixel_are_found(kind):
    assert narrow_convolutions(kind(), (16, 64)) == ["second"]
    assert narrow_convolutions(kind(), (32, 64)) == []
    assert narrow_convolutions(kind(), (64, 16)) == []  # one pixel high is right


@pytest.mark.slow
def test_networks_at_their_usual_sizes_are_not_affected():
    assert narrow_convolutions(NETWORKS["simple_baseline_light"](num_keypoints=3), (128, 128)) == []
    assert narrow_convolutions(NETWORKS["simple_baseline_light"](num_keypoints=3), (32, 64)) != []
    assert narrow_convolutions(NETWORKS["hg2_light"](num_keypoints=3), (64, 64)) == []


@pytest.mark.parametrize(
    ("isa", "faulty"),
    [("", True), ("ALL", True), ("AVX512_CORE_AMX", True), ("avx512_core_bf16", False), ("AVX2", False)],
)
def test_the_fault_is_that_of_amx(monkeypatch, isa, faulty):
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", isa)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert narrow_convolution_fault(CPU) is faulty
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False, raising=False)
    assert not narrow_convolution_fault(CPU)
    assert not narrow_convolution_fault(torch.device("meta"))


@pytest.mark.parametrize(
    ("onednn", "avx512", "amx", "expected"),
    [
        (True, True, False, True),
        (True, False, False, False),  # emulated
        (False, True, True, False),
        (True, None, None, True),
        (True, None, False, False),
        (None, True, None, True),
        (None, None, None, False),
    ],
)
def test_bfloat16_whatever_pytorch_still_answers(monkeypatch, onednn, avx512, amx, expected):
    class Asked:
        pass

    asked = {"_is_mkldnn_bf16_supported": onednn, "_is_avx512_bf16_supported": avx512, "_is_amx_tile_supported": amx}
    for name, answer in asked.items():
        if answer is not None:
            setattr(Asked, name, staticmethod(lambda answer=answer: answer))
    monkeypatch.setattr(torch.ops, "mkldnn", Asked)
    monkeypatch.setattr(torch, "cpu", Asked)
    assert has_bfloat16(CPU) is expected


def test_a_pytorch_that_does_not_report_amx_is_assumed_to_have_the_fault(monkeypatch):
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported")
    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA", raising=False)
    assert narrow_convolution_fault(CPU)
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16")
    assert not narrow_convolution_fault(CPU)


def test_only_an_affected_network_falls_back_from_bfloat16(monkeypatch):
    monkeypatch.setattr(precision, "narrow_convolution_fault", lambda device: True)
    dtype, words = guarded_precision(torch.bfloat16, Narrowing(), [(32, 64), (16, 64)], CPU)
    assert dtype == torch.float32
    assert words.startswith("float32 instead of bfloat16: at 16 x 64 px 1 convolutions (second first) give maps one")
    assert guarded_precision(torch.bfloat16, Narrowing(), [(32, 64)], CPU) == (torch.bfloat16, "")
    assert guarded_precision(torch.float32, Narrowing(), [(16, 64)], CPU) == (torch.float32, "")
    monkeypatch.setattr(precision, "narrow_convolution_fault", lambda device: False)
    assert guarded_precision(torch.bfloat16, Narrowing(), [(16, 64)], CPU) == (torch.bfloat16, "")


def test_the_chosen_precision_never_reads_uninitialised_memory():
    """On a processor with AMX this fails in most runs without the guard."""
    torch.manual_seed(0)
    network, images = Narrowing().eval(), torch.randn(4, 3, 64, 16)
    dtype, _ = guarded_precision(torch.bfloat16, network, [(16, 64)], CPU)
    with torch.no_grad():
        expected = network(images)[0]["heatmap"]
        answers = []
        for _ in range(20):
            leave_nan_in_freed_memory()
            with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
                answers.append(network(images)[0]["heatmap"].float())
    assert all(torch.equal(answers[0], other) for other in answers)
    torch.testing.assert_close(answers[0], expected, rtol=0.1, atol=0.05)
