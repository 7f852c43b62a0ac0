"""``poseglass export --to onnx | openvino | torch``: what such a file gives, and what is refused."""

import dataclasses
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import poseglass as pg
from poseglass import cli
from poseglass.core.card import WeightCard
from poseglass.core.image import read_image
from poseglass.core.input_spec import InputSpec
from poseglass.core.precision import has_int8
from poseglass.core.prediction import Decoded
from poseglass.core.skeleton import Skeleton
from poseglass.estimators.fit import card_network
from poseglass.estimators.load import load_detector, load_top_down
from poseglass.estimators.onestage import OneStageEstimator
from poseglass.estimators.topdown import TopDownEstimator
from poseglass.estimators.twostage import TwoStageEstimator
from poseglass.estimators.weights_file import CheckpointError, save_weights
from poseglass.estimators.whole_image import _BY_INSTANCE, _BY_KEYPOINT, _FIELDS, WholeImageEstimator
from poseglass.export.export import PHOTOGRAPH, TARGETS, export_file, photograph_samples
from poseglass.export.exportable import exportable
from poseglass.export.int8 import Int8Plan, Rounding, check_images
from poseglass.export.onnx import OnnxTarget
from poseglass.export.parity import Drift, DriftError, _same, one_by_one
from poseglass.metrics.oks_nms import oks_nms
from poseglass.networks.cost import multiply_adds
from poseglass.programs.graph_card import DIGEST_KEY, GRAPH_KEY, GraphCard
from poseglass.programs.graph_program import GraphProgram
from poseglass.programs.graphs import BY_INSTANCE, TwoStageGraph
from poseglass.programs.onnx_file import open_onnx, session_run
from poseglass.readers.coco_write import write_coco
from poseglass.synthetic.people import synthetic_people

onnx = pytest.importorskip("onnx", reason="needs the extra onnx")
pytest.importorskip("onnxruntime", reason="needs the extra onnx")

BOXES = [[10, 10, 70, 100], [0, 20, 90, 119], [5, 5, 40, 60]]


def run(monkeypatch, *words) -> int:
    monkeypatch.setattr(sys, "argv", ["poseglass", *map(str, words)])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def views_file(tmp_path_factory, tiny_weights) -> Path:
    """The tiny network as an ONNX file of views."""
    out = tmp_path_factory.mktemp("views") / "tiny.onnx"
    with pytest.MonkeyPatch.context() as patch:
        assert not run(patch, "export", tiny_weights, "--to", "onnx", "--out", out)
    return out


@pytest.fixture(scope="module")
def boxes_file(tmp_path_factory, tiny_weights) -> Path:
    """The tiny network as an ONNX file of whole images, in which half of the keypoints are returned."""
    out = tmp_path_factory.mktemp("boxes") / "tiny.onnx"
    with pytest.MonkeyPatch.context() as patch:
        assert not run(
            patch,
            "export",
            tiny_weights,
            "--to",
            "onnx",
            "--whole-image",
            "--flip-test",
            "--out",
            out,
            "--max-drift",
            1,
        )
    return out


def test_a_file_of_views_is_loaded_like_weights(views_file, tiny_weights, synthetic_person) -> None:
    image = read_image(synthetic_person)
    plain, got = pg.load(tiny_weights), pg.load(views_file)
    assert isinstance(got, TopDownEstimator)
    assert (got.skeleton, got.input, got.flip_test) == (plain.skeleton, plain.input, False)
    assert got.card is not None
    assert got.card.name == "tiny"
    assert "ONNX Runtime" in repr(got.program)
    for boxes in (None, BOXES, BOXES[:1], []):
        one, other = plain(image, boxes), got(image, boxes)
        np.testing.assert_allclose(other.xy, one.xy, atol=0.05)
        np.testing.assert_allclose(other.score, one.score, atol=1e-4)
    with pytest.raises(ValueError, match="Load the weights file it was made from"):
        got.with_flip_test(True)


def test_a_file_of_views_maps_points_by_the_affines_it_is_given(views_file, tiny_weights) -> None:
    """As somebody calls it who has only onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(views_file)
    assert [one.name for one in session.get_inputs()] == ["views", "home"]
    views = np.random.default_rng(0).integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)
    home = np.stack([np.array([[2, 0, 5], [0, 3, 7]]), np.eye(2, 3), np.array([[0, -1, 9], [1, 0, 0]])]).astype(
        np.float32
    )
    xy, score = session.run(["xy", "score"], {"views": views, "home": home})
    program = load_top_down(tiny_weights).program
    plain = program(torch.from_numpy(views))
    expected = plain.xy[:, 0].numpy() @ home[:, :, :2].transpose(0, 2, 1) + home[:, None, :, 2]
    np.testing.assert_allclose(xy[:, 0], expected, atol=0.1)
    np.testing.assert_allclose(score, plain.score.numpy(), atol=1e-4)


def test_what_the_file_states(views_file) -> None:
    texts = {one.key: one.value for one in onnx.load(views_file).metadata_props}
    card = GraphCard.from_metadata(texts)
    assert (card.kind, card.precision, card.min_box_score) == ("views", "float32", None)
    assert card.drift["largest_px"] <= 0.1
    assert card.drift["keypoints"] + card.drift["undecided"] == 14 * 7
    assert card.drift["maps"].keys() == {"heatmap"}
    assert card.made_with["poseglass"] == pg.__version__
    assert card.outputs == ("xy", "score", "valid", "label", "box_score")
    assert "maps_heatmap" not in [one.name for one in onnx.load(views_file).graph.output]


def test_a_file_of_whole_images_reads_crops_as_the_estimator_does(boxes_file, tiny_weights) -> None:
    image = read_image(PHOTOGRAPH)
    got, plain = pg.load(boxes_file), pg.load(tiny_weights, flip_test=True)
    assert isinstance(got, WholeImageEstimator)
    assert (got.flip_test, got.finds_boxes, got.calibrated) == (True, False, False)
    for part in (image, image[:200], image[:, 300:][:150]):
        height, width = part.shape[:2]
        boxes = np.array([[0, 0, width - 1, height - 1], [20, 30, 90, 140], [-30, -20, width / 2, height / 3]])
        for given in (boxes, boxes[:1], None, []):
            one, other = plain(part, given), got(part, given)
            assert len(one) == len(other)
            np.testing.assert_array_equal(one.box_xyxy, other.box_xyxy)
            # grey values differ by one at most; of a network that was never trained, few keypoints care
            away = np.linalg.norm(one.xy - other.xy, axis=-1)
            assert not away.size or np.median(away) < 0.5
    frames = [(image, boxes), image[:100]]
    assert [len(found) for found in got.stream(frames)] == [3, 1]
    with pytest.raises(ValueError, match="exported with the flip test"):
        got.with_flip_test(False)
    with pytest.raises(ValueError, match="has no area"):
        got(image, [[5, 5, 5, 9]])


@pytest.mark.slow
def test_everybody_in_one_file(tmp_path, monkeypatch, capsys) -> None:
    """Detector and poses: as many people as two estimators find, none in an empty image."""
    out = tmp_path / "everybody.onnx"
    words = ("--to", "onnx", "--whole-image", "--detector", "people", "--skeleton", "coco17", "--out", out)
    assert not run(monkeypatch, "export", "people-pose", *words)
    assert "gives     xy, score, box_xyxy, box_score, label, probability, radius_px" in capsys.readouterr().out
    image = read_image(PHOTOGRAPH)
    got, plain = pg.load(out), pg.load("people-pose", detector="people", skeleton="coco17")
    assert isinstance(got, WholeImageEstimator)
    one, other = plain(image), got(image)
    assert len(one) == len(other) == 5
    np.testing.assert_allclose(other.box_xyxy, one.box_xyxy, atol=0.5)
    np.testing.assert_allclose(other.box_score, one.box_score, atol=0.01)
    away = np.linalg.norm(one.xy - other.xy, axis=-1)[one.score > 0.3]
    assert np.median(away) < 0.5  # image pixels
    assert away.max() < 8
    assert other.probability is not None
    assert len(got(np.zeros((100, 150, 3), np.uint8))) == 0
    assert len(pg.load(out, min_box_score=0.7)(image)) == 1
    with pytest.raises(ValueError, match=r"nobody with a score below 0\.3"):
        pg.load(out, min_box_score=0.1)
    with pytest.raises(ValueError, match="finds the boxes itself and takes none"):
        got(image, [[0, 0, 50, 50]])
    with pytest.raises(CheckpointError, match="finds everybody in a whole image itself"):
        pg.load(out, detector="people")
    assert not run(monkeypatch, "predict", PHOTOGRAPH, "--weights", out, "--out", tmp_path / "poses")
    assert len(json.loads((tmp_path / "poses" / "poses.json").read_text())) == 5


@pytest.mark.slow
@pytest.mark.parametrize("whole", [False, True], ids=["views", "whole image"])
def test_a_detector_as_a_file(whole, tmp_path, monkeypatch) -> None:
    out = tmp_path / "people.onnx"
    assert not run(monkeypatch, "export", "people", "--to", "onnx", "--out", out, *(["--whole-image"] if whole else []))
    image = read_image(PHOTOGRAPH)
    got, plain = pg.load(out), load_detector("people")
    assert isinstance(got, WholeImageEstimator if whole else OneStageEstimator)
    assert got.finds_boxes
    one, other = plain(image), got(image)
    assert len(one) == len(other) == 5
    np.testing.assert_allclose(other.box_xyxy, one.box_xyxy, atol=1.0 if whole else 1e-2)
    given = got(image, one.box_xyxy[[2, 0]])
    np.testing.assert_allclose(given.box_xyxy, one.box_xyxy[[2, 0]])
    if whole:
        with pytest.raises(CheckpointError, match="cannot be used as a detector"):
            load_detector(out)
    else:
        both = pg.load("hg2-light-lspet", detector=out)
        assert isinstance(both, TwoStageEstimator)
        assert len(both(image)) == 5


@pytest.mark.parametrize("whole", [False, True], ids=["views", "whole image"])
def test_openvino_gives_the_same(whole, tiny_weights, tmp_path, monkeypatch, synthetic_person) -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    out = tmp_path / "tiny.xml"
    words = ("export", tiny_weights, "--to", "openvino", "--out", out, *(["--whole-image"] if whole else []))
    assert not run(monkeypatch, *words)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.bin", "tiny.xml"]
    image = read_image(synthetic_person)
    one, other = pg.load(tiny_weights)(image, BOXES), pg.load(out)(image, BOXES)
    np.testing.assert_allclose(other.score, one.score, atol=1e-2)
    assert np.median(np.linalg.norm(one.xy - other.xy, axis=-1)) < 0.1
    (tmp_path / "tiny.bin").unlink()
    with pytest.raises(CheckpointError, match=r"keeps its weights in tiny\.bin beside it, which is missing"):
        pg.load(out)
    out.write_text("<net")
    (tmp_path / "tiny.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="cannot be read by OpenVINO"):
        pg.load(out)


def test_openvino_reads_the_onnx_file_too(views_file) -> None:
    pytest.importorskip("openvino", reason="needs the extra openvino")
    from poseglass.programs.openvino_file import open_openvino

    views = np.random.default_rng(0).integers(0, 256, (2, 64, 64, 3), dtype=np.uint8)
    inputs = {"views": views, "home": np.stack([np.eye(2, 3, dtype=np.float32)] * 2)}
    one, other = open_onnx(views_file), open_openvino(views_file)
    assert one.card == other.card
    np.testing.assert_allclose(one.run(inputs)["score"], other.run(inputs)["score"], atol=1e-2)


def test_a_program_of_torch_export_needs_trust(tiny_weights, tmp_path, monkeypatch, synthetic_person) -> None:
    out = tmp_path / "tiny.pt2"
    assert not run(monkeypatch, "export", tiny_weights, "--to", "torch", "--out", out)
    with pytest.raises(CheckpointError, match="Opening one can run code that is in it"):
        pg.load(out)
    image = read_image(synthetic_person)
    one, other = pg.load(tiny_weights)(image), pg.load(out, trust_code=True)(image)
    np.testing.assert_allclose(other.xy, one.xy, atol=1e-2)
    out.write_bytes(out.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"is not a \.pt2 file, or it is truncated"):
        pg.load(out, trust_code=True)


def test_half_precision_halves_the_file(views_file, tiny_weights, tmp_path, monkeypatch) -> None:
    out = tmp_path / "half.onnx"
    words = ("--to", "onnx", "--precision", "float16", "--max-drift", 1)
    assert not run(monkeypatch, "export", tiny_weights, *words, "--out", out)
    texts = {one.key: one.value for one in onnx.load(out).metadata_props}
    assert GraphCard.from_metadata(texts).precision == "float16"
    kernels = [t for t in onnx.load(out).graph.initializer if len(t.dims) == 4]
    half = [t for t in kernels if t.data_type == onnx.TensorProto.FLOAT16]
    assert len(half) >= len(kernels) - 2  # the last layer stays float32
    with pytest.raises(CheckpointError, match="was exported without --precision bfloat16"):
        pg.load(out, precision="bfloat16")
    assert isinstance(pg.load(out), TopDownEstimator)


def test_the_data_of_the_user_decide(views_file, tiny_weights, tmp_path, monkeypatch, capsys) -> None:
    write_coco(synthetic_people(6, seed=3, size_wh=(64, 80)), tmp_path / "labels.json", write_images=True)
    out = tmp_path / "tiny.onnx"
    words = ("export", tiny_weights, "--to", "onnx", "--out", out, "--data", tmp_path / "labels.json")
    assert not run(monkeypatch, *words)
    said = capsys.readouterr().out
    assert "84 keypoints on 6 images of labels.json" in said
    assert "data      pck@0.2" in said
    before, after = GraphCard.from_metadata({one.key: one.value for one in onnx.load(out).metadata_props}).drift[
        "results"
    ]["pck@0.2"]
    assert abs(before - after) < 0.02
    assert not run(monkeypatch, "evaluate", tmp_path / "labels.json", "--weights", out)
    assert "no flip test" in capsys.readouterr().out


def test_a_file_that_drifts_is_refused_and_kept_aside(tiny_weights, tmp_path, monkeypatch, capsys) -> None:
    def shifted(session, outputs):
        right = session_run(session, outputs)
        return lambda given: {name: value + 3.0 * (name == "xy") for name, value in right(given).items()}

    monkeypatch.setattr("poseglass.export.onnx.session_run", shifted)
    out = tmp_path / "tiny.onnx"
    assert run(monkeypatch, "export", tiny_weights, "--to", "onnx", "--out", out) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "The largest distance between a keypoint of the exported graph and PyTorch's is" in said
    assert not out.exists()
    aside = tmp_path / "tiny.onnx.refused"
    assert json.loads((aside / "drift.json").read_text())["median_px"] == pytest.approx(3 * 2**0.5, abs=0.01)
    assert isinstance(pg.load(aside / "tiny.onnx"), TopDownEstimator)


def test_no_half_written_file(tiny_weights, tmp_path, monkeypatch) -> None:
    def full(path, data):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("poseglass.export.onnx.write_bytes", full)
    work = exportable(tiny_weights)
    with pytest.raises(OSError, match="No space left"):
        export_file(work, TARGETS["onnx"], tmp_path / "tiny.onnx", photograph_samples()[1:], "a photograph")
    assert list(tmp_path.iterdir()) == []


def changed(path: Path, out: Path, key: str, change) -> Path:
    model = onnx.load(path)
    for one in model.metadata_props:
        if one.key == key:
            one.value = change(one.value)
    onnx.save(model, out)
    return out


def test_files_that_cannot_be_opened(views_file, tmp_path, tiny_weights, monkeypatch) -> None:
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(views_file.read_bytes()[:5000])
    with pytest.raises(CheckpointError, match="is not an ONNX file, or it is truncated"):
        pg.load(bad)
    bad.write_bytes(b"hello")
    with pytest.raises(CheckpointError, match="is not an ONNX file, or it is truncated"):
        pg.load(bad)
    with pytest.raises(FileNotFoundError, match="No such exported file"):
        pg.load(tmp_path / "none.onnx")
    model = onnx.load(views_file)
    del model.metadata_props[:]
    onnx.save(model, bad)
    with pytest.raises(CheckpointError, match="has no poseglass card"):
        pg.load(bad)
    changed(views_file, bad, "poseglass_card", lambda text: text.replace("left_ankle", "right_elbow"))
    with pytest.raises(CheckpointError, match="a card that was changed after the export"):
        pg.load(bad)
    changed(views_file, bad, GRAPH_KEY, lambda text: text.replace('"format": 1', '"format": 9'))
    with pytest.raises(CheckpointError, match=f"has format 9 of exported files, written by poseglass {pg.__version__}"):
        pg.load(bad)
    changed(views_file, bad, GRAPH_KEY, lambda text: text[:30])
    with pytest.raises(CheckpointError, match="has a damaged card"):
        pg.load(bad)
    changed(views_file, bad, DIGEST_KEY, lambda text: text[:-1])
    with pytest.raises(CheckpointError, match="a card that was changed"):
        pg.load(bad)
    onnx.save(onnx.load(views_file), bad, save_as_external_data=True, location="bad.data", size_threshold=1024)
    assert isinstance(pg.load(bad), TopDownEstimator)
    (tmp_path / "bad.data").unlink()
    with pytest.raises(CheckpointError, match="keeps its weights in a file beside it, which is missing or truncated"):
        pg.load(bad)
    model = onnx.load(views_file)
    model.graph.node[0].op_type = "Telepathy"
    onnx.save(model, bad)
    with pytest.raises(CheckpointError, match="uses an operator that this ONNX Runtime does not have"):
        pg.load(bad)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(RuntimeError, match=r"needs ONNX Runtime: pip install 'poseglass\[onnx\]'"):
        pg.load(views_file)


def test_what_a_file_cannot_change(views_file, boxes_file) -> None:
    for options, said in (
        ({"flip_test": True}, "--flip-test"),
        ({"size_wh": (96, 96)}, r"size \(96, 96\)"),
    ):  # fmt: skip
        with pytest.raises(CheckpointError, match=f"was exported without {said}"):
            pg.load(views_file, **options)
    with pytest.raises(ValueError, match=r"needs nose, left_eye, .*which these weights do not predict"):
        pg.load(views_file, skeleton="coco17")
    with pytest.raises(CheckpointError, match="was exported without --skeleton coco17"):
        pg.load(boxes_file, skeleton="coco17")
    with pytest.raises(ValueError, match=r"scales are for what finds everybody in an image, but .* Give a detector"):
        pg.load(boxes_file, scales=(0.5, 1.0))
    with pytest.raises(ValueError, match="chips are for what finds everybody in an image, but"):
        pg.load(boxes_file, chips=True)
    with pytest.raises(CheckpointError, match="compiles it by itself"):
        pg.load(views_file, compiled=True)
    with pytest.raises(CheckpointError, match="takes whole images, and crops are needed here"):
        load_top_down(boxes_file)
    with pytest.raises(CheckpointError, match="is an exported file already"):
        exportable(views_file)
    with pytest.raises(RuntimeError, match="cannot use device 'mps' here"):
        open_onnx(views_file, device="mps")


def test_what_the_command_refuses(tiny_weights, tmp_path, monkeypatch, capsys) -> None:
    out = tmp_path / "tiny.onnx"
    for words, said in (
        (("--to", "onnxx", "--out", out), "onnx"),
        (("--to", "onnx", "--out", tmp_path / "a.pt2"), "A file for --to onnx ends with .onnx"),
        (("--to", "onnx", "--out", out, "--precision", "bfloat16"), "--to onnx writes float32, float16"),
        (("--to", "onnx", "--out", tmp_path / "none" / "a.onnx"), "no folder"),
        (("--to", "onnx", "--out", out, "--detector", "people"), "Add --whole-image"),
        (
            ("--to", "hourglass_bearpaw", "--out", tmp_path / "a.pth", "--flip-test"),
            "--flip-test is for files that run by themselves",
        ),
    ):
        assert run(monkeypatch, "export", tiny_weights, *words) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run(monkeypatch, "export", tiny_weights, "--to", "onnx", "--out", out) == 2
    assert "Exporting to ONNX needs onnx, onnxscript, onnxruntime: pip install 'poseglass[onnx]'" in " ".join(
        capsys.readouterr().err.split()
    )


def test_duplicates_are_those_of_greedy_suppression() -> None:
    rng = np.random.default_rng(0)
    graph = TwoStageGraph.__new__(TwoStageGraph)
    torch.nn.Module.__init__(graph)
    graph.sigmas, graph.nms_oks = (0.1, 0.08, 0.12), 0.6
    for _ in range(30):
        base = rng.uniform(0, 100, (4, 3, 2))
        xy = np.concatenate([base + rng.normal(0, spread, base.shape) for spread in (0, 2, 4, 8)]).astype(np.float32)
        box = np.concatenate([np.zeros((16, 2)), rng.uniform(60, 90, (16, 2))], 1).astype(np.float32)
        area = (box[:, 2] - box[:, 0]) * (box[:, 3] - box[:, 1])
        poses = Decoded(
            torch.from_numpy(xy), torch.ones(16, 3), torch.ones(16).bool(), torch.zeros(16).long(), torch.ones(16),
            torch.from_numpy(box),
        )  # fmt: skip
        kept = graph._first_of_duplicates(poses, torch.ones(16).bool()).nonzero()[:, 0].tolist()
        expected = oks_nms(xy, np.arange(16, 0, -1.0), area, graph.sigmas, threshold=0.6)
        assert kept == sorted(expected.tolist())


@pytest.fixture(scope="module")
def labels(tmp_path_factory) -> Path:
    """Labelled images to quantise on."""
    folder = tmp_path_factory.mktemp("calibration")
    write_coco(synthetic_people(20, seed=3, size_wh=(64, 80)), folder / "labels.json", write_images=True)
    return folder / "labels.json"


@pytest.mark.slow
@pytest.mark.parametrize("target", ["onnx", "openvino"])
def test_int8_keeps_the_poses(target, labels, tmp_path, monkeypatch, capsys) -> None:
    pytest.importorskip("nncf" if target == "openvino" else "onnxruntime", reason=f"needs the extra {target}")
    out = tmp_path / f"pose{TARGETS[target].suffix}"
    words = ("export", "hg2-light-lspet", "--to", target, "--precision", "int8", "--data", labels, "--out", out)
    assert not run(monkeypatch, *words)
    said = capsys.readouterr().out
    assert "of the multiply-adds; in float:" in said
    got = pg.load(out)
    assert isinstance(got, TopDownEstimator)
    assert isinstance(got.program, GraphProgram)
    card = got.program.file.card
    assert card.precision == "int8"
    assert card.drift["median_px"] <= 0.3
    assert card.quantised["int8_share"] >= 0.9
    assert card.quantised["images"] == 10
    one, other = pg.load_top_down("hg2-light-lspet")(read_image(PHOTOGRAPH)), got(read_image(PHOTOGRAPH))
    assert 0 < np.median(np.linalg.norm(one.xy - other.xy, axis=-1)) < 4  # image pixels: a crop pixel has four


def test_rounding_layer_by_layer(tiny_weights) -> None:
    """Floats are left as they were; no rounding moves nothing; corrected means stay."""
    work = exportable(tiny_weights)
    samples = photograph_samples()
    rounding = Rounding(work, one_by_one(work, samples))
    names = [call.name for call in rounding.calls]
    assert len(names) == len(set(names)) == len([m for m in work.reference.modules() if isinstance(m, torch.nn.Conv2d)])
    before = {name: value.clone() for name, value in rounding.network.state_dict().items()}
    found = rounding.sensitivity()
    shifts = rounding.bias_shifts(())
    assert all(torch.equal(value, before[name]) for name, value in rounding.network.state_dict().items())
    assert len(found.moved_px) == len(shifts) == len(names)
    assert max(found.moved_px) > 0
    assert all(len(shift) == call.weight_shape[0] for shift, call in zip(shifts, rounding.calls, strict=True))
    assert max(float(np.abs(shift).max()) for shift in shifts) > 0
    kept = found.in_float(0.1)
    assert 0.9 <= found.int8_share(kept) < 1
    assert found.in_float(0.0) == ()
    assert all(not np.any(rounding.bias_shifts(kept)[i]) for i in kept)


def test_macs_of_calls_are_those_of_the_network(tiny_weights) -> None:
    work = exportable(tiny_weights)
    rounding = Rounding(work, one_by_one(work, photograph_samples()[1:]))
    network = load_top_down(tiny_weights).network
    assert sum(call.macs for call in rounding.calls) == multiply_adds(network, (64, 64))


def test_what_int8_refuses(tiny_weights, tmp_path, monkeypatch, capsys) -> None:
    out = tmp_path / "tiny.onnx"
    words = ("export", tiny_weights, "--to", "onnx", "--precision", "int8", "--out", out)
    assert run(monkeypatch, *words) == 2
    assert "Give a dataset with --data" in " ".join(capsys.readouterr().err.split())
    write_coco(synthetic_people(2, seed=3, size_wh=(64, 80)), tmp_path / "two.json", write_images=True)
    assert run(monkeypatch, *words, "--data", tmp_path / "two.json") == 2
    assert "int8 needs at least 8 images" in " ".join(capsys.readouterr().err.split())
    with pytest.raises(ValueError, match="each of these 9 is of one colour"):
        check_images([np.zeros((5, 5, 3), np.uint8)] * 9)
    assert (
        run(monkeypatch, "export", tiny_weights, "--to", "torch", "--precision", "int8", "--out", tmp_path / "a.pt2")
        == 2
    )
    assert "--to torch writes float32, bfloat16, float16" in " ".join(capsys.readouterr().err.split())
    assert not out.exists()


def test_what_only_one_of_them_finds_counts(tmp_path) -> None:
    """A file that loses people is refused in every precision, though those it finds are right."""
    box = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10.0]])
    assert _same(box, box[[2, 0]] + 0.5) == ([0, 2], [1, 0]) or _same(box, box[[2, 0]] + 0.5) == ([2, 0], [0, 1])
    assert _same(box, np.zeros((0, 4))) == ([], [])
    drift = Drift(30, 0, 0.01, 0.0, 0.01, 0.0, {}, (20, 19), 1, "a photograph", {})
    drift.check("int8")
    with pytest.raises(DriftError, match="PyTorch finds 20 instances and the exported graph 19 in a photograph"):
        drift.check("float32")
    assert not dataclasses.replace(drift, unmatched=2).within("int8")


@pytest.mark.slow
def test_a_detector_of_boxes_alone(tmp_path, monkeypatch, capsys) -> None:
    """It has no keypoints: its boxes are compared."""
    torch.manual_seed(0)
    network = {"name": "centernet_light", "num_keypoints": 0}
    skeleton = Skeleton("person", ())
    codec = {"name": "centernet", "poses": False}
    card = WeightCard("finder", network, codec, skeleton, InputSpec((64, 64)), classes=("person",))
    state = card_network(card).state_dict()
    sizes = [name for name in state if "size" in name and name.endswith("bias")]
    assert sizes
    state[sizes[-1]] += 5.0  # boxes that are not dropped as tiny
    save_weights(tmp_path / "finder.safetensors", state, card)
    out = tmp_path / "finder.onnx"
    words = ("export", tmp_path / "finder.safetensors", "--to", "onnx", "--whole-image", "--out", out)
    assert not run(monkeypatch, *words, "--min-box-score", 0.001)
    assert "gives     xy, score, box_xyxy, box_score, label" in capsys.readouterr().out
    got = pg.load(out)
    plain = load_detector(tmp_path / "finder.safetensors", min_box_score=0.001)
    image = read_image(PHOTOGRAPH)
    assert len(got(image)) == len(plain(image)) > 0
    assert isinstance(got, WholeImageEstimator)
    assert set(BY_INSTANCE) == {*_FIELDS, *_BY_KEYPOINT, *_BY_INSTANCE}


def test_int8_needs_a_processor_that_has_it(monkeypatch, tiny_weights, tmp_path) -> None:
    flags = "flags : fpu sse avx2 avx512f"
    monkeypatch.setattr("poseglass.core.precision.platform.machine", lambda: "x86_64")
    monkeypatch.setattr("poseglass.core.precision.Path.read_text", lambda self: flags)
    assert not has_int8()
    work = exportable(tiny_weights, precision="int8")
    with pytest.raises(ValueError, match="no instructions for int8"):
        OnnxTarget().quantise(None, work, Int8Plan([], [], [], []), tmp_path)
    monkeypatch.setattr("poseglass.core.precision.Path.read_text", lambda self: flags + " avx512_vnni")
    assert has_int8()


def test_two_files_of_openvino_are_not_overwritten(tiny_weights, tmp_path, monkeypatch, capsys) -> None:
    (tmp_path / "tiny.bin").write_text("of something else")
    words = ("export", tiny_weights, "--to", "openvino", "--out", tmp_path / "tiny.xml")
    assert run(monkeypatch, *words) == 2
    assert "tiny.bin exists" in " ".join(capsys.readouterr().err.split())
    assert (tmp_path / "tiny.bin").read_text() == "of something else"
