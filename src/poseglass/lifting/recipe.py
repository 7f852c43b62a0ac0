"""Recipe of a lifter: everything that a training needs besides the files with poses and points, read from TOML."""

import tomllib
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, field_validator, model_validator

from poseglass.core.part import Part
from poseglass.core.table import nearest
from poseglass.lifting.bodies import Views

RECIPES = Path(__file__).parent / "recipes"
"""The recipes that ship."""

Share = Annotated[float, Field(ge=0, le=1)]
Range = tuple[float, float]


WIDTHS = {"repnet": 1000, "martinez": 1024, "masked": 512}
"""Default width by method."""

READ_BY = {
    "network.blocks": ("martinez", "masked"),
    "network.camera": ("repnet",),
    "network.critic_width": ("repnet",),
    "network.critic_pose_width": ("repnet",),
    "network.chain": ("repnet",),
    "network.unit_m": ("repnet",),
    "network.start_from_mean": ("repnet",),
    "network.mirror": ("repnet",),
    "network.unknown": ("repnet",),
    "train.apart": ("repnet",),
    "train.critic_rate": ("repnet",),
    "train.reprojection": ("repnet",),
    "train.reprojection_end": ("repnet",),
    "bodies.flip": ("martinez", "masked"),
    "bodies.limb_spread": ("martinez", "masked"),
    "bodies.other_legs": ("martinez", "masked"),
    "points.noise": ("masked",),
    "points.habit": ("masked",),
    "points.unknown": ("masked",),
}
"""The methods that read a key; all others are read by every method."""


class NetworkPart(Part):
    """The network: a method, and what differs from its paper.

    Attributes:
        method: "repnet" is trained without pairs, "martinez" and "masked" (ours) with them.
        width: Of its layers; by default 1000 for RepNet and 1024 for Martinez, as published, and 512 for "masked".
        blocks: Residual blocks of "martinez" (published: 2) and "masked"; those of RepNet are fixed.
        camera: Of RepNet: "free" as published, or "rotation".
        critic_width: Of the path of RepNet's critic that sees the kinematic chain space, 1000 as published.
        critic_pose_width: Of the path that sees the pose, 100 as published.
        chain: Whether RepNet's critic sees the kinematic chain space, as published.
        unit_m: Unit of RepNet's poses in metres, 1 as published. Ours: about the standard deviation of a keypoint, 0.1,
            in which a step of the optimiser moves a pose less, so that the critic can follow with few steps.
        start_from_mean: Ours: RepNet's first poses are near the mean of the real ones, which saves thousands of steps.
        mirror: Ours: RepNet's critic chooses between a pose and its mirror image in depth, which project alike. It
            needs camera = "rotation".
        unknown: Ours, for RepNet: keypoints are left out in training, and the network is told which.
    """

    method: Literal["repnet", "martinez", "masked"]
    width: Annotated[int, Field(ge=1, le=8192)] = Field(
        default_factory=lambda data: WIDTHS.get(str(data.get("method")), 1)
    )
    blocks: Annotated[int, Field(ge=1, le=32)] = 2
    camera: Literal["free", "rotation"] = "free"
    critic_width: Annotated[int, Field(ge=1, le=8192)] = 1000
    critic_pose_width: Annotated[int, Field(ge=1, le=8192)] = 100
    chain: bool = True
    unit_m: Annotated[float, Field(gt=0, le=1)] = 1.0
    start_from_mean: bool = False
    mirror: bool = False
    unknown: bool = False

    @model_validator(mode="after")
    def _mirror_of_a_rotation(self) -> Self:
        if self.mirror and self.camera != "rotation":
            raise ValueError(
                f"mirror = true needs camera = 'rotation', got {self.camera!r}: only where the rows of a camera are "
                "orthogonal do a pose and its mirror image project alike"
            )
        return self


class TrainPart(Part):
    """Numbers of the loop.

    Attributes:
        steps: Of the optimiser; for RepNet each is one of the critic and one of the generator.
        batch: Poses in a step.
        learning_rate: At the start.
        apart: Ours, for RepNet: 2D points are of one half of the training subjects, and 3D poses of the other. By
            default both are of all of them, drawn independently.
        critic_rate: Learning rate of RepNet's critic, in times that of its generator; 1 as published.
        reprojection: Weight of RepNet's reprojection loss beside the critic's, 1 as published.
        reprojection_end: Ours: the weight at the last step, towards which it grows by the same factor in each step.
            While it is low, the critic chooses among poses and mirror images, which project alike. None keeps it.
        schedule: "tenths" divides it by ten after a quarter, half and three quarters of the steps, as RepNet does;
            "cosine" lets it fall to 0 along half a cosine.
        save_every: Steps between checkpoints, and between rows of the curve.
    """

    steps: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=2)] = 32
    learning_rate: Annotated[float, Field(gt=0)] = 1e-4
    apart: bool = False
    critic_rate: Annotated[float, Field(gt=0)] = 1.0
    reprojection: Annotated[float, Field(gt=0)] = 1.0
    reprojection_end: Annotated[float, Field(gt=0)] | None = None
    schedule: Literal["tenths", "cosine"] = "tenths"
    save_every: Annotated[int, Field(ge=1)] = 500


class ViewsPart(Part):
    """Where the cameras of the training are; see ``poseglass.lifting.bodies.Views``."""

    elevation_degrees: Range = (-10.0, 30.0)
    roll_degrees: Annotated[float, Field(ge=0, le=180)] = 10.0
    distance_m: Range = (2.5, 12.0)
    tilted: Share = 0.0

    @field_validator("elevation_degrees", "distance_m")
    @classmethod
    def _in_order(cls, value: Range) -> Range:
        if not value[0] <= value[1]:
            raise ValueError(f"expected a low end and one that is not lower, got {value[0]:g} and {value[1]:g}")
        return value

    @field_validator("distance_m")
    @classmethod
    def _before_the_camera(cls, value: Range) -> Range:
        if value[0] <= 0:
            raise ValueError(f"a distance must be above 0, got {value[0]:g}")
        return value

    def views(self) -> Views:
        """Return them as the loop uses them."""
        return Views(self.elevation_degrees, self.roll_degrees, self.distance_m, self.tilted)


class BodiesPart(Part):
    """How poses are varied before a camera looks at them.

    Attributes:
        flip: Whether half of them are mirrored.
        limb_spread: Bones become longer or shorter by up to this share.
        other_legs: Share that gets the legs of another pose.
    """

    flip: bool = False
    limb_spread: Share = 0.0
    other_legs: Share = 0.0


class PointsPart(Part):
    """What is done to points, in shares of the root mean square of a person's coordinates; for "masked".

    Attributes:
        noise: Standard deviation of the error of each point.
        habit: Standard deviation of the difference between what labellers and motion capture call by one name.
        unknown: Whether keypoints are left out, as those that a pose network lacks or does not see.
    """

    noise: Share = 0.0
    habit: Share = 0.0
    unknown: bool = False


class SplitPart(Part):
    """Subjects that are not trained on.

    Attributes:
        test: For the figures that are reported.
        validation: For choosing.
    """

    test: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()

    @field_validator("validation")
    @classmethod
    def _apart(cls, value: tuple[str, ...], info) -> tuple[str, ...]:
        both = sorted(set(value) & set(info.data.get("test", ())))
        if both:
            raise ValueError(f"{both[0]!r} is in test and in validation; keep subjects apart")
        return value


class LiftRecipe(Part):
    """A recipe of a lifter.

    Attributes:
        name: Of the weights.
        network: Method and widths.
        train: The loop.
        views: Cameras.
        bodies: Variation of poses.
        points: Variation of points.
        split: Who is not trained on.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    network: NetworkPart
    train: TrainPart
    views: ViewsPart = ViewsPart()
    bodies: BodiesPart = BodiesPart()
    points: PointsPart = PointsPart()
    split: SplitPart = SplitPart()

    @model_validator(mode="after")
    def _all_read(self) -> Self:
        """Refuse keys that the method never reads."""
        method = self.network.method
        parts: dict[str, Part] = {
            "network": self.network, "train": self.train, "bodies": self.bodies, "points": self.points
        }  # fmt: skip
        for key, methods in READ_BY.items():
            table, _, field = key.partition(".")
            if field in parts[table].model_fields_set and method not in methods:
                raise ValueError(f"{key} is of {' and '.join(methods)}, and network.method is {method!r}; omit it")
        return self


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that ship, by name."""
    return {path.stem: path for path in sorted(RECIPES.glob("*.toml"))}


def read_lift_recipe(recipe: str | Path) -> LiftRecipe:
    """Read a recipe: a name of those that ship, or the path of a TOML file.

    Raises:
        FileNotFoundError: Neither.
        ValueError: Not TOML, or a key that is missing, unknown or invalid; the message names it.
    """
    path = _find(recipe)
    try:
        return LiftRecipe(**tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path} is not TOML ({error}).") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = "".join(f"{part}." for part in first["loc"])[:-1]
        if first["type"] == "extra_forbidden":
            keys = _keys_beside(first["loc"][:-1])
            what = f"unknown key '{where}'.{nearest(str(first['loc'][-1]), keys)} Known here: {', '.join(keys)}"
        else:
            what = (f"{where}: " if where else "") + first["msg"].removeprefix("Value error, ")
        raise ValueError(f"{path}: {what}. Fix that line.") from error


def _keys_beside(table: tuple[int | str, ...]) -> list[str]:
    """Return the keys of a table of a recipe."""
    part: type[Part] = LiftRecipe
    for name in table:
        annotation = part.model_fields[str(name)].annotation
        assert isinstance(annotation, type)
        assert issubclass(annotation, Part)
        part = annotation
    return list(part.model_fields)


def recipe_text(recipe: str | Path) -> str:
    """Return a recipe as written.

    Raises:
        FileNotFoundError: Neither a name of those that ship, nor a file.
    """
    return _find(recipe).read_text(encoding="utf-8")


def _find(recipe: str | Path) -> Path:
    names = shipped_recipes()
    path = names.get(str(recipe), Path(recipe))
    if not path.is_file():
        raise FileNotFoundError(
            f"No recipe {str(recipe)!r} of a lifter.{nearest(str(recipe), names)} Give a TOML file, or one of: "
            f"{', '.join(names)}."
        )
    return path
