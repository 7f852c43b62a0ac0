"""The reference says what the code does: commands, augmentations, recipes."""

import importlib.util
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

from poseglass.cli import COMMANDS, GROUPS
from poseglass.core.part import Part
from poseglass.runs.recipe import Recipe
from poseglass.transforms import TRANSFORMS

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"


def command_pages() -> Any:
    spec = importlib.util.spec_from_file_location("command_pages", ROOT / "docs" / "command_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", sorted(COMMANDS | GROUPS))
def test_a_page_has_the_options_of_its_command(name):
    module = command_pages()
    written = (REFERENCE / "commands" / f"{name}.md").read_text()
    expected = module.with_generated(written, module.pages()[name])
    assert written == expected, "run python docs/command_pages.py, and commit what it writes"


def test_there_are_no_pages_of_commands_that_are_gone():
    assert {p.stem for p in (REFERENCE / "commands").glob("*.md")} == set(COMMANDS | GROUPS)


def table_rows(text: str) -> list[list[str]]:
    rows = [[c.strip() for c in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")]
    assert rows
    return rows


def sections(page: Path) -> dict[str, str]:
    parts = re.split(r"^## `?([\w.]+)`?.*$", page.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def as_toml(value: Any) -> str:
    if isinstance(value, tuple | list):
        return "[" + ", ".join(as_toml(v) for v in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return f'"{value}"'
    return f"{value:g}"


def test_the_page_of_augmentations_lists_all_with_their_defaults():
    found = sections(REFERENCE / "augmentations.md")
    assert set(TRANSFORMS) <= set(found)
    for name, transform in TRANSFORMS.items():
        stated = {row[0].strip("`"): row[1].strip("`") for row in table_rows(found[name])}
        real = {p.name: as_toml(p.default) for p in inspect.signature(transform).parameters.values()}
        assert stated == real, name


def recipe_keys(part: type[Part], prefix: str = "") -> dict[str, str]:
    """Return every key of a recipe with its default in words, those of inner parts dotted."""
    keys = {}
    for name, field in part.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, Part):
            keys |= recipe_keys(kind, f"{prefix}{name}.")
        elif field.is_required():
            keys[prefix + name] = "required"
        else:
            value = field.get_default(call_default_factory=True)
            keys[prefix + name] = "" if value is None or value in ({}, (), [], "") else f"`{as_toml(value)}`"
    return keys


def test_the_page_of_recipes_lists_every_key_with_its_default():
    stated = {row[0].strip("`"): row[1] for row in table_rows((REFERENCE / "recipe.md").read_text())}
    real = recipe_keys(Recipe)
    assert set(stated) == set(real)
    assert stated == real
