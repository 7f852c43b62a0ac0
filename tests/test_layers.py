"""Packages import from lower layers only, never in a circle, and every public name is there on purpose."""

import ast
from pathlib import Path

import poseglass

SOURCE = Path(poseglass.__file__).parent

LAYERS = (
    ("core",),
    ("layers", "codecs", "losses", "transforms", "metrics", "drawing"),
    ("backbones", "necks", "heads", "readers", "synthetic"),
    ("networks",),
    ("programs",),
    ("estimators",),
    ("data",),
    ("training",),
    ("evaluation", "audit", "checkpoints", "lifting"),
    ("runs", "export"),
    ("cli",),
)
LAYER = {package: number for number, packages in enumerate(LAYERS) for package in packages}


def module_of(file: Path) -> str:
    parts = ("poseglass", *file.relative_to(SOURCE).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_of(file): file for file in sorted(SOURCE.rglob("*.py"))}


def imports_of(file: Path) -> set[str]:
    """Return the modules of ours that a file imports, wherever in it, also for type checking alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{file}: relative imports hide where a name comes from"
            for alias in node.names:  # "from package import module" is an import of the module
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found & set(MODULES)


IMPORTS = {name: imports_of(file) for name, file in MODULES.items()}


def package_of(module: str) -> str:
    pieces = module.split(".")
    return pieces[1] if len(pieces) > 1 else ""


def test_every_package_has_a_layer():
    packages = {p.name for p in SOURCE.iterdir() if p.is_dir() and (p / "__init__.py").exists()}
    assert packages == set(LAYER)


def test_imports_go_down():
    between = [
        (module, package_of(module), package_of(target))
        for module, targets in IMPORTS.items()
        for target in targets
        if package_of(module) in LAYER and package_of(target) in LAYER and package_of(module) != package_of(target)
    ]
    assert len(between) > 50  # the search itself works
    wrong = [
        f"{module} (layer {LAYER[here]}) imports poseglass.{there} (layer {LAYER[there]})"
        for module, here, there in between
        if LAYER[there] >= LAYER[here]
    ]
    assert not wrong, "\n".join([*wrong, "Move the shared piece down, or the caller up."])


def circles(imports: dict[str, set[str]]) -> list[list[str]]:
    """Return the circles in which modules import each other, each once."""
    found: list[list[str]] = []
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> None:
        if module in path:
            found.append([*path[path.index(module) :], module])
            return
        if module in done:
            return
        for target in sorted(imports.get(module, ())):
            visit(target, [*path, module])
        done.add(module)

    for module in sorted(imports):
        visit(module, [])
    return found


def test_no_circles():
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c", "a"]]
    # the front door imports everything; what it gives away (its version) may be asked for from inside
    inside = {name: targets - {"poseglass"} for name, targets in IMPORTS.items()}
    assert not circles(inside), "\n".join(" -> ".join(circle) for circle in circles(inside))


def test_no_drawers():
    drawers = {"utils.py", "misc.py", "helpers.py", "common.py", "base.py"}
    assert not [p for p in SOURCE.rglob("*.py") if p.name in drawers]


def test_front_door():
    public = {name for name in dir(poseglass) if not name.startswith("_")}
    assert public - set(LAYER) == {
        "Affine",
        "InputSpec",
        "Instances",
        "PoseSample",
        "Skeleton",
        "TopDownEstimator",
        "OneStageEstimator",
        "TwoStageEstimator",
        "load_detector",
        "load_top_down",
        "WeightCard",
        "build",
        "draw",
        "load",
        "read_image",
        "write_image",
    }
    assert callable(poseglass.draw)
