"""The list of weights that others publish: where each file is, its checksum, and the terms of its code and its data."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

MANIFEST = Path(__file__).parents[1] / "weights" / "manifest.toml"
"""The list that comes with the package."""

Url = Annotated[str, Field(pattern=r"^https?://[^\s/]+/\S*$")]

Word = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_]*$")
]  # a list is no place for "package.module:name", which runs code


class PublicWeights(BaseModel):
    """One public weights file.

    Attributes:
        name: What ``poseglass.load`` takes once it is fetched; small letters, digits, "." "_" "-".
        network: In ``NETWORKS``, or of a backbone in ``BACKBONES``.
        skeleton: In ``SKELETONS``; empty for a backbone, which predicts no keypoints.
        layout: Of ``poseglass import``; empty lets the names of the tensors tell.
        urls: Where the file is, in the order they are tried; https, or http where all of ``sha256`` is given.
        second_source: Where there is one address only, what is known of another.
        sha256: Of the file, 64 hexadecimal digits; empty where only their start is known.
        sha256_start: The digits that are known, at least 8.
        bytes: Size of the file, 0 where it is not known.
        code_license: Of the code that the publisher trained with.
        data: What they were trained on.
        data_terms: What the owners of that data allow.
        commercial: Whether the stated terms allow commercial use.
        commercial_reason: Why.
        published: Results as the publisher states them; not measured here.
        verified: Whether somebody has fetched the file from these addresses and imported it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    network: str
    skeleton: Word = ""
    layout: Word = ""
    urls: Annotated[tuple[Url, ...], Field(min_length=1)]
    second_source: str = ""
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    sha256_start: Annotated[str, Field(pattern=r"^([0-9a-f]{8,63})?$")] = ""
    bytes: Annotated[int, Field(ge=0)] = 0
    code_license: str
    data: str
    data_terms: str
    commercial: Literal["yes", "no", "unknown"]
    commercial_reason: str
    published: dict[str, float] = {}
    verified: bool

    @model_validator(mode="after")
    def _whole(self) -> "PublicWeights":
        if bool(self.sha256) == bool(self.sha256_start):
            raise ValueError("give either sha256 or, where the rest is not known, sha256_start")
        if not self.sha256 and any(url.startswith("http:") for url in self.urls):
            raise ValueError("an http address, on whose way bytes can be changed, needs all of sha256; or give https")
        if (len(self.urls) == 1) != bool(self.second_source):
            raise ValueError("give two urls, or one and what is known of another in second_source")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", self.file):
            raise ValueError(f"the first url must end in a plain file name, got {self.file!r}")
        return self

    @property
    def file(self) -> str:
        """Name of the file, by its first address."""
        return urlsplit(self.urls[0]).path.rsplit("/", 1)[-1]

    @property
    def digits(self) -> str:
        """As much of the SHA-256 as is known."""
        return self.sha256 or self.sha256_start

    @property
    def hosts(self) -> str:
        """The servers it is fetched from, in order."""
        return ", ".join(dict.fromkeys(urlsplit(url).netloc for url in self.urls))


def read_manifest(path: str | Path = MANIFEST) -> dict[str, PublicWeights]:
    """Read a list of public weights: TOML, one table per name.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not TOML, or an entry with a field that is missing, unknown or wrong; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No such list of weights: {path}. Expected a TOML file with one table per name.")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML ({error}). Expected one table per weights file.") from error
    found: dict[str, PublicWeights] = {}
    for name, table in tables.items():
        if not isinstance(table, dict):
            raise ValueError(f"{path}: {name!r} is a {type(table).__name__}; expected a table [{name}] for each file.")
        try:
            found[name] = PublicWeights(**{**table, "name": name})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in (name, *first["loc"]))
            raise ValueError(f"{path}: {where}: {first['msg']}. Fix that line.") from error
    return found
