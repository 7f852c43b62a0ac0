"""One file and one line add a network, a codec, a data set or a loss, and nothing else has to be touched.

A copy of the package gets one file and one entry of a table (with its import) for each of the four. One process then
uses that copy as a user would: it lists them, looks at the data, trains on them by a recipe, and measures the weights.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

import poseglass
from poseglass.core.image import write_image


@dataclass(frozen=True)
class Addition:
    """What a contributor writes: a file, and in the table of its family an import and an entry."""

    file: str
    text: str
    table: str
    name: str
    imported: str
    entry: str


NETWORK = Addition(
    file="networks/three_layers.py",
    text='''"""Three convolutions, the shortest network that there is."""

from torch import Tensor, nn

from poseglass.core.prediction import Stages


class ThreeLayers(nn.Module):
    """Images to one stage of heatmaps of stride 4."""

    stride = divisor = 4
    usual_size_wh: tuple[int, int] = (32, 48)

    def __init__(self, num_keypoints: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.heatmap = nn.Conv2d(8, num_keypoints, 1)

    def forward(self, images: Tensor) -> Stages:
        return [{"heatmap": self.heatmap(self.second(self.first(images).relu()).relu())}]


def three_layers(num_keypoints: int) -> ThreeLayers:
    return ThreeLayers(num_keypoints)
''',
    table="networks/__init__.py",
    name="NETWORKS",
    imported="from poseglass.networks.three_layers import three_layers",
    entry='"three_layers": three_layers,',
)

CODEC = Addition(
    file="codecs/tent.py",
    text='''"""Tents: maps that fall off in straight lines about a keypoint, read by their arg-max."""

from dataclasses import dataclass

import torch

from poseglass.codecs.spec import CodecSpec, Output
from poseglass.core.prediction import Decoded, Prediction
from poseglass.core.skeleton import Skeleton
from poseglass.core.targets import Targets, one_instance


@dataclass(frozen=True, slots=True)
class TentCodec:
    """Keypoints to tents and back."""

    stride: int = 4
    reach: float = 2.0

    @property
    def spec(self) -> CodecSpec:
        return CodecSpec({"heatmap": Output(("K", "h", "w"))}, self.stride)

    def encode(self, targets: Targets, size_wh: tuple[int, int]) -> Prediction:
        xy, known = one_instance(targets)
        x, y = ((xy + 0.5) / self.stride - 0.5).unbind(-1)
        across = torch.arange(size_wh[0] // self.stride, device=xy.device) - x[..., None]
        down = torch.arange(size_wh[1] // self.stride, device=xy.device) - y[..., None]
        far = torch.maximum(across.abs()[..., None, :], down.abs()[..., :, None])
        return {"heatmap": (1 - far / self.reach).clamp(min=0) * known[..., None, None], "weight": known}

    def decode(self, prediction: Prediction) -> Decoded:
        maps = prediction["heatmap"].float()
        peak, at = maps.flatten(2).max(-1)
        xy = torch.stack([at % maps.shape[-1], at // maps.shape[-1]], -1)
        return Decoded.one_instance((xy + 0.5) * self.stride - 0.5, peak.clamp(0, 1))

    def flip(self, prediction: Prediction, skeleton: Skeleton) -> Prediction:
        return {"heatmap": prediction["heatmap"].flip(-1)[:, torch.as_tensor(skeleton.flip)]}
''',
    table="codecs/__init__.py",
    name="CODECS",
    imported="from poseglass.codecs.tent import TentCodec",
    entry='"tent": TentCodec,',
)

DATA_SET = Addition(
    file="readers/dots.py",
    text='''"""Dots: a text file with a line an image, its name and then x and y of three dots."""

from pathlib import Path

import numpy as np

from poseglass.core.boxes import around
from poseglass.core.instances import Instances
from poseglass.core.skeleton import Skeleton
from poseglass.readers.labelled import LabelledImages

DOTS3 = Skeleton("dots3", ("top", "left_dot", "right_dot"), (("top", "left_dot"), ("top", "right_dot")))


def dots(labels: str | Path) -> LabelledImages:
    """Read the text file; the images lie beside it."""
    path = Path(labels)
    rows = [line.split() for line in path.read_text().splitlines()]
    xy = np.array([row[1:] for row in rows], np.float32).reshape(-1, 1, 3, 2)
    known, one = np.ones((1, 3), np.float32), np.ones(1, np.float32)
    people = [Instances(DOTS3, points, known, around(points), one) for points in xy]
    images = tuple(path.parent / row[0] for row in rows)
    return LabelledImages("dots", DOTS3, images, people, tuple(range(len(rows))))
''',
    table="readers/__init__.py",
    name="READERS",
    imported="from poseglass.readers.dots import dots",
    entry='"dots": dots,',
)

# ---- A loss: to be adapted where the form of LOSSES or of a recipe's loss changes; nothing else here knows of either.
LOSS = Addition(
    file="losses/absolute.py",
    text='''"""The mean absolute error of maps."""

from torch import Tensor


def mean_absolute_error(maps: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    return ((maps.float() - target).abs().mean((-1, -2)) * weight).mean()
''',
    table="losses/__init__.py",
    name="LOSSES",
    imported="from poseglass.losses.absolute import mean_absolute_error",
    entry='"mae": Loss(mean_absolute_error, activation="none"),',
)
LOSS_IN_A_RECIPE = 'loss = [{ name = "mae" }]'
# ----

ADDITIONS = (NETWORK, CODEC, DATA_SET, LOSS)

RECIPE = f"""
name = "all-new"
{LOSS_IN_A_RECIPE}
network = {{ name = "three_layers" }}
codec = {{ name = "tent", reach = 1.5 }}
input = {{ size_wh = [32, 48] }}

[data]
train = {{ name = "dots", labels = "dots.txt" }}
val = {{ name = "dots", labels = "dots.txt" }}

[train]
epochs = 1
batch_size = 4
workers = 0

[evaluate]
metrics = [{{ name = "pck", normaliser = "box_diagonal", thresholds = [0.5] }}]
"""

USED = """
import importlib
import sys

import poseglass
from poseglass import cli, codecs, networks

assert poseglass.__file__.startswith(sys.argv[1]), poseglass.__file__
for name, module, table in (
    ("poseglass.cli.models", "NETWORKS", {name: networks.NETWORKS[name] for name in ("hg1_light", "three_layers")}),
    ("poseglass.cli.codecs", "CODECS", {"tent": codecs.CODECS["tent"]}),
):  # the others, which take seconds, are listed by test_models and test_codecs
    setattr(importlib.import_module(name), module, table)
importlib.import_module("poseglass.runs.finish").write_report = lambda path, report: path.touch()  # plots take time
for words in (
    "models",
    "codecs",
    "look dots.txt --format dots --out look.png",
    "train recipe.toml --run run",
    "evaluate dots.txt --format dots --weights run",
):
    sys.argv = ["poseglass", *words.split()]
    print(f"$ {words}", flush=True)
    try:
        cli.main()
    except SystemExit as stop:
        if stop.code:
            raise
"""


def digests(package: Path) -> dict[str, str]:
    """Return the SHA-256 of every file of a package by its path inside, but for what Python compiled."""
    files = [path for path in package.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    return {path.relative_to(package).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def add(package: Path, addition: Addition) -> None:
    """Write the file, and the import and the entry into the table."""
    (package / addition.file).write_text(addition.text)
    table = package / addition.table
    text, imports = re.subn(r"(?m)^(from poseglass\.)", f"{addition.imported}\n\\1", table.read_text(), count=1)
    text, entries = re.subn(rf"(?m)^({addition.name}\b.*\{{)$", f"\\1\n    {addition.entry}", text, count=1)
    assert (imports, entries) == (1, 1), (
        f"{addition.table} has no table {addition.name} that opens at the end of a line"
    )
    table.write_text(text)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of poseglass with a new network, codec, data set and loss."""
    copy = tmp_path_factory.mktemp("copy") / "poseglass"
    shutil.copytree(Path(poseglass.__file__).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    for addition in ADDITIONS:
        add(copy, addition)
    return copy


def test_only_one_file_and_one_table_change_for_each(package: Path) -> None:
    original = Path(poseglass.__file__).parent
    before, after = digests(original), digests(package)
    assert after.keys() - before.keys() == {addition.file for addition in ADDITIONS}
    assert {path for path in before if after[path] != before[path]} == {addition.table for addition in ADDITIONS}
    for addition in ADDITIONS:
        old, new = ((folder / addition.table).read_text().splitlines() for folder in (original, package))
        assert [line.strip() for line in new if line not in old] == [addition.imported, addition.entry]
        assert len(new) == len(old) + 2


@pytest.mark.slow
def test_each_is_listed_and_trains_by_a_recipe(package: Path, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    lines = []
    for i in range(8):
        xy = random.uniform(8, 40, (3, 2)).round(1)
        image = np.zeros((48, 48, 3), np.uint8)
        image[xy[:, 1].astype(int), xy[:, 0].astype(int)] = 255
        write_image(tmp_path / f"{i}.png", image)
        lines.append(f"{i}.png {' '.join(map(str, xy.ravel()))}\n")
    (tmp_path / "dots.txt").write_text("".join(lines))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    before = digests(package)
    plain = {name: value for name, value in os.environ.items() if name != "FORCE_COLOR"}  # which makes a terminal
    done = subprocess.run(
        [sys.executable, "-c", USED, str(package.parent)], cwd=tmp_path, capture_output=True, text=True, timeout=300,
        env=plain | {"PYTHONPATH": str(package.parent), "COLUMNS": "100", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert digests(package) == before
    listed, measured, looked, trained, evaluated = done.stdout.split("$ ")[1:]
    assert re.search(r"\n three_layers +952 .* 32 x 48 +4, 4 ", listed), listed
    assert re.search(r"\n\| tent \| 1\.\d\d / ", measured), measured  # a stride of 4, read without a fraction
    assert "8 images, 8 people with a label, 3 keypoints (dots3)" in looked
    assert "8 people, 835 parameters, 1 epochs of 2 steps" in trained
    assert "pck@0.5" in trained
    assert "8 people in 8 images" in evaluated
    assert "pck@0.5" in evaluated
