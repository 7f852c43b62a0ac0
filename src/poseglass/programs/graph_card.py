"""GraphCard: what an exported file states about itself, stored in its metadata as text."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from poseglass.codecs import CodecSpec, Output
from poseglass.core.card import WeightCard
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeleton import Skeleton

Kind = Literal["views", "boxes", "people", "two_stage"]
"""What a file takes and gives; see ``programs.graphs``."""

Precision = Literal["float32", "bfloat16", "float16", "int8"]
"""What the network computes in."""

FORMAT = 1
"""Version of this metadata and of the inputs and outputs of the graphs; a file of a later one is refused."""

CARD_KEY, DETECTOR_KEY, GRAPH_KEY, DIGEST_KEY = (
    "poseglass_card", "poseglass_detector_card", "poseglass_graph", "poseglass_digest",
)  # fmt: skip
"""Keys of the metadata, all of whose values are text."""

INPUTS: dict[Kind, tuple[str, ...]] = {
    "views": ("views", "home"),
    "boxes": ("image", "boxes_xyxy"),
    "people": ("image",),
    "two_stage": ("image",),
}
"""Names of the inputs of each kind."""


@dataclass(frozen=True, slots=True)
class GraphCard:
    """What an exported file states about itself.

    Args:
        kind: What it takes and gives.
        skeleton: Names the keypoints that it returns.
        input: How views are read, and normalised in the graph.
        spec: Spec of the codec in the graph.
        outputs: Names of its outputs, in order.
        card: Card of the weights that it was exported from; those of the poses if there is a detector. Every file has
            one; a graph in memory may have none.
        flip_test: Whether the flip test is in the graph.
        precision: What the network computes in.
        min_box_score: People found with a lower score are not returned; None if it finds none.
        detector_card: Card of the detector's weights, if there is one.
        quantised: In int8, the share of the multiply-adds, the layers that stay in float, and the calibration images.
        drift: How far its results are from PyTorch's in float32, as ``export.parity`` measured it, with the inputs.
        made_with: Versions of what made it.

    Raises:
        ValueError: An unknown kind or precision.
    """

    kind: Kind
    skeleton: Skeleton
    input: InputSpec
    spec: CodecSpec
    outputs: tuple[str, ...]
    card: WeightCard | None = None
    flip_test: bool = False
    precision: Precision = "float32"
    min_box_score: float | None = None
    detector_card: WeightCard | None = None
    quantised: dict[str, Any] = field(default_factory=dict)
    drift: dict[str, Any] = field(default_factory=dict)
    made_with: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, known in (("kind", Kind), ("precision", Precision)):
            if getattr(self, name) not in get_args(known):
                raise ValueError(
                    f"GraphCard.{name} must be {' or '.join(map(repr, get_args(known)))}, got {getattr(self, name)!r}."
                )

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of the inputs, in order."""
        return INPUTS[self.kind]

    @property
    def calibrated(self) -> bool:
        """Whether it returns probabilities of keypoints."""
        return "probability" in self.outputs

    def to_metadata(self) -> dict[str, str]:
        """Return the metadata of a file.

        Raises:
            ValueError: There is no card of weights.
        """
        if self.card is None:
            raise ValueError("A graph without the card of its weights cannot be written to a file. Give it a card.")
        graph = {
            "format": FORMAT,
            "kind": self.kind,
            "skeleton": self.skeleton.to_dict(),
            "input": asdict(self.input),
            "spec": asdict(self.spec),
            "inputs": self.inputs,
            "outputs": self.outputs,
            "flip_test": self.flip_test,
            "precision": self.precision,
            "min_box_score": self.min_box_score,
            "quantised": self.quantised,
            "drift": self.drift,
            "made_with": self.made_with,
        }
        texts = {CARD_KEY: self.card.to_json(), GRAPH_KEY: json.dumps(graph)}
        if self.detector_card is not None:
            texts[DETECTOR_KEY] = self.detector_card.to_json()
        return texts | {DIGEST_KEY: _digest(texts)}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "GraphCard":
        """Rebuild what a file states.

        Args:
            metadata: The file's metadata; other keys are ignored.

        Raises:
            ValueError: There is no card, it was changed after the export, or it is of a later version; the message is
                the rest of a sentence that begins with the file's name.
        """
        texts = {name: metadata[name] for name in (CARD_KEY, DETECTOR_KEY, GRAPH_KEY) if name in metadata}
        if CARD_KEY not in texts or GRAPH_KEY not in texts:
            raise ValueError(
                "has no poseglass card, so its skeleton, input and decoding are unknown. Files that `poseglass export` "
                "writes have one."
            )
        try:
            graph = json.loads(texts[GRAPH_KEY])
            version = graph["format"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"has a damaged card ({error}). Export it again.") from error
        if version != FORMAT:
            maker = (graph.get("made_with") or {}).get("poseglass", "another version")
            raise ValueError(
                f"has format {version} of exported files, written by poseglass {maker}; this version reads format "
                f"{FORMAT}. Update poseglass, or export it again with this version."
            )
        if metadata.get(DIGEST_KEY) != _digest(texts):
            raise ValueError(
                "has a card that was changed after the export, so nothing says whether it still fits the graph. Export "
                "it again from its weights."
            )
        try:
            return cls(
                kind=graph["kind"],
                skeleton=Skeleton.from_dict(graph["skeleton"]),
                input=InputSpec(**graph["input"]),
                spec=_spec(graph["spec"]),
                outputs=tuple(graph["outputs"]),
                card=WeightCard.from_json(texts[CARD_KEY]),
                flip_test=graph["flip_test"],
                precision=graph["precision"],
                min_box_score=graph["min_box_score"],
                detector_card=WeightCard.from_json(texts[DETECTOR_KEY]) if DETECTOR_KEY in texts else None,
                quantised=graph["quantised"],
                drift=graph["drift"],
                made_with=graph["made_with"],
            )
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"has a card that cannot be read ({error}). Export it again.") from error


def _digest(texts: Mapping[str, str]) -> str:
    return hashlib.sha256(json.dumps(dict(sorted(texts.items()))).encode()).hexdigest()


def _spec(data: Mapping[str, Any]) -> CodecSpec:
    outputs = {
        key: Output(tuple(output["shape"]), output["activation"], output["stride"])
        for key, output in data["outputs"].items()
    }
    rest = {name: data[name] for name in ("stride", "alignment", "sigma", "bins_per_px", "instances")}
    return CodecSpec(outputs, loss_keys=tuple(data["loss_keys"]), **rest)
