"""The list of publicly available weights: URLs, checksums, and the licences of their code and data."""

import re
import tomllib
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

MANIFEST = Path(__file__).parents[1] / "weights" / "manifest.toml"
"""The list included in the package."""

Url = Annotated[str, Field(pattern=r"^https?://[^\s/]+/\S*$")]

Word = Annotated[
    str, Field(pattern=r"^[A-Za-z0-9_]*$")
]  # a list must not contain "package.module:name", which runs code


class PublicWeights(BaseModel):
    """One public weights file.

    Attributes:
        name: Name for ``poseglass.load`` once it is downloaded; lower-case letters, digits, "." "_" "-".
        network: Name in ``NETWORKS``, or of a backbone in ``BACKBONES``.
        skeleton: Name in ``SKELETONS``; empty for a backbone, which predicts no keypoints.
        layout: Layout for ``poseglass import``; empty recognises it by the tensor names.
        urls: Where the file is, in the order they are tried; https, or http if the whole ``sha256`` is given.
        second_source: If there is only one URL, what is known of another.
        sha256: SHA-256 of the file, 64 hexadecimal digits; empty if only its start is known.
        sha256_start: The known digits, at least 8.
        bytes: Size of the file, 0 if not known.
        code_license: Licence of the code that the publisher trained with.
        data: Data that the weights were trained on.
        data_terms: What the owners of that data allow.
        commercial: Whether the stated terms allow commercial use.
        commercial_reason: Why.
        published: Results as stated by the publisher; not measured here.
        verified: Whether somebody has downloaded the file from these URLs and imported it.
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
            raise ValueError("give either sha256 or, if the rest is not known, sha256_start")
        if not self.sha256 and any(url.startswith("http:") for url in self.urls):
            raise ValueError(
                "an http url, whose content can be changed in transit, needs the whole sha256; or use https"
            )
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
        """The known digits of the SHA-256."""
        return self.sha256 or self.sha256_start

    @property
    def hosts(self) -> str:
        """The servers it is downloaded from, in order."""
        return ", ".join(dict.fromkeys(urlsplit(url).netloc for url in self.urls))


def read_manifest(path: str | Path = MANIFEST) -> dict[str, PublicWeights]:
    """Read a list of public weights: TOML, one table per name.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Not TOML, or an entry with a missing, unknown or invalid field; the message names it.
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
