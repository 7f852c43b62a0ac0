import pytest

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
        ("fractions:Nothing", r"codec 'fractions:Nothing' cannot be imported"),
    ],
)
def test_unknown_names_are_answered(name: str, message: str) -> None:
    with pytest.raises(LookupError, match=message):
        lookup(TABLE, name, kind="codec")


def test_pythons_own_words_for_a_wrong_argument() -> None:
    with pytest.raises(TypeError, match="colour"):
        build({"complex": complex}, "complex", colour=1)


def test_the_nearest_name() -> None:
    assert nearest("wrst", ["wrist", "knee"]) == " Did you mean 'wrist'?"
    assert nearest("qqq", ["wrist"]) == ""
    assert nearest("a", []) == ""
