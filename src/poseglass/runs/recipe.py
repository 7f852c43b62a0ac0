"""Recipe: everything a training run needs, read from TOML and the command line. There is no inheritance.

Every table is checked when a recipe is read: those of the recipe itself by their types, those that name something (a
network, a codec, a dataset) by the signature of what they name.
"""

import copy
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, Field, ValidationError, field_validator, model_validator

from poseglass.core.affine import CropRule
from poseglass.core.card import check_widths
from poseglass.core.input_spec import InputSpec
from poseglass.core.part import Part
from poseglass.core.table import nearest
from poseglass.runs.signature import recipe_faults
from poseglass.training.criterion import LossPart, loss_line
from poseglass.training.optimizer import OptimizerPart
from poseglass.training.schedule import SchedulePart
from poseglass.transforms.chips import ARTICLE, ChipRule, ChipScale

_INLINE = ("network", "codec", "criterion", "input")
"""Tables that ``to_toml`` writes on one line."""


class RecipeError(ValueError):
    """An invalid recipe; the message names the file, the key and what is expected."""


class InputPart(Part):
    """How boxes become network input; see ``InputSpec``."""

    size_wh: tuple[int, int] = (256, 256)
    padding: float = 1.25
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    color: Literal["rgb", "bgr"] = "rgb"
    crop: CropRule = "edges"

    def spec(self, size_wh: tuple[int, int] | None = None) -> InputSpec:
        """Return the corresponding ``InputSpec``, at another size if one is given."""
        return InputSpec(size_wh or self.size_wh, self.padding, self.mean, self.std, self.color, self.crop)


class ChipScalePart(Part):
    """One scale of chips, and the sizes of objects that are learnt at it; see ``ChipScale``."""

    scale: float | Literal["whole"]
    from_px: float = 0.0
    up_to_px: float = float("inf")


class NegativesPart(Part):
    """Negative chips: found by a brief first training, or read from a file that one has written."""

    share: float = Field(default=0.3, gt=0.0, description="Negative chips per epoch, as a share of the positive ones.")
    epochs: int = Field(default=2, ge=1, description="Epochs of the first training, which finds the proposals.")
    at_least: tuple[int, ...] | int = Field(
        default=10, description="Proposals that a negative chip shows at least; one number, or one for each scale."
    )
    min_score: float = Field(default=0.1, gt=0.0, le=1.0, description="Least score of a proposal.")
    file: str | None = Field(default=None, description="The pool of negative chips; none: it is made first.")


class ChipsPart(Part):
    """Train on chips of the images, of the size of the input, instead of whole images (SNIPER); see ``ChipRule``."""

    scales: tuple[ChipScalePart, ...] = tuple(
        ChipScalePart(scale=each.scale, from_px=each.from_px, up_to_px=each.up_to_px) for each in ARTICLE
    )
    stride: int = 32
    negatives: NegativesPart | None = None

    @model_validator(mode="after")
    def _valid(self) -> "ChipsPart":
        if self.negatives is not None and len(self.at_least) != len(self.scales):
            raise ValueError(
                f"negatives.at_least has {len(self.at_least)} numbers for {len(self.scales)} scales; give one for each"
            )
        if self.negatives is not None and min(self.at_least) < 1:
            raise ValueError(f"negatives.at_least must be 1 or more, got {min(self.at_least)}")
        return self

    @property
    def without_negatives(self) -> "ChipsPart":
        """The same without negative chips."""
        return self.model_copy(update={"negatives": None})

    @property
    def at_least(self) -> tuple[int, ...]:
        """Proposals that a negative chip shows at least, for each scale."""
        given = () if self.negatives is None else self.negatives.at_least
        return (given,) * len(self.scales) if isinstance(given, int) else given

    def rule(self, size_wh: tuple[int, int]) -> ChipRule:
        """Return the rule for chips of this size.

        Raises:
            ValueError: As ``ChipRule`` and ``ChipScale``.
        """
        scales = tuple(ChipScale(each.scale, each.from_px, each.up_to_px) for each in self.scales)
        return ChipRule(scales, size_wh, self.stride)


class DataPart(Part):
    """Datasets for training (joined by joint name), and for validation and the report."""

    train: list[dict[str, Any]]
    val: dict[str, Any] | None = None
    cache_gb: float = Field(default=0.0, ge=0.0, description="Largest crop cache on disk, in GB; 0 for none.")
    chips: ChipsPart | None = Field(default=None, description="Train on chips of the images instead of whole images.")

    @field_validator("train", mode="before")
    @classmethod
    def _one_or_many(cls, value: Any) -> Any:
        return [value] if isinstance(value, dict) else value


class SizeFrom(Part):
    """The crop size from this epoch on (progressive resizing)."""

    epoch: int = Field(ge=0)
    size_wh: tuple[int, int]


class TrainPart(Part):
    """The training loop."""

    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    optimizer: OptimizerPart = OptimizerPart()
    schedule: SchedulePart = SchedulePart()
    ema_decay: float = Field(default=0.0, ge=0.0, lt=1.0)
    clip_norm: float = Field(default=0.0, ge=0.0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    workers: int = Field(default=1, ge=0)
    sizes: tuple[SizeFrom, ...] = ()
    init_from: str | None = None
    freeze_norms: bool = Field(default=False, description="Keep the statistics of the backbone's batch norms.")
    frozen: tuple[str, ...] = Field(default=(), description="Modules of the network that keep their initial weights.")
    checkpoint_seconds: float = Field(default=120.0, gt=0.0)
    flat_after_steps: int = Field(default=500, ge=0, description="0 disables the flat-loss stop.")
    stop_after: int = Field(
        default=0, ge=0, description="Evaluations without a new best before training ends; 0 trains to the last epoch."
    )

    @field_validator("init_from")
    @classmethod
    def _random(cls, value: str | None) -> str | None:
        return None if value == "random" else value  # takes a recipe's own start away: --set train.init_from=random

    @model_validator(mode="after")
    def _norms_with_statistics(self) -> "TrainPart":
        if self.freeze_norms and self.init_from is None:
            raise ValueError("freeze_norms keeps statistics, which come with initial weights: set train.init_from")
        if self.frozen and self.init_from is None:
            raise ValueError("frozen modules keep their initial weights, which would be random: set train.init_from")
        return self


class EvaluatePart(Part):
    """What is evaluated, how often, and which result is monitored for the best weights."""

    metrics: list[dict[str, Any]] = Field(default_factory=list)
    monitor: str | None = None
    protocol: dict[str, Any] | None = Field(default=None, description="A test protocol instead of metrics.")
    flip_test: bool = True
    batch_size: int = Field(default=32, ge=1)
    every_epochs: int = Field(default=1, ge=1)

    @property
    def measures(self) -> bool:
        """Whether anything is evaluated."""
        return self.protocol is not None or bool(self.metrics)

    @model_validator(mode="after")
    def _one_way(self) -> "EvaluatePart":
        if self.protocol is not None and self.metrics:
            raise ValueError("a protocol defines its own metric; give protocol or metrics, not both")
        return self


class Recipe(Part):
    """A complete training run."""

    name: str = Field(pattern=r"^\w[\w.-]*$", description="Name of run folder and weights: letters, digits, . _ -.")
    seed: int = 0
    notes: str = ""
    skeleton: str | None = None
    network: dict[str, Any]
    widths: Literal["init_from"] | dict[str, dict[str, int]] = Field(
        default_factory=dict,
        description="Widths of modules that differ from the network's, by name; or init_from: as in train.init_from.",
    )
    codec: dict[str, Any]
    loss: list[LossPart] | None = Field(default=None, description="Loss terms; default: mean squared error.")
    criterion: dict[str, Any] | None = Field(default=None, description="A custom criterion, instead of loss.")
    stage_sigmas: tuple[float, ...] = Field(default=(), description="Sigma of each stage; empty: the codec's.")
    stage_occluded: tuple[bool, ...] = Field(
        default=(), description="Whether labelled but occluded keypoints count in each stage's loss; empty: in all."
    )
    input: InputPart = InputPart()
    augment: list[dict[str, Any]] = Field(default_factory=list)
    data: DataPart
    train: TrainPart
    evaluate: EvaluatePart = EvaluatePart()

    @model_validator(mode="after")
    def _named_tables(self) -> "Recipe":
        tables = [("network", self.network), ("codec", self.codec), ("data.val", self.data.val)]
        tables += [("evaluate.protocol", self.evaluate.protocol), ("criterion", self.criterion)]
        for what, items in (("augment", self.augment), ("data.train", self.data.train)):
            tables += [(f"{what}.{i}", item) for i, item in enumerate(items)]
        tables += [(f"evaluate.metrics.{i}", item) for i, item in enumerate(self.evaluate.metrics)]
        for where, table in tables:
            if table is not None and not isinstance(table.get("name"), str):
                raise ValueError(f'{where} needs a name, e.g. {{ name = "..." }}, got {table}')
        return self

    @field_validator("widths", mode="before")
    @classmethod
    def _numbers_by_module(cls, value: Any) -> Any:
        if value != "init_from":
            check_widths(value, "what is not 'init_from'")
        return value

    @model_validator(mode="after")
    def _possible_chips(self) -> "Recipe":
        if self.data.chips is not None:
            self.data.chips.rule(self.input.size_wh)
        return self

    @model_validator(mode="after")
    def _weights_with_widths(self) -> "Recipe":
        if self.widths == "init_from" and self.train.init_from is None:
            raise ValueError("widths = 'init_from' uses the widths of the initial weights: set train.init_from")
        return self

    @model_validator(mode="before")
    @classmethod
    def _mean_squared_error(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("loss") is None and data.get("criterion") is None:
            return {**data, "loss": [{"name": "mse"}]}
        return data

    @model_validator(mode="after")
    def _one_criterion(self) -> "Recipe":
        if self.criterion is not None:
            with_it = [key for key in ("loss", "stage_sigmas", "stage_occluded") if getattr(self, key)]
            if with_it:
                raise ValueError(f"a criterion replaces the loss; omit {' and '.join(with_it)}, or criterion")
        elif not self.loss:
            raise ValueError(f"loss is an empty list; write {loss_line([LossPart(name='mse')])}, or omit it")
        return self

    @classmethod
    def read(
        cls, path: str | Path, overrides: Sequence[str] = (), *, data_folder: str | Path | None = None
    ) -> "Recipe":
        """Read a recipe file, or a built-in recipe ("lspet/family.toml"), and apply ``a.b=c`` overrides.

        The file is trusted: code outside poseglass that it names is imported.

        Args:
            path: Path of the recipe.
            overrides: ``a.b=c``, applied last.
            data_folder: The folder that the recipe calls ``data/``; None uses ``data`` in the current folder.

        Raises:
            FileNotFoundError: No such file.
            RecipeError: The file is not TOML, has an unknown key (the nearest one is suggested) or a value of the wrong
                type, or ``data_folder`` is given but no path in the recipe begins with ``data/``.
        """
        path, ours = Path(path), Path(__file__).parents[1] / "recipes"
        if not path.is_file() and not path.is_absolute() and (ours / path).is_file():
            path = ours / path
        if not path.is_file():
            raise FileNotFoundError(f"No such recipe: {path}. Recipes are .toml files; built-in ones are in {ours}.")
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path} is not TOML: {error}.") from None
        if data_folder is not None:
            _take_data_from(data, data_folder, str(path))
        return cls.from_dict(data, overrides=overrides, name=str(path), trust_code=True)

    @classmethod
    def from_dict(
        cls,
        data: dict[str, Any],
        *,
        overrides: Sequence[str] = (),
        name: str = "recipe",
        trust_code: bool = False,
    ) -> "Recipe":
        """Make a recipe from nested tables, and check it.

        Args:
            data: The tables; not modified.
            overrides: ``a.b=c``, applied first.
            name: Name of the recipe for messages, such as its file.
            trust_code: Import code outside poseglass that the recipe names (``"package.module:name"``), and check those
                tables too. Otherwise nothing is imported, so that the recipe in the card of third-party weights can be
                read; ``prepare`` imports such code in any case.

        Raises:
            RecipeError: An unknown key (the nearest one is suggested), a value of the wrong type, or a malformed
                override. All errors are reported at once.
        """
        data = copy.deepcopy(data)
        for override in overrides:
            apply_override(data, override)
        faults: list[str] = []
        recipe = None
        try:
            recipe = cls.model_validate(data)
        except ValidationError as error:
            faults = [_explain(e) for e in error.errors()]
        faults += recipe_faults(data, trust_code=trust_code)
        if recipe is None or faults:
            words = f"{name}: {'; '.join(faults)}"
            raise RecipeError(f"{words}{'' if words.endswith('?') else '.'}{_whole_tables(faults, overrides)}")
        return recipe

    def to_toml(self) -> str:
        """Return all values, including defaults, as TOML that ``read`` accepts."""
        data = self.model_dump()
        plain = {k: v for k, v in data.items() if not isinstance(v, dict) or k in _INLINE}
        lines = [f"{key} = {_toml(value)}" for key, value in plain.items() if value is not None]
        for key in (k for k in data if k not in plain):
            lines += ["", f"[{key}]"]
            lines += [f"{_key(name)} = {_toml(value)}" for name, value in data[key].items() if value is not None]
        return "\n".join(lines) + "\n"


def _take_data_from(data: dict[str, Any], folder: str | Path, name: str) -> None:
    """Replace the folder ``data`` in the datasets' paths by another folder, in place.

    Raises:
        RecipeError: No path begins with ``data/``.
    """
    part = data.get("data")
    part = part if isinstance(part, dict) else {}
    train = part.get("train")
    chips = part.get("chips")
    tables = [*(train if isinstance(train, list) else [train]), part.get("val")]
    tables.append(chips.get("negatives") if isinstance(chips, dict) else None)
    moved = 0
    for table in (table for table in tables if isinstance(table, dict)):
        for key, value in table.items():
            if isinstance(value, str) and len(Path(value).parts) > 1 and Path(value).parts[0] == "data":
                table[key] = str(Path(folder, *Path(value).parts[1:]))
                moved += 1
    if not moved:
        raise RecipeError(
            f"{name}: --data {folder} sets the folder that a recipe calls data/, but no dataset of this recipe has a "
            "path that begins with data/. Omit --data; --set data.val.annotations=FILE changes a path."
        )


def differences(one: Recipe, other: Recipe) -> dict[str, tuple[Any, Any]]:
    """Return the dotted keys in which two recipes differ, with both values (None: missing)."""
    a, b = _flat(one.model_dump()), _flat(other.model_dump())
    return {key: (a.get(key), b.get(key)) for key in {**a, **b} if a.get(key) != b.get(key)}


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list | tuple) and any(isinstance(v, Mapping) for v in value):
        items = enumerate(value)
    else:
        return {path: list(value) if isinstance(value, tuple) else value}
    return {k: v for key, inner in items for k, v in _flat(inner, f"{path}.{key}" if path else str(key)).items()}


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else _toml(name)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, Mapping):
        items = ", ".join(f"{_key(k)} = {_toml(v)}" for k, v in value.items() if v is not None)
        return f"{{ {items} }}" if items else "{}"
    if isinstance(value, list | tuple):
        if any(isinstance(v, Mapping) for v in value):
            return "[\n" + "".join(f"  {_toml(v)},\n" for v in value) + "]"
        return f"[{', '.join(_toml(v) for v in value)}]"
    return repr(value)


def apply_override(data: dict[str, Any], override: str) -> None:
    """Set ``a.b.c=value`` in nested tables, in place; numbers index lists, the value is TOML or else a string.

    Raises:
        RecipeError: There is no ``=``, or the path leads through something that is not a table.
    """
    path, equals, text = override.partition("=")
    if not equals or not path.strip():
        raise RecipeError(f"--set must be KEY=VALUE, e.g. train.epochs=3; got {override!r}.")
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = path.strip().split(".")
    here: Any = data
    for key in parents:
        if isinstance(here, list) and key.isdigit() and int(key) < len(here):
            here = here[int(key)]
        elif key == "0" and isinstance(here, dict) and "name" in here:
            continue  # data.train may be one table instead of a list; index 0 is that table
        elif isinstance(here, dict):
            here = here.setdefault(key, {})
        else:
            raise RecipeError(f"--set {override!r}: there is no table at {key!r}.")
    if isinstance(here, list) and last.isdigit() and int(last) < len(here):
        here[int(last)] = value
    elif isinstance(here, dict):
        here[last] = value
    else:
        raise RecipeError(f"--set {override!r}: {'.'.join(parents)} is not a table.")


def _whole_tables(faults: Sequence[str], overrides: Sequence[str]) -> str:
    """Return a hint if an override changes the name in a table, but the other keys still belong to the old name."""
    for override in overrides:
        place, dot, key = override.partition("=")[0].strip().rpartition(".")
        if dot and key == "name" and any(fault.startswith(f"{place}.") for fault in faults):
            whole = f"--set '{place}={{ name = \"...\" }}'"
            return f" --set {place}.name keeps the table's other keys; to replace the whole table, use {whole}."
    return ""


def _explain(error: Any) -> str:
    where = [str(part) for part in error["loc"]]
    if where == ["loss"] and error["type"] == "list_type":
        example = [LossPart(name="mse"), LossPart(name="offset", weight=0.5)]
        name = error["input"]
        if isinstance(name, str) and re.fullmatch(r"[\w.:]+", name):
            example = [LossPart(name=name)]
        return f"loss must be a list of tables, got {name!r}; write {loss_line(example)}"
    if error["type"] == "extra_forbidden":
        fields = _fields_at(where[:-1])
        return f"unknown key '{'.'.join(where)}'.{nearest(where[-1], fields)} Known here: {', '.join(sorted(fields))}"
    if error["type"] == "missing":
        return f"the key '{'.'.join(where)}' is missing"
    if error["type"] in ("dict_type", "model_type") and isinstance(error["input"], str):
        name = error["input"]
        key = "" if where[-1].isdigit() else f"{where[-1]} = "
        return f"{'.'.join(where)} must be a table, got {name!r}; write {key}{{ name = {json.dumps(name)} }}"
    got = "" if error["type"] == "value_error" else f", got {error['input']!r}"
    return f"{'.'.join(where) or 'the recipe'}: {error['msg'].removeprefix('Value error, ')}{got}"


def _fields_at(path: list[str]) -> list[str]:
    """Return the known keys of the part at a path of keys."""
    part: type[BaseModel] = Recipe
    for key in path:
        if key.isdigit():
            continue
        annotation = part.model_fields[key].annotation if key in part.model_fields else None
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        models = [c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel)]
        if not models:
            return []
        part = models[0]
    return list(part.model_fields)
