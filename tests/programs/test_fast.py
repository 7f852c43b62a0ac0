"""Faster runners give the plain network's maps, or say that they cannot and give them all the same."""

import importlib
import shutil
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import poseglass as pg
from poseglass.core.table import build
from poseglass.networks import NETWORKS
from poseglass.programs import fast as runners
from poseglass.programs import inductor
from poseglass.programs.fast import CHUNK, difference, fast_forward, fold_batch_norms, lowered
from poseglass.programs.torch_program import torch_forward

SMALL: dict[str, dict[str, Any]] = {
    "classifier": {"backbone": {"name": "mobilenet_v3_small", "width": 0.5}},
    "multi_scale_densenet": {"exits": 2, "layers": 2, "growth": 4, "width": 8, "num_classes": 3},
    "msdnet": {"exits": 2, "layers": 2, "growth": 4, "num_classes": 3},
    "stacked_hourglass": {"num_stacks": 2, "width": 16, "depth": 2, "num_blocks": 2},
    "unet": {"width": 8, "depth": 2},
    "corner_hourglass": {"num_stacks": 2, "widths": (16, 16, 24), "blocks": (2, 1, 2)},
    "pose_machine": {"num_stages": 3, "width": 16, "first_width": 32, "feature_width": 8},
    "cpn": {"backbone": {"name": "resnet18", "width": 8}, "width": 8},
    "hrnet": {"width": 8, "num_modules": (1, 1, 1), "num_blocks": 1, "num_bottlenecks": 1, "stem_width": 8},
    "simple_baseline": {"depth": 18, "width": 8, "deconv_width": 16},
    "centernet_hourglass": {"num_stacks": 2, "widths": (16, 16, 24), "blocks": (2, 1, 2), "head_width": 8},
    "centernet_resnet": {"width": 8, "deconv_width": 16, "head_width": 8},
    "centernet_fpn": {"width": 8, "fpn_width": 16, "head_width": 8},
    "composed": {"backbone": {"name": "mobilenet_v3_small", "width": 0.5}, "neck": {"name": "fpn", "width": 16}},
}
"""Arguments that make a small member of a generic family."""


class Stage(nn.Module):
    """Features as the heatmaps of one stage."""

    def forward(self, features: torch.Tensor) -> list[dict[str, torch.Tensor]]:
        return [{"heatmap": features}]


class Toy(nn.Module):
    """Convolution, transposed convolution, and what ``last`` names; 16 x 8 pixels in and out."""

    def __init__(self, last: str = "plain", groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(4)
        self.up = nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1, groups=groups)
        self.norm2 = nn.BatchNorm2d(4)
        self.out = nn.Conv2d(4, 2, 1)
        self.last = last

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        made = self.conv(images)
        if self.last == "relu in place":
            functional.relu(made, inplace=True)
        features = functional.relu(self.norm1(made), inplace=True)
        if self.last == "used twice":
            features = features + made
        if self.last == "called twice":
            features = self.norm1(features)
        features = self.norm2(self.up(features))
        if self.last == "reads the norm":
            features = features * self.norm1.weight.mean()
        return [{"heatmap": self.out(features)}]


def worn(network: nn.Module) -> nn.Module:
    """Give batch norm statistics and weights that are not those of a new network; evaluation mode."""
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
            nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
            nn.init.normal_(module.bias, 0, 0.2, generator=generator)
    return network.eval()


def toy(last: str = "plain", groups: int = 1) -> nn.Module:
    torch.manual_seed(0)
    return worn(Toy(last, groups))


def random_images(count: int = 2, height: int = 8, width: int = 16) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(2))


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


def never(sentence: str) -> None:
    pytest.fail(f"warned: {sentence}")


@pytest.mark.slow
@pytest.mark.slow_when_large
@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_folded_gives_the_plain_maps(name: str) -> None:
    torch.manual_seed(0)
    network = worn(build(NETWORKS, name, num_keypoints=3, **SMALL.get(name, {})))
    divisor = network.divisor
    assert isinstance(divisor, int)
    images = random_images(2, divisor, 2 * divisor)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    expected = torch_forward(network)(images)
    runner = fast_forward(network, (2 * divisor, divisor), on_warning=never)
    assert difference(expected, runner(images)) < 1e-4
    assert norms(fold_batch_norms(network, images[:1])) < norms(network)
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert difference(expected, torch_forward(network)(images)) == 0


def test_the_hourglass_keeps_only_the_norms_that_come_before_everything() -> None:
    network = NETWORKS["hg1_light"](num_keypoints=3)
    residuals = sum(type(module).__name__ == "PreActivationResidual" for module in network.modules())
    folded = fold_batch_norms(network, random_images(1, 32, 32))
    assert norms(folded) == residuals  # the first of each residual; its input is a sum


@pytest.mark.parametrize(
    ("last", "groups", "left"),
    [
        ("plain", 1, 0),
        ("plain", 2, 1),  # a grouped transposed convolution holds its weights in another order
        ("relu in place", 1, 1),
        ("called twice", 1, 1),
    ],
)
def test_what_is_folded_and_what_is_not(last: str, groups: int, left: int) -> None:
    network = toy(last, groups)
    images = random_images()
    assert norms(fold_batch_norms(network, images)) == left
    runner = fast_forward(network, (16, 8), on_warning=never)
    assert difference(torch_forward(network)(images), runner(images)) < 1e-4


@pytest.mark.parametrize(
    ("last", "reason"),
    [("used twice", r"maps differ by 0?\.?\d.* more than 0\.0001"), ("reads the norm", "no attribute 'weight'")],
)
def test_a_wrong_fold_is_refused_and_said(last: str, reason: str) -> None:
    network, said = toy(last), []
    images = random_images()
    runner = fast_forward(network, (16, 8), on_warning=said.append)
    assert difference(torch_forward(network)(images), runner(images)) < 1e-4
    assert len(said) == 1
    with pytest.raises(RuntimeError, match=f"not folded into the convolutions of Toy.*{reason}"):
        raise RuntimeError(said[0])


def test_difference_is_relative_and_lets_no_nan_through() -> None:
    maps = torch.tensor([4.0, -2.0])
    assert difference({"heatmap": maps}, {"heatmap": maps + torch.tensor([0.0, 1.0])}) == pytest.approx(0.25)
    assert not difference({"heatmap": maps}, {"heatmap": maps * torch.nan}) < 1
    assert difference({"heatmap": maps * 0}, {"heatmap": maps * 0}) == 0
    with pytest.raises(ValueError, match=r"expected heatmap \(2,\), got depth \(2,\)"):
        difference({"heatmap": maps}, {"depth": maps})


def test_bfloat16_keeps_norms_and_the_last_convolution_in_float32() -> None:
    lower = lowered(worn(NETWORKS["hg1_light"](num_keypoints=3)), random_images(1, 32, 32))
    kinds = {name: p.dtype for name, p in lower.named_parameters() if p.dtype == torch.float32}
    plain = [name for name in kinds if "norm" not in name]
    assert plain == ["outputs.0.heatmap.layer.weight", "outputs.0.heatmap.layer.bias"]
    assert norms(lower) * 2 == len(kinds) - 2


@pytest.mark.parametrize("name", ["hg1_light", "hg2_light"])
def test_bfloat16_maps_are_float32_and_near(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "has_bfloat16", lambda device: True)  # emulated where it is not there
    torch.manual_seed(0)
    network, images = worn(NETWORKS[name](num_keypoints=3)), random_images(2, 64, 32)
    maps = fast_forward(network, (32, 64), precision="bfloat16", on_warning=never)(images)
    assert maps["heatmap"].dtype == torch.float32
    apart = difference(torch_forward(network)(images), maps)
    assert 1e-4 < apart < 0.03


def test_a_processor_without_bfloat16_says_so_and_takes_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "has_bfloat16", lambda device: False)
    network, said = toy(), []
    runner = fast_forward(network, (16, 8), precision="bfloat16", on_warning=said.append)
    assert said == [
        "float32 instead of bfloat16: this device has no native bfloat16 arithmetic and would be slower with it."
    ]
    assert difference(torch_forward(network)(random_images()), runner(random_images())) < 1e-4


def test_a_shape_that_bfloat16_gets_wrong_says_so_and_takes_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "has_bfloat16", lambda device: True)
    monkeypatch.setattr("poseglass.core.precision.narrow_convolution_fault", lambda device: True)
    network, said = NETWORKS["simple_baseline_light"](num_keypoints=3), []
    runner = fast_forward(network, (32, 64), precision="bfloat16", on_warning=said.append)
    assert len(said) == 1
    assert said[0].startswith("float32 instead of bfloat16: at 32 x 64 px ")
    assert difference(torch_forward(network)(random_images(2, 64, 32)), runner(random_images(2, 64, 32))) < 1e-4


def test_another_precision_or_size_is_refused() -> None:
    with pytest.raises(ValueError, match="precision must be one of 'float32', 'bfloat16', got 'float16'"):
        fast_forward(toy(), (16, 8), precision="float16")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="Nearest valid sizes"):
        fast_forward(NETWORKS["hg1_light"](num_keypoints=3), (33, 32))


class Watched:
    """Stands for ``torch.compile``: keeps the shapes that compiled code was run with, and what was frozen."""

    def __init__(self, wrong: float = 0.0, error: Exception | None = None, *, wrong_frozen: float = 0.0) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.frozen: list[bool] = []
        self.wrong = wrong
        self.wrong_frozen = wrong_frozen
        self.error = error

    def __call__(self, module: Any, *, dynamic: bool, fullgraph: bool = False, options: Any = None) -> Any:
        assert fullgraph == bool(options)
        frozen: set[tuple[int, ...]] = set()

        def run(images: Tensor) -> dict[str, Tensor]:
            shape = tuple(images.shape)
            if torch._inductor.config.freezing:  # as compiled code, it stays what it was made as
                frozen.add(shape)
            self.shapes.append(shape)
            self.frozen.append(shape in frozen)
            if self.error is not None:
                raise self.error
            wrong = self.wrong + (self.wrong_frozen if shape in frozen else 0.0)
            return {name: maps + wrong for name, maps in module(images).items()}

        return run


@pytest.mark.parametrize(
    ("count", "batches"), [(1, [1]), (4, [1] * 4), (5, [8]), (8, [8]), (10, [8, 1, 1]), (14, [8, 8])]
)
def test_compiled_code_sees_two_sizes_of_batch(count: int, batches: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    monkeypatch.setattr(torch, "compile", watched)
    network, images = toy(), random_images(count)
    maps = fast_forward(network, (16, 8), compiled=True, on_warning=never)(images)
    assert [shape[0] for shape in watched.shapes] == batches
    assert set(batches) <= {1, CHUNK}
    assert difference(torch_forward(network)(images), maps) < 1e-4


@pytest.mark.parametrize(
    ("watched", "reason"),
    [
        (
            Watched(error=RuntimeError("No working C++ compiler found\nmore")),
            ", which needs a working C.. compiler: RuntimeError: No working C.. compiler found$",
        ),
        (Watched(wrong=0.5), ": maps differ by .* of the largest value from the original network's"),
    ],
    ids=["no compiler", "wrong code"],
)
def test_where_compiling_fails_it_runs_without_and_says_so_once(
    watched: Watched, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", watched)
    network, images, said = toy(), random_images(3), []
    runner = fast_forward(network, (16, 8), compiled=True, on_warning=said.append)
    for _ in range(2):
        assert difference(torch_forward(network)(images), runner(images)) < 1e-4
    assert watched.frozen == [True, False]
    assert len(said) == 1
    with pytest.raises(RuntimeError, match=f"Running without torch.compile{reason}"):
        raise RuntimeError(said[0])


def test_where_constants_fail_it_is_compiled_without_them(monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(wrong_frozen=0.5)
    monkeypatch.setattr(torch, "compile", watched)
    network = toy()
    said: list[str] = []
    runner = fast_forward(network, (16, 8), compiled=True, on_warning=said.append)
    for count in (1, 1, 8, 8):
        assert difference(torch_forward(network)(random_images(count)), runner(random_images(count))) < 1e-4
    assert watched.frozen == [True, False, False, False, False]
    assert len(said) == 1
    assert said[0].startswith("Compiled without treating weights as constants: maps differ")
    assert [shape[0] for shape in watched.shapes] == [1, 1, 1, 8, 8]


def without(monkeypatch: pytest.MonkeyPatch, module: str, how: str) -> None:
    """Take a module of PyTorch's settings away, or what is in it."""
    real = importlib.import_module

    def import_module(name: str) -> Any:
        if name != module:
            return real(name)
        if how == "no module":
            raise ImportError(name)
        return SimpleNamespace()

    monkeypatch.setattr(inductor.importlib, "import_module", import_module)


@pytest.mark.parametrize("how", ["no module", "no setting"])
def test_a_pytorch_that_cannot_freeze_compiles_without_and_says_so(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    monkeypatch.setattr(torch, "compile", watched)
    without(monkeypatch, "torch._inductor.config", how)
    network, said = toy(), []
    runner = fast_forward(network, (16, 8), compiled=True, on_warning=said.append)
    for count in (1, 8):
        assert difference(torch_forward(network)(random_images(count)), runner(random_images(count))) < 1e-4
    assert [shape[0] for shape in watched.shapes] == [1, 8]
    assert watched.frozen == [False, False]
    assert said == [
        f"Compiled without treating weights as constants: PyTorch {torch.__version__} has no setting "
        "torch._inductor.config.freezing."
    ]


@pytest.mark.parametrize("how", ["no module", "no setting"])
def test_a_pytorch_without_a_limit_of_forms_compiles_all_the_same(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    monkeypatch.setattr(torch, "compile", watched)
    without(monkeypatch, "torch._dynamo.config", how)
    network = toy()
    runner = fast_forward(network, (16, 8), compiled=True, on_warning=never)
    assert difference(torch_forward(network)(random_images(1)), runner(random_images(1))) < 1e-4
    assert watched.frozen == [True]


def test_the_settings_are_those_that_were_asked_for_and_end() -> None:
    limit, frozen = torch._dynamo.config.recompile_limit, torch._inductor.config.freezing
    with inductor.compile_settings(freezing=not frozen):
        assert torch._inductor.config.freezing is not frozen
        assert torch._dynamo.config.recompile_limit == inductor.RECOMPILE_LIMIT
    assert (torch._dynamo.config.recompile_limit, torch._inductor.config.freezing) == (limit, frozen)


def test_without_counters_of_versions_a_wrong_fold_is_still_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.zeros(1)
    before = inductor.version(tensor)
    tensor.add_(1)
    assert inductor.version(tensor) == before + 1
    assert inductor.version(object()) == 0  # type: ignore[arg-type]
    monkeypatch.setattr(runners, "version", lambda tensor: 0)
    images = random_images()
    assert norms(fold_batch_norms(toy(), images)) == 0
    for last, refused in (("plain", False), ("relu in place", True)):
        network, said = toy(last), []
        nn.init.ones_(network.get_parameter("norm1.bias"))  # else the ReLU before it changes nothing
        runner = fast_forward(network, (16, 8), on_warning=said.append)
        assert difference(torch_forward(network)(images), runner(images)) < 1e-4
        assert bool(said) is refused


def test_one_size_of_batch_that_fails_leaves_the_other_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, said = Watched(), []
    monkeypatch.setattr(torch, "compile", watched)
    network = toy()
    runner = fast_forward(network, (16, 8), compiled=True, on_warning=said.append)
    runner(random_images(1))
    watched.wrong = 0.5
    for count in (8, 8):
        assert difference(torch_forward(network)(random_images(count)), runner(random_images(count))) < 1e-4
    watched.wrong = 0.0
    runner(random_images(1))
    assert [shape[0] for shape in watched.shapes] == [1, 8, 8, 1]  # the second in both ways
    assert len(said) == 1
    assert said[0].startswith("Images (8, 3, 8, 16) run without torch.compile: maps differ")


class Broken(nn.Module):
    """Is compiled in two pieces, the second of which all runners of a program have in common."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, features: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        return self.layer(features)


@pytest.mark.slow
def test_many_runners_in_one_program_are_all_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch gives up after eight compiled forms of one piece of code."""
    real, frames = torch.compile, torch._dynamo.utils.counters["frames"]
    torch._dynamo.reset()

    def compiled(module: Any, dynamic: bool, fullgraph: bool = False, **_: Any) -> Any:
        return real(module, dynamic=dynamic, fullgraph=fullgraph, backend="eager")

    monkeypatch.setattr(torch, "compile", compiled)
    made: list[int] = []
    for channels in range(3, 15):
        said: list[str] = []
        network = nn.Sequential(nn.Conv2d(3, channels, 1), Broken(nn.Conv2d(channels, 2, 1)), Stage()).eval()
        before = frames["ok"]
        fast_forward(network, (16, 8), compiled=True, on_warning=said.append)(random_images(1))
        assert len(said) == 1
        assert said[0].startswith("Compiled without treating weights as constants")
        made.append(frames["ok"] - before)
    assert made[1:] == [2] * 11  # the first also compiles what does not depend on the network
    torch._dynamo.reset()


def test_what_changes_outside_is_compiled_and_compared_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of one shape need one form however they were made; other threads need another, at most four in all."""
    real = torch.compile
    torch._dynamo.reset()
    forms: list[bool] = []

    def backend(graph: torch.fx.GraphModule, inputs: Any) -> Any:
        forms.append(torch._inductor.config.freezing)
        return graph.forward

    monkeypatch.setattr(
        torch, "compile", lambda module, dynamic, fullgraph, options: real(module, dynamic=dynamic, backend=backend)
    )
    network, said = toy(), []
    runner = fast_forward(network, (16, 8), compiled=True, on_warning=said.append)
    with torch.inference_mode():
        made_elsewhere = random_images(8)
    for images in (
        random_images(8),
        random_images(6),
        made_elsewhere,
        random_images(8).contiguous(memory_format=torch.channels_last),
    ):
        assert difference(torch_forward(network)(images), runner(images)) < 1e-4
    assert forms == [True]
    threads = torch.get_num_threads()
    try:
        for i in range(1, 8):
            torch.set_num_threads(threads + i)
            assert difference(torch_forward(network)(random_images(8)), runner(random_images(8))) < 1e-4
    finally:
        torch.set_num_threads(threads)
    assert forms == [True] * 4
    assert len(said) == 1
    assert said[0].startswith("4 variants were compiled")
    torch._dynamo.reset()


def test_it_does_not_compile_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    watched, said = Watched(), []
    monkeypatch.setattr(torch, "compile", watched)
    network = toy()
    runner = fast_forward(network, (16, 8), compiled=True, on_warning=said.append)
    for width in (16, 18, 20, 22, 24, 26, 16):
        images = random_images(1, width=width)
        assert difference(torch_forward(network)(images), runner(images)) < 1e-4
    assert [shape[-1] for shape in watched.shapes] == [16, 18, 20, 22, 16]
    assert len(said) == 1
    with pytest.raises(RuntimeError, match=r"4 variants were compiled, for .* others, such as \(1, 3, 8, 24\) now"):
        raise RuntimeError(said[0])


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # inductor's own are no errors
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_for_real(precision: runners.Precision, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runners, "has_bfloat16", lambda device: True)
    said: list[str] = []
    network, images = toy(), random_images(1)
    runner = fast_forward(network, (16, 8), precision=precision, compiled=True, on_warning=said.append)
    assert difference(torch_forward(network)(images), runner(images)) < {"float32": 1e-4, "bfloat16": 0.03}[precision]
    assert not said or not any(map(shutil.which, ("g++", "clang++", "c++")))
    # weights are constants of the code: another network of the same form has code of its own
    torch.manual_seed(7)
    other = toy()
    for tensor in other.parameters():
        tensor.data = torch.randn_like(tensor)
    second = fast_forward(other, (16, 8), precision=precision, compiled=True, on_warning=said.append)
    for _ in range(2):
        for plain, fast in ((other, second), (network, runner)):
            apart = difference(torch_forward(plain)(images), fast(images))
            assert apart < {"float32": 1e-4, "bfloat16": 0.03}[precision]
    assert not said or not any(map(shutil.which, ("g++", "clang++", "c++")))


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_a_norm_behind_a_transposed_convolution_is_compiled_right() -> None:
    """With ``freezing`` PyTorch 2.13 folds such a norm wrongly; it is folded before, so that nothing is left to it."""
    torch.manual_seed(3)
    deconv = nn.ConvTranspose2d(8, 4, 4, stride=2, padding=1, bias=False)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), deconv, nn.BatchNorm2d(4), nn.ReLU(), Stage()).eval()
    norm = network[2]
    assert isinstance(norm, nn.BatchNorm2d)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    said: list[str] = []
    runner = fast_forward(network, (16, 8), compiled=True, on_warning=said.append)
    for count in (1, 8):
        images = random_images(count)
        assert difference(torch_forward(network)(images), runner(images)) < 1e-4
    assert not said or not any(map(shutil.which, ("g++", "clang++", "c++")))


def test_it_works_where_gradients_were_switched_off_for_good() -> None:
    network = toy()
    with torch.inference_mode():
        runner = fast_forward(network, (16, 8), on_warning=never)
        assert difference(torch_forward(network)(random_images(1)), runner(random_images(1))) < 1e-4


def test_load_takes_both(tiny_weights, synthetic_person, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched()
    monkeypatch.setattr(torch, "compile", watched)
    monkeypatch.setattr(runners, "has_bfloat16", lambda device: True)
    image = pg.read_image(synthetic_person)
    plain = pg.load(tiny_weights, flip_test=True)
    assert plain.torch_program.forward is None
    fast = pg.load(tiny_weights, flip_test=True, compiled=True)
    assert abs(fast(image).xy - plain(image).xy).max() < 1e-2
    assert watched.shapes == [(1, 3, 64, 64)] * 2
    lower = pg.load(tiny_weights, precision="bfloat16")
    assert lower.torch_program.forward is not None
    assert lower(image).xy.shape == (1, 14, 2)
