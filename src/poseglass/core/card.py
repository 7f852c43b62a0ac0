"""WeightCard: everything needed to rebuild an estimator; it is stored in the weights file."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from poseglass.core.calibration import Calibration
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeleton import Skeleton


@dataclass(frozen=True, slots=True)
class WeightCard:
    """The card of a weights file.

    Args:
        name: Name of the weights, "hg2-light-lspet".
        network: ``{"name": "hg2_light", "num_keypoints": 14, ...}``, built from ``NETWORKS``; for a backbone alone,
            ``{"name": "resnet50", ...}``, built from ``BACKBONES``.
        codec: ``{"name": "heatmap", ...}``, built from ``CODECS``; empty for a backbone alone.
        skeleton: In full, not by name; None for a backbone alone.
        input: Size, padding, normalisation.
        results: Measured results by name, ``{"lspet/val PCK@0.2": 0.71}``.
        data: The training data, and who owns it.
        license: License terms of the weights.
        source_url: URL of the original, for imported weights.
        sha256: Hash of the original file, for imported weights.
        recipe: The full recipe (TOML text), or where to find it.
        commit: Commit of poseglass, for weights trained here.
        notes: Anything a user should know.
        part: What the file holds: a whole network, or a backbone to initialise one from.
        certificate: Parity report of imported weights: ``{"checked": False}``, or how much their outputs differ from
            the original's, and on which inputs.
        poseglass: Version that wrote the card.
        widths: For a pruned or searched network, the widths in which its modules differ from what ``network`` builds,
            ``{"stem.conv": {"out_channels": 24}, ...}``; see ``poseglass.networks.widths.card_widths``.
        classes: Names of the classes that the labels of a detector or classifier count through, ("person",); empty if
            not stated.
        calibrations: What scores mean, at most one with flip test and one without.
        chips: Of a network that was trained on chips, their scales and valid ranges, ``({"scale": 3.0, "from_px": 0.0,
            "up_to_px": 80.0}, ...)``, where None stands for no upper end; empty if it was trained on whole images.

    Raises:
        ValueError: A whole network without a skeleton or a codec, a backbone with one, widths that are not a table
            of whole numbers by module, classes that are not different names, or calibrations of another number of
            keypoints or of the same flip test.
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
    classes: tuple[str, ...] = ()
    calibrations: tuple[Calibration, ...] = ()
    chips: tuple[dict[str, float | str | None], ...] = ()

    def __post_init__(self) -> None:
        if self.part not in ("network", "backbone"):
            raise ValueError(f"WeightCard.part must be 'network' or 'backbone', got {self.part!r}.")
        if self.part == "network" and (self.skeleton is None or not self.codec):
            raise ValueError(f"The card of {self.name!r} describes a network, which needs a skeleton and a codec.")
        if self.part == "backbone" and (self.skeleton is not None or self.codec):
            raise ValueError(f"The card of {self.name!r} describes a backbone, which has no skeleton and no codec.")
        check_widths(self.widths, "WeightCard.widths")
        names = self.classes
        if not isinstance(names, list | tuple) or not all(isinstance(n, str) and n.strip() for n in names):
            raise ValueError(f"WeightCard.classes must be names, such as ('person', 'dog'); got {names!r:.60}.")
        if len(set(names)) != len(names):
            twice = next(n for n in names if list(names).count(n) > 1)
            raise ValueError(f"WeightCard.classes must be different names, {twice!r} is there twice.")
        object.__setattr__(self, "classes", tuple(names))
        object.__setattr__(self, "calibrations", tuple(self.calibrations))
        object.__setattr__(self, "chips", tuple(self.chips))
        if not all(isinstance(one, dict) and one.keys() == {"scale", "from_px", "up_to_px"} for one in self.chips):
            raise ValueError(
                f"WeightCard.chips must be tables with scale, from_px and up_to_px; got {self.chips!r:.80}."
            )
        keypoints = 0 if self.skeleton is None else len(self.skeleton)
        for one in self.calibrations:
            if len(one.probability) != keypoints:
                raise ValueError(
                    f"WeightCard.calibrations must have {keypoints} keypoints, as the skeleton, got "
                    f"{len(one.probability)}. Calibrate these weights again."
                )
        if len({one.flip_test for one in self.calibrations}) != len(self.calibrations):
            raise ValueError(
                f"WeightCard.calibrations may hold one with flip test and one without, got {len(self.calibrations)} of "
                "which two are alike. Keep one of them."
            )

    def __repr__(self) -> str:
        names = "a backbone" if self.skeleton is None else f"{len(self.skeleton)} keypoints of {self.skeleton.name!r}"
        width, height = self.input.size_wh
        own = f" with other widths in {len(self.widths)} modules" if self.widths else ""
        return f"WeightCard({self.name!r}: {self.network.get('name')}{own}, {names}, {width} x {height} px)"

    def to_json(self) -> str:
        """Return the card as JSON."""
        data = {
            name: getattr(self, name) for name in self.__slots__ if name not in ("skeleton", "input", "calibrations")
        }
        skeleton = None if self.skeleton is None else self.skeleton.to_dict()
        calibrations = [one.to_dict() for one in self.calibrations]
        return json.dumps(data | {"skeleton": skeleton, "input": asdict(self.input), "calibrations": calibrations})

    @classmethod
    def from_json(cls, text: str) -> "WeightCard":
        """Rebuild a card.

        Raises:
            ValueError: The text is not JSON, or a field is missing or has the wrong type.
        """
        try:
            data = json.loads(text)
            known = {k: v for k, v in data.items() if k in cls.__slots__}
            known["skeleton"] = None if data["skeleton"] is None else Skeleton.from_dict(data["skeleton"])
            known["input"] = InputSpec(**data["input"])
            known["calibrations"] = tuple(Calibration.from_dict(one) for one in data.get("calibrations", ()))
            if not isinstance(known["network"], dict) or not isinstance(known["codec"], dict):
                raise ValueError("'network' and 'codec' must be tables with a name")
            return cls(**known)
        except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"The card of these weights cannot be read: {error!s}.") from error


def check_widths(widths: Any, what: str) -> None:
    """Raise unless widths are whole numbers above 0 by module and name; independent of any network.

    Args:
        widths: Expected to be ``{"stem.conv": {"out_channels": 24}, ...}``.
        what: Name of the widths in the message.

    Raises:
        ValueError: They are not; the message names the entry.
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
