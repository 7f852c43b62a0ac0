import os
import subprocess
import sys
from pathlib import Path

import pytest

import poseglass
from poseglass.core.table import build, lookup, nearest

TABLE = {"heatmap": dict, "dark": list, "udp": set}


def test_known_names_and_dotted_paths() -> None:
    assert build(TABLE, "heatmap", a=1) == {"a": 1}
    assert lookup(TABLE, "dark") is list
    assert lookup(TABLE, "fractions:Fraction")(1, 2) == 0.5
    assert build(TABLE, "types:SimpleNamespace", name="its own name").name == "its own name"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("heatmpa", r"Unknown codec 'heatmpa'\. Did you mean 'heatmap'\? Known: dark, heatmap, udp\. Your own code"),
        ("zzz", r"Unknown codec 'zzz'\. Known: dark, heatmap, udp"),
        ("", r"Unknown codec ''"),
        (
            "no.such.module:thing",
            r"codec 'no\.such\.module:thing' cannot be imported .* Expected 'package\.module:name'",
        ),
        (":thing", r"codec ':thing' cannot be imported"),
        ("fractions:Nothing", r"codec 'fractions:Nothing' cannot be imported"),
    ],
)
def test_unknown_names_are_answered(name: str, message: str) -> None:
    with pytest.raises(LookupError, match=message):
        lookup(TABLE, name, kind="codec")


LOOKS_UP = """
import sys
sys.path[:] = [path for path in sys.path if path not in ("", ".")]
from poseglass.core.table import lookup
for name in sys.argv[1:]:
    try:
        print(lookup({}, name))
    except LookupError as error:
        print("no", error)
"""


def looked_up(folder: Path, *names: str) -> list[str]:
    """Look names up in a program that does not have the current folder on its path, as the command has not."""
    environment = {**os.environ, "PYTHONPATH": str(Path(poseglass.__file__).parents[1]), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", LOOKS_UP, *names],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_custom_file_in_the_current_folder_is_found_and_shadows_nothing(tmp_path: Path) -> None:
    (tmp_path / "my_aug.py").write_text("import my_other\nThing = my_other.number")
    (tmp_path / "my_other.py").write_text("number = 7")
    (tmp_path / "mailbox.py").write_text("Mailbox = 'not the real one'")
    (tmp_path / "broken.py").write_text("import nowhere_at_all")
    found = looked_up(tmp_path, "my_aug:Thing", "mailbox:Mailbox", "my_aug:Other", "broken:Thing", "none_such:Thing")
    assert found[:2] == ["7", "<class 'mailbox.Mailbox'>"]
    for line, word in zip(found[2:], ("Other", "nowhere_at_all", "none_such"), strict=True):
        assert line.startswith("no name")
        assert word in line


def test_a_name_of_a_table_leaves_the_path_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    lookup(TABLE, "dark")
    lookup(TABLE, "fractions:Fraction")
    lookup(TABLE, "__main__:__name__")
    assert sys.path == before


def test_a_wrong_argument_raises_the_error_of_python() -> None:
    with pytest.raises(TypeError, match="colour"):
        build({"complex": complex}, "complex", colour=1)


def test_the_nearest_name() -> None:
    assert nearest("wrst", ["wrist", "knee"]) == " Did you mean 'wrist'?"
    assert nearest("qqq", ["wrist"]) == ""
    assert nearest("a", []) == ""
