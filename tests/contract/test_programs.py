"""The program of every codec: uint8 views in, decoded keypoints out, by PyTorch and as an exported graph alike."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from poseglass.codecs import CODECS, Codec
from poseglass.core.calibration import Calibration, read_curves
from poseglass.core.input_spec import InputSpec
from poseglass.core.prediction import Decoded
from poseglass.core.skeleton import Skeleton
from poseglass.core.table import build
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.evaluation.protocol import flip_in_words
from poseglass.programs import Program, TorchProgram
from poseglass.programs.exported import exported

OF_KEYPOINTS = [name for name in CODECS if build(CODECS, name).spec.keypoints]
"""The others have tests of their own, in ``tests/codecs``."""

TOY = Skeleton("toy4", ("nose", "left_eye", "right_eye", "chin"))
SIZE_WH = (48, 64)


class Gives(nn.Module):
    """A network of one layer for each output that a codec asks for, in the shape it asks for."""

    def __init__(self, codec) -> None:
        super().__init__()
        self.shapes = codec.spec.shapes(len(TOY), SIZE_WH)
        self.layers = nn.ModuleDict()
        for key, shape in self.shapes.items():
            if len(shape) == 2:  # bins
                self.layers[key] = nn.Linear(3 * (SIZE_WH[0] // 4) * (SIZE_WH[1] // 4), shape[0] * shape[1])
            else:
                count = shape[0] if len(shape) == 3 else shape[0] * shape[1]
                stride = codec.spec.stride_of(key)
                self.layers[key] = nn.Conv2d(3, count, stride, stride=stride)

    def forward(self, images):
        stage = {}
        for key, shape in self.shapes.items():
            layer = self.layers[key]
            if isinstance(layer, nn.Linear):
                stage[key] = layer(nn.functional.avg_pool2d(images, 4).flatten(1)).unflatten(1, shape)
            else:
                maps = layer(images) * 0.3
                stage[key] = maps if len(shape) == 3 else maps.unflatten(1, shape[:2])
        return [stage]


def decoded(codec: Codec) -> int:
    """Return the number of instances that a codec decodes per view: not more than its maps of centres have pixels."""
    shapes = codec.spec.shapes(len(TOY), SIZE_WH)
    centers = [shapes[key] for key, output in codec.spec.outputs.items() if "C" in output.shape]
    return min(codec.spec.instances, sum(height * width for _, height, width in centers)) if centers else 1


def program(name: str, *, flip_test: bool = False) -> TorchProgram:
    torch.manual_seed(0)
    codec = build(CODECS, name)
    spec = InputSpec(SIZE_WH, 1.25, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4), "bgr")
    return TorchProgram(Gives(codec), codec, TOY, spec, flip_test=flip_test)


def views(count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(count)
    return torch.randint(0, 256, (count, SIZE_WH[1], SIZE_WH[0], 3), dtype=torch.uint8, generator=generator)


@pytest.mark.slow
@pytest.mark.parametrize("flip_test", [False, True], ids=["straight", "flip test"])
@pytest.mark.parametrize("name", OF_KEYPOINTS)
def test_every_codecs_program_is_exported_with_any_batch(name: str, flip_test: bool) -> None:
    plain: Program = program(name, flip_test=flip_test)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.export about itself
        graph = exported(program(name, flip_test=flip_test))
    assert (graph.skeleton, graph.input) == (plain.skeleton, plain.input)
    for count in (1, 2, 5):
        one, other = plain(views(count)), graph(views(count))
        assert isinstance(other, Decoded)
        assert other.xy.shape == (count, decoded(program(name).codec), 4, 2)
        assert (one.xy - other.xy).abs().max() <= 1e-3
        assert (one.score - other.score).abs().max() <= 1e-5
        assert torch.equal(one.valid, other.valid)
        assert torch.equal(one.label, other.label)
        torch.testing.assert_close(one.box_score, other.box_score, atol=1e-5, rtol=0)
        assert (other.box_xyxy is None) == (program(name).spec.instances == 1)


@pytest.mark.parametrize("name", OF_KEYPOINTS)
def test_every_codec_says_what_it_reads(name: str) -> None:
    """What ``encode`` gives has the keys and shapes of ``spec``; the program reads nothing else."""
    from poseglass.core.targets import Targets

    codec = build(CODECS, name)
    target = codec.encode(Targets.of_keypoints(torch.rand(2, 4, 2) * 40), SIZE_WH)
    shapes = codec.spec.shapes(4, SIZE_WH)
    assert {key: tuple(target[key].shape[1:]) for key in shapes} == shapes
    assert set(target) == {*shapes, *codec.spec.loss_keys, "weight"}
    stage = {key: torch.zeros(2, *shape) for key, shape in shapes.items()}
    assert codec.decode(stage).xy.shape == (2, decoded(codec), 4, 2)
    flipped = {key: tuple(v.shape[1:]) for key, v in codec.flip(stage, TOY).items()}
    left_out = set(shapes) - set(flipped)
    assert flipped == {key: shape for key, shape in shapes.items() if key in flipped}
    assert all("offset" in key for key in left_out)
    assert not left_out or codec.spec.instances > 1


def test_a_program_takes_uint8_views_only() -> None:
    with pytest.raises(TypeError, match=r"Views must be uint8 \(B, H, W, 3\) RGB, got float32"):
        program("heatmap")(views(1).float())
    with pytest.raises(TypeError, match=r"got uint8 \(1, 3, 64, 48\)"):
        program("heatmap")(views(1).permute(0, 3, 1, 2))


def test_a_network_that_is_training_is_run_in_evaluation_mode() -> None:
    work = program("heatmap")
    work.network.train()
    work(views(1))
    assert not work.network.training


def test_the_flip_test_can_be_switched_and_changes_the_answer() -> None:
    off = program("dark")
    on = replace(off, flip_test=True)
    assert on.network is off.network
    assert not torch.equal(on(views(3)).score, off(views(3)).score)
    assert "flip test" in repr(on)
    assert "flip test" not in repr(off)


def test_an_exported_program_is_of_one_size_and_can_be_measured() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.export about itself
        graph = exported(program("heatmap"))
    with pytest.raises(
        ValueError, match=r"exported for views of 48 x 64 pixels, \(B, 64, 48, 3\); got \(1, 64, 40, 3\)"
    ):
        graph(views(1)[:, :, :40])
    work = TopDownEstimator(graph).with_padding(1.5).with_flip_test(False)
    assert work.input.padding == 1.5
    assert flip_in_words(True, work) == "flip test, flipped maps not moved"
    assert len(work(views(1)[0].numpy())) == 1


PART = Skeleton("part", ("chin", "right_eye"))


def calibrated_program(name: str, *, flip_test: bool) -> TorchProgram:
    steps = np.linspace(0, 1, 5)
    curves = np.stack([steps**power for power in (1, 2, 3, 4)])
    known = tuple(
        Calibration(curves / (1 + flip), 2 - curves, flip_test=bool(flip), box_probability=steps**2) for flip in (0, 1)
    )
    return replace(program(name, flip_test=flip_test), calibrations=known)


@pytest.mark.parametrize("flip_test", [False, True], ids=["straight", "flip test"])
@pytest.mark.parametrize("name", OF_KEYPOINTS)
def test_every_codecs_program_states_probabilities_of_its_flip_test(name: str, flip_test: bool) -> None:
    plain, known = program(name, flip_test=flip_test)(views(2)), calibrated_program(name, flip_test=flip_test)
    got = known(views(2))
    assert torch.equal(got.score, plain.score)
    assert known.calibration is not None
    assert known.calibration.flip_test == flip_test
    torch.testing.assert_close(got.probability, read_curves(known.calibration.probability, plain.score))
    side = 64.0 if plain.box_xyxy is None else (plain.box_xyxy[..., 2:] - plain.box_xyxy[..., :2]).amax(-1)[..., None]
    torch.testing.assert_close(got.radius_px, read_curves(known.calibration.radius_share, plain.score) * side)
    assert plain.probability is None
    assert plain.radius_px is None


@pytest.mark.parametrize("name", OF_KEYPOINTS)
def test_every_codecs_program_gives_out_a_part_of_its_keypoints(name: str) -> None:
    whole = calibrated_program(name, flip_test=True)
    part = replace(whole, given_out=PART)
    assert part.skeleton == PART
    everything, some = whole(views(3)), part(views(3))
    for field in ("xy", "score", "probability", "radius_px"):
        torch.testing.assert_close(getattr(some, field), getattr(everything, field)[:, :, [3, 2]])
    torch.testing.assert_close(some.box_score, everything.box_score)
    with pytest.raises(ValueError, match=r"needs tail, which these weights do not predict\. They predict 'toy4': nose"):
        replace(whole, given_out=Skeleton("other", ("chin", "tail")))


@pytest.mark.parametrize("name", ["dark", "centernet"])
def test_the_exported_graph_has_calibration_and_part(name: str) -> None:
    plain = replace(calibrated_program(name, flip_test=True), given_out=PART)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch.export about itself
        graph = exported(plain)
    assert graph.skeleton == PART
    one, other = plain(views(3)), graph(views(3))
    for field in ("xy", "score", "probability", "radius_px"):
        torch.testing.assert_close(getattr(other, field), getattr(one, field), atol=2e-3, rtol=1e-4)
