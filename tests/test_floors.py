"""The house: a package imports from lower floors only, and every name at the front door is meant."""

import ast
from pathlib import Path

import poseglass

SOURCE = Path(poseglass.__file__).parent

FLOOR = {
    "core": 0,
    "layers": 1,
    "codecs": 1,
    "losses": 1,
    "transforms": 1,
    "metrics": 1,
    "draw": 1,
    "backbones": 2,
    "necks": 2,
    "heads": 2,
    "datasets": 2,
    "networks": 3,
    "estimators": 4,
    "engine": 5,
    "convert": 6,
    "cli": 7,
}


def imports_between_packages() -> list[tuple[Path, str, str]]:
    found = []
    for file in sorted(SOURCE.rglob("*.py")):
        parts = file.relative_to(SOURCE).parts
        if len(parts) == 1:
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.ImportFrom) and node.module:
                assert node.level == 0, f"{file}: relative imports hide where a name comes from"
                names = [node.module] if node.module != "poseglass" else [f"poseglass.{a.name}" for a in node.names]
            elif isinstance(node, ast.Import):
                names = [a.name for a in node.names]
            for name in names:
                pieces = name.split(".")
                if pieces[0] == "poseglass" and len(pieces) > 1 and pieces[1] in FLOOR and pieces[1] != parts[0]:
                    found.append((file, parts[0], pieces[1]))
    return found


def test_every_package_has_a_floor():
    packages = {p.name for p in SOURCE.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert packages == set(FLOOR)


def test_floors():
    imports = imports_between_packages()
    assert len(imports) > 50  # the search itself works
    for file, here, there in imports:
        assert FLOOR[there] < FLOOR[here], (
            f"{file.relative_to(SOURCE)} (floor {FLOOR[here]}) imports poseglass.{there} (floor {FLOOR[there]}): "
            "move the shared piece down, or the caller up."
        )


def test_no_drawers():
    drawers = {"utils.py", "misc.py", "helpers.py", "common.py", "base.py"}
    assert not [p for p in SOURCE.rglob("*.py") if p.name in drawers]


def test_front_door():
    public = {name for name in dir(poseglass) if not name.startswith("_")}
    modules = set(FLOOR) - {"draw"}  # sub-packages appear as they are imported; draw is the function
    assert public - modules - {"cli", "convert"} == {
        "Affine",
        "InputSpec",
        "Instances",
        "PoseSample",
        "Skeleton",
        "TopDownEstimator",
        "WeightCard",
        "build",
        "draw",
        "load",
        "read_image",
        "write_image",
    }
    assert callable(poseglass.draw)
