"""``poseglass weights list | fetch | path | remove``: manages weights by name, with their terms."""

import dataclasses
import json as json_format
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

from poseglass.checkpoints import import_state, read_network
from poseglass.checkpoints.package import PackagedWeights, package_weights, read_packages
from poseglass.cli.help import HelpCommand, HelpGroup
from poseglass.core.card import WeightCard
from poseglass.core.skeletons import SKELETONS
from poseglass.core.table import lookup, nearest
from poseglass.estimators import fetch
from poseglass.estimators.load import PACKAGE_PREFIX, cached, find_weights, shipped
from poseglass.estimators.manifest import MANIFEST, PublicWeights, read_manifest
from poseglass.estimators.weights_file import CheckpointError, read_card, read_weights, save_weights, sha256_of
from poseglass.lifting.lifter import read_lifter_card, shipped_lifters

weights = typer.Typer(
    cls=HelpGroup, no_args_is_help=True, help="Find, fetch and remove weights by name, with their terms."
)

Names = Annotated[list[str], typer.Argument(help="Names of weights, as in `poseglass weights list`.")]
Manifest = Annotated[
    Path,
    typer.Option("--manifest", help="A custom list of weights (TOML) instead of the built-in one.", show_default=False),
]


@dataclass(frozen=True, slots=True)
class WeightsListing:
    """Weights that are available by name.

    Args:
        name: Name for ``poseglass.load``.
        ships: Whether they are included in the package.
        file: Path on this machine; None if they are not on it.
        network: Name of their network.
        skeleton: Skeleton that they predict; empty for a backbone.
        bytes: Size of the file as published or shipped; 0 if unknown.
        commercial: Commercial use: "yes", "no" or "unknown".
        terms: The reason for that, and the licences.
        data: Training data.
        published: Results stated by the publisher or, for weights in no list, measured according to the card.
        sources: URLs that they are fetched from, or the package and its version.
        verified: Whether a file has been fetched from the URLs and imported.
    """

    name: str
    ships: bool
    file: str | None
    network: str
    skeleton: str
    bytes: int
    commercial: str
    terms: str
    data: str
    published: dict[str, float]
    sources: list[str]
    verified: bool


@weights.command("list", cls=HelpCommand)
def list_weights(
    commercial_ok: Annotated[
        bool, typer.Option("--commercial-ok", help="List only weights whose stated terms allow commercial use.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    manifest: Manifest = MANIFEST,
) -> None:
    """List built-in weights, public ones and others in the cache, with their terms and whether they are downloaded."""
    rows = [_shipped_row(name, path) for name, path in shipped().items()]
    rows += [_lifter_row(name, path) for name, path in shipped_lifters().items()]
    public = read_manifest(manifest)
    rows += [_public_row(entry) for entry in public.values()]
    packages = read_packages() if manifest == MANIFEST else {}
    rows += [_package_row(entry) for entry in packages.values()]
    rows += [_other_row(name, path) for name, path in cached().items() if name not in {*public, *packages}]
    if commercial_ok:
        rows = [row for row in rows if row.commercial == "yes"]
    if json:
        json_format.dump([asdict(row) for row in rows], sys.stdout, indent=1)
        print()
        return
    if commercial_ok and not rows:
        print("None of the listed weights has terms that state that commercial use is allowed.")
    for row in rows:
        where = "ships" if row.ships else "fetched" if row.file else "not fetched"
        size = f", {row.bytes / 1e6:.1f} MB" if row.bytes else ""
        results = ", ".join(f"{name} {value:.4g}" for name, value in row.published.items())
        print(f"{row.name}  [{where}{size}]")
        print(f"    {row.network}{', ' + row.skeleton if row.skeleton else ''}; trained on {row.data}")
        print(f"    commercial use: {row.commercial}; {row.terms}")
        if results:
            print(f"    {'the publisher states' if row.sources else 'measured'}: {results}")
        if not row.verified:
            print("    URL not yet verified")


@weights.command("fetch", cls=HelpCommand)
def fetch_weights(
    names: Names,
    offline: Annotated[
        bool, typer.Option("--offline", help="Use only files on this machine, like POSEGLASS_OFFLINE=1.")
    ] = False,
    manifest: Manifest = MANIFEST,
) -> None:
    """Print the terms of public weights, download them, verify and import them, and keep them in the user's cache."""
    public = read_manifest(manifest)
    for name in names:
        if name in shipped():
            print(f"{name} is included in the package: {shipped()[name]}")
            continue
        if name.startswith(PACKAGE_PREFIX):
            print(package_weights(name, offline=offline or None))
            continue
        entry = _entry(public, name)
        print(f"{name}: from {entry.hosts}; code {entry.code_license}; trained on {entry.data} ({entry.data_terms})")
        print(f"    commercial use: {entry.commercial}, {entry.commercial_reason}", flush=True)
        if not entry.verified:
            print("    URL not yet verified: no file has been fetched from it and imported", flush=True)
        print(f"    {_fetch_and_import(entry, offline=offline or None)}")


@weights.command("path", cls=HelpCommand)
def weights_path(name: Annotated[str, typer.Argument(help="Name of weights.")]) -> None:
    """Print the path of weights on this machine."""
    print(find_weights(name))


@weights.command("remove", cls=HelpCommand)
def remove_weights(names: Names) -> None:
    """Remove fetched weights and incomplete downloads from the cache."""
    folder = fetch.weights_folder()
    begun = {path.name: path for path in (folder / "downloads").glob("*") if path.is_dir()}
    for name in names:
        if name in shipped():
            raise ValueError(f"{name} is included in the package and cannot be removed.")
        if name not in cached() and name not in begun:
            here = ", ".join(sorted({*cached(), *begun})) or "none"
            raise LookupError(f"No weights {name!r} in {folder}.{nearest(name, {*cached(), *begun})} Found: {here}.")
    for name in names:
        to = folder / f"{name}.safetensors"
        with fetch.locked(to):
            to.unlink(missing_ok=True)
            if name in begun and begun[name].is_dir():  # not removed by another process in the meantime
                shutil.rmtree(begun[name])
        print(f"{name}: removed")


def _entry(public: dict[str, PublicWeights], name: str) -> PublicWeights:
    if name not in public:
        raise LookupError(
            f"Unknown weights {name!r}.{nearest(name, public)} `poseglass weights list` lists all known weights; "
            "convert your own checkpoint with `poseglass import`."
        )
    return public[name]


def _imported(entry: PublicWeights) -> Path:
    return fetch.weights_folder() / f"{entry.name}.safetensors"


def _downloads(entry: PublicWeights) -> Path:
    return fetch.weights_folder() / "downloads" / entry.name


def _fetch_and_import(entry: PublicWeights, *, offline: bool | None) -> Path:
    """Return the weights file of an entry in the cache; download and import it if it is not there.

    Raises:
        FetchError: The file cannot be downloaded, or the cache cannot be written.
        LookupError: The list names an unknown skeleton.
        CheckpointError: The file is correct, but this version cannot import it, or its network differs from the list;
            it stays in the cache.
    """
    to = _imported(entry)
    if _is_of(to, entry):
        return to
    skeleton = lookup(SKELETONS, entry.skeleton, kind="skeleton") if entry.skeleton else None
    with fetch.locked(to):
        if _is_of(to, entry):  # another process fetched it in the meantime
            return to
        download = _downloads(entry) / entry.file
        _fetch(entry, download, offline)
        try:
            found = read_network(download, layout=entry.layout)
            digest = sha256_of(download)
            state, card = import_state(
                found.state, found.importer, skeleton=skeleton, name=entry.name, sha256=digest, notes=found.notes
            )
            if card.network["name"] != entry.network:
                raise CheckpointError(f"its network is {card.network['name']!r}, but the list says {entry.network!r}.")
        except (CheckpointError, LookupError) as error:
            raise CheckpointError(
                f"{entry.name} was fetched and its checksum is correct, but this version cannot import it: {error} "
                "The download is kept for a version that can."
            ) from error
        save_weights(to, state, _with_terms(card, entry))
        for note in (found.importer.doubt, *found.notes):
            if note:
                print(f"    {note}")
        del state, found  # their tensors are mapped from the download
        shutil.rmtree(download.parent)
    return to


def _is_of(path: Path, entry: PublicWeights) -> bool:
    """Return whether a file in the cache is complete and was made from the file that the entry lists now."""
    try:
        return read_weights(path)[1].sha256.startswith(entry.digits)
    except (CheckpointError, FileNotFoundError):
        return False


def _fetch(entry: PublicWeights, download: Path, offline: bool | None) -> None:
    console = Console(stderr=True)
    columns = (TextColumn("    {task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(entry.file, total=entry.bytes or None)
        fetch.fetch_file(
            entry.urls,
            download,
            sha256=entry.digits,
            num_bytes=entry.bytes,
            offline=offline,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )


def _with_terms(card: WeightCard, entry: PublicWeights) -> WeightCard:
    """Return the card with the data, terms and results stated in the list."""
    results = ", ".join(f"{name} {value:.4g}" for name, value in entry.published.items())
    stated = f" The publisher states: {results}." if results else ""
    return dataclasses.replace(
        card,
        data=entry.data,
        license=f"Code: {entry.code_license}. Data: {entry.data_terms}. Commercial use: {entry.commercial}, "
        f"{entry.commercial_reason}.",
        source_url=entry.urls[0],
        notes=f"{card.notes}{stated}",
    )


def _shipped_row(name: str, path: Path) -> WeightsListing:
    card = read_card(path)
    return WeightsListing(
        name=name,
        ships=True,
        file=str(path),
        network=str(card.network.get("name", "")),
        skeleton=card.skeleton.name if card.skeleton else "",
        bytes=path.stat().st_size,
        commercial="unknown",  # a card states its terms only as text
        terms=card.license,
        data=card.data,
        published=card.results,
        sources=[],
        verified=True,
    )


def _lifter_row(name: str, path: Path) -> WeightsListing:
    card = read_lifter_card(path)
    return WeightsListing(
        name=name,
        ships=True,
        file=str(path),
        network=f"lifter for predict --lift ({card.network.get('method', '')})",
        skeleton=card.skeleton.name,
        bytes=path.stat().st_size,
        commercial="unknown",  # as for others that ship: a card states its terms only as text
        terms=card.license,
        data=card.data,
        published=card.results,
        sources=[],
        verified=True,
    )


def _package_row(entry: PackagedWeights) -> WeightsListing:
    path = fetch.weights_folder() / f"{entry.name}.safetensors"
    return WeightsListing(
        name=f"{PACKAGE_PREFIX}{entry.name}",
        ships=False,
        file=str(path) if path.exists() else None,
        network=entry.network,
        skeleton="",
        bytes=entry.bytes,
        commercial=entry.commercial,
        terms=f"{entry.commercial_reason} (package {entry.code_license}; data: {entry.data_terms})",
        data=entry.data,
        published={},
        sources=[f"{entry.name}=={entry.version}"],
        verified=entry.verified,
    )


def _other_row(name: str, path: Path) -> WeightsListing:
    """Return the row of a file in the cache that is in no list."""
    try:
        return dataclasses.replace(_shipped_row(name, path), ships=False)
    except CheckpointError as error:
        return WeightsListing(
            name=name,
            ships=False,
            file=str(path),
            network="unknown",
            skeleton="",
            bytes=path.stat().st_size,
            commercial="unknown",
            terms=str(error),
            data="unknown",
            published={},
            sources=[],
            verified=True,
        )


def _public_row(entry: PublicWeights) -> WeightsListing:
    path = _imported(entry)
    return WeightsListing(
        name=entry.name,
        ships=False,
        file=str(path) if path.exists() else None,
        network=entry.network,
        skeleton=entry.skeleton,
        bytes=entry.bytes,
        commercial=entry.commercial,
        terms=f"{entry.commercial_reason} (code {entry.code_license}; data: {entry.data_terms})",
        data=entry.data,
        published=entry.published,
        sources=list(entry.urls),
        verified=entry.verified,
    )
