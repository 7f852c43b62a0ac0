"""What is shipped: the wheel has everything that runs and nothing else, and works where nothing but it is installed.

The environment of its own sees the packages of this one (torch takes minutes and gigabytes to install again), but not
this checkout. ``make build`` hands over what it has built (``POSEGLASS_DIST``); without, the test builds it.
"""

import email.message
import email.parser
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import matplotlib
import pytest

import poseglass

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(poseglass.__file__).parent

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]


def clean_environment(**more: str) -> dict[str, str]:
    """Return this process's variables without those by which Python would find the checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "POSEGLASS_"))}
    return kept | more


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the sdist and the wheel that was made of it."""
    if given := os.environ.get("POSEGLASS_DIST"):
        return ROOT / given
    for name in ("build", "setuptools"):
        pytest.importorskip(name)
    folder = tmp_path_factory.mktemp("dist")
    tree = folder / "tree"  # setuptools writes beside what it builds
    tree.mkdir()
    for name in ("src", "pyproject.toml", "README.md", "LICENSE", "NOTICE.md"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(ROOT / name, tree / name)
    done = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder / "dist"), str(tree)],
        capture_output=True, text=True, env=clean_environment(), cwd=folder, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(dist: Path) -> Path:
    (found,) = dist.glob("poseglass-*.whl")
    return found


@pytest.fixture(scope="module")
def names(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as file:
        return set(file.namelist())


def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        return email.parser.Parser().parsestr(file.read(name).decode())


@pytest.fixture(scope="module")
def command(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command ``poseglass`` in an environment where the wheel is installed."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False)
    bin_folder = folder / ("Scripts" if sys.platform == "win32" else "bin")
    python = bin_folder / ("python.exe" if sys.platform == "win32" else "python")
    # before it sees the other packages: pip would find the checkout's among them, and touch it
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index", str(wheel)],
        check=True, env=clean_environment(PIP_DISABLE_PIP_VERSION_CHECK="1"), cwd=folder, timeout=300,
    )  # fmt: skip
    site = Path(
        subprocess.run(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            check=True, capture_output=True, text=True, env=clean_environment(), cwd=folder,
        ).stdout.strip()
    )  # fmt: skip
    # a path in a .pth file is only a path: the .pth files there, the checkout's among them, are not read
    seen = dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib")))
    (site / "packages_of_the_tests.pth").write_text("\n".join(seen) + "\n")
    return bin_folder / "poseglass"


def run(command: Path, *words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [command, *words], capture_output=True, text=True, env=clean_environment(OMP_NUM_THREADS="1"), cwd=folder,
        timeout=300, check=False,
    )  # fmt: skip


def test_every_file_of_the_package_is_in_it(names: set[str]) -> None:
    files = {path.relative_to(PACKAGE.parent).as_posix() for path in PACKAGE.rglob("*") if path.is_file()}
    expected = {name for name in files if "__pycache__" not in name} | {"poseglass_command.py"}
    for kind in ("py.typed", ".safetensors", "manifest.toml", "lspet/family.toml", "report.html", "audit.css"):
        assert any(name.endswith(kind) for name in expected), kind
    assert {name for name in names if ".dist-info/" not in name} == expected


def test_licences_and_what_it_needs(wheel: Path, names: set[str]) -> None:
    assert {Path(name).name for name in names if ".dist-info/licenses/" in name} == {"LICENSE", "NOTICE.md"}
    said = metadata(wheel)
    assert (said["Name"], said["Version"], said["License-Expression"]) == (
        "poseglass",
        poseglass.__version__,
        "Apache-2.0",
    )
    needed = [line for line in said.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert any(line.startswith("torch") for line in needed)
    assert not any(line.startswith(("pytest", "pycocotools", "hypothesis", "tensorboard", "ruff")) for line in needed)


def test_the_sdist_makes_the_same_package(dist: Path, names: set[str]) -> None:
    (found,) = dist.glob("poseglass-*.tar.gz")
    with tarfile.open(found) as file:
        sources = {name.partition("/src/")[2] for name in file.getnames() if "/src/poseglass" in name}
    assert {name for name in names if ".dist-info/" not in name} <= sources
    assert not any("shared" in name for name in sources)


def test_the_command_is_the_wheel_s(command: Path, tmp_path: Path) -> None:
    where = subprocess.run(
        [command.with_name("python"), "-c", "import poseglass, poseglass_command; print(poseglass.__file__)"],
        capture_output=True, text=True, env=clean_environment(), cwd=tmp_path, check=True,
    ).stdout.strip()  # fmt: skip
    assert Path(where).is_relative_to(command.parents[1])
    done = run(command, "--help", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "predict" in done.stdout


def test_it_finds_a_pose_in_a_photograph(command: Path, tmp_path: Path) -> None:
    photograph = Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    done = run(command, "predict", str(photograph), "--out", "poses", "--device", "cpu", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    poses = json.loads((tmp_path / "poses" / "poses.json").read_text())
    assert "grace_hopper" in json.dumps(poses)
    assert any(path.suffix in (".png", ".jpg") for path in (tmp_path / "poses").iterdir())


def test_it_trains_by_a_recipe_that_ships_and_writes_the_report(command: Path, tmp_path: Path) -> None:
    quick = ("train.epochs=1", "train.workers=0", "data.train.count=16", "data.val.count=8", "train.batch_size=8")
    words = [word for setting in quick for word in ("--set", setting)]
    done = run(command, "train", "synthetic/one_minute.toml", *words, "--run-folder", "run", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "<h1>" in (tmp_path / "run" / "report.html").read_text()
