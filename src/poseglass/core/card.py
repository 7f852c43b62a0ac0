"""WeightCard: everything needed to rebuild an estimator; it travels inside the weights file."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from poseglass.core.affine import CropRule
from poseglass.core.skeleton import Skeleton


@dataclass(frozen=True, slots=True)
class InputSpec:
    """How a box in an image becomes the network's input.

    Args:
        size_wh: Of the crop, pixels.
        padding: The box is grown to the crop's aspect, then by this factor.
        mean: Of the channels in [0, 1], in the order of ``color``; subtracted.
        std: Of the channels in [0, 1], in the order of ``color``; divided by.
        color: The order in which the network gets the channels.
        crop: How the grown box maps to the crop, a rule of ``Affine.crop``.

    Raises:
        ValueError: A size below 1, a padding or std that is not positive, an unknown order of channels or crop rule.
    """

    size_wh: tuple[int, int] = (256, 256)
    padding: float = 1.25
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    color: Literal["rgb", "bgr"] = "rgb"
    crop: CropRule = "edges"

    def __post_init__(self) -> None:
        for name in ("size_wh", "mean", "std"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len(self.size_wh) != 2 or any(int(s) != s or s < 1 for s in self.size_wh):
            raise ValueError(f"InputSpec.size_wh must be two whole numbers above 0, got {self.size_wh}.")
        if len(self.mean) != 3 or len(self.std) != 3:
            raise ValueError(
                f"InputSpec.mean and std must have 3 numbers (one a channel), got {self.mean} and {self.std}."
            )
        if self.color not in ("rgb", "bgr"):
            raise ValueError(f"InputSpec.color must be 'rgb' or 'bgr', got {self.color!r}.")
        if self.crop not in get_args(CropRule):
            raise ValueError(f"InputSpec.crop must be one of {', '.join(get_args(CropRule))}, got {self.crop!r}.")
        if self.crop == "udp" and min(self.size_wh) < 2:
            raise ValueError(f"InputSpec.crop 'udp' needs sides of at least 2 pixels, got {self.size_wh}.")
        if not self.padding > 0 or any(not s > 0 for s in self.std):
            raise ValueError(f"InputSpec.padding and std must be positive, got {self.padding} and {self.std}.")

    @property
    def aspect(self) -> float:
        """Width over height."""
        return self.size_wh[0] / self.size_wh[1]


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
        results: Measured figures by name, ``{"lspet/val PCK@0.2": 0.71}``.
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

    Raises:
        ValueError: A whole network without a skeleton or a codec, or a backbone with one.
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

    def __post_init__(self) -> None:
        if self.part not in ("network", "backbone"):
            raise ValueError(f"WeightCard.part must be 'network' or 'backbone', got {self.part!r}.")
        if self.part == "network" and (self.skeleton is None or not self.codec):
            raise ValueError(f"The card of {self.name!r} is of a whole network, which has a skeleton and a codec.")
        if self.part == "backbone" and (self.skeleton is not None or self.codec):
            raise ValueError(f"The card of {self.name!r} is of a backbone, which has neither skeleton nor codec.")

    def __repr__(self) -> str:
        names = "a backbone" if self.skeleton is None else f"{len(self.skeleton)} keypoints of {self.skeleton.name!r}"
        width, height = self.input.size_wh
        return f"WeightCard({self.name!r}: {self.network.get('name')}, {names}, {width} x {height} px)"

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
