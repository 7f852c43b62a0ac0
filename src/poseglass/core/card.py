"""WeightCard: everything needed to rebuild an estimator; it travels inside the weights file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from poseglass.core.input_spec import InputSpec
from poseglass.core.skeleton import Skeleton


@dataclass(frozen=True, slots=True)
class WeightCard:
    """The card of a weights file.

    Args:
        name: Of the weights, "hg2-light-lspet".
        network: ``{"name": "hg2_light", "num_keypoints": 14, ...}``, built from ``NETWORKS``; of a backbone alone,
            ``{"name": "resnet50", ...}``, built from ``BACKBONES``.
        codec: ``{"name": "heatmap", ...}``, built from ``CODECS``; of a backbone alone, empty.
        skeleton: In full, not by name; of a backbone alone, None.
        input: Size, padding, normalisation.
        results: Measured results by name, ``{"lspet/val PCK@0.2": 0.71}``.
        data: What it was trained on, and whose.
        license: Terms of the weights, in words.
        source_url: Of the original, for imported weights.
        sha256: Of the original file, for imported weights.
        recipe: The recipe in full (TOML text), or where it is.
        commit: Of poseglass, for weights trained here.
        notes: Anything a user should know.
        part: What the file holds: a whole network, or a backbone to start one from.
        certificate: Of imported weights: ``{"checked": False}``, or how far they were from the original, on what.
        poseglass: Version that wrote the card.
        widths: Of a pruned or searched network, what its modules have in place of what ``network`` makes,
            ``{"stem.conv": {"out_channels": 24}, ...}``; see ``poseglass.networks.widths.card_widths``.

    Raises:
        ValueError: A whole network without a skeleton or a codec, or a backbone with one; or widths that are no table
            of whole numbers by module.
    """

    name: str
    network: dict[str, Any]
    codec: dict[str, Any]
    skeleton: Skeleton | None
    input: InputSpec
    results: dict[str, float] = field(default_factory=dict)
    data: str = ""
    license: str = ""
    source_url: str = ""
    sha256: str = ""
    recipe: str = ""
    commit: str = ""
    notes: str = ""
    poseglass: str = ""
    part: Literal["network", "backbone"] = "network"
    certificate: dict[str, Any] = field(default_factory=dict)
    widths: dict[str, dict[str, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.part not in ("network", "backbone"):
            raise ValueError(f"WeightCard.part must be 'network' or 'backbone', got {self.part!r}.")
        if self.part == "network" and (self.skeleton is None or not self.codec):
            raise ValueError(f"The card of {self.name!r} is of a whole network, which has a skeleton and a codec.")
        if self.part == "backbone" and (self.skeleton is not None or self.codec):
            raise ValueError(f"The card of {self.name!r} is of a backbone, which has neither skeleton nor codec.")
        check_widths(self.widths, "WeightCard.widths")

    def __repr__(self) -> str:
        names = "a backbone" if self.skeleton is None else f"{len(self.skeleton)} keypoints of {self.skeleton.name!r}"
        width, height = self.input.size_wh
        own = f" with other widths in {len(self.widths)} modules" if self.widths else ""
        return f"WeightCard({self.name!r}: {self.network.get('name')}{own}, {names}, {width} x {height} px)"

    def to_json(self) -> str:
        """Return the card as JSON."""
        data = {name: getattr(self, name) for name in self.__slots__ if name not in ("skeleton", "input")}
        skeleton = None if self.skeleton is None else self.skeleton.to_dict()
        return json.dumps(data | {"skeleton": skeleton, "input": asdict(self.input)})

    @classmethod
    def from_json(cls, text: str) -> "WeightCard":
        """Rebuild a card.

        Raises:
            ValueError: Not JSON, or a field is missing or of the wrong kind.
        """
        try:
            data = json.loads(text)
            known = {k: v for k, v in data.items() if k in cls.__slots__}
            known["skeleton"] = None if data["skeleton"] is None else Skeleton.from_dict(data["skeleton"])
            known["input"] = InputSpec(**data["input"])
            if not isinstance(known["network"], dict) or not isinstance(known["codec"], dict):
                raise ValueError("'network' and 'codec' must be tables with a name")
            return cls(**known)
        except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"The card of these weights cannot be read: {error!s}.") from error


def check_widths(widths: Any, what: str) -> None:
    """Raise unless widths are whole numbers above 0 by module and name, whatever network they are of.

    Args:
        widths: Supposed to be ``{"stem.conv": {"out_channels": 24}, ...}``.
        what: They are, for the message.

    Raises:
        ValueError: With the entry that is none.
    """
    expected = f"{what} must be whole numbers above 0 by module, such as {{'stem.conv': {{'out_channels': 24}}}}"
    if not isinstance(widths, Mapping):
        raise ValueError(f"{expected}; got {widths!r:.60}.")
    for module, numbers in widths.items():
        if not isinstance(module, str) or not isinstance(numbers, Mapping):
            raise ValueError(f"{expected}; got {numbers!r:.60} for {module!r:.60}.")
        for key, value in numbers.items():
            if not isinstance(key, str) or isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{expected}; got {key!r:.60} = {value!r:.60} for {module!r:.60}.")
