"""The list of public weights: what ships is whole and careful, and a list that is wrong says where."""

from pathlib import Path

import pytest

from poseglass.backbones import BACKBONES
from poseglass.checkpoints import IMPORTERS
from poseglass.core.skeletons import SKELETONS
from poseglass.estimators.load import shipped
from poseglass.estimators.manifest import PublicWeights, read_manifest
from poseglass.networks import NETWORKS

GOOD = """
[tiny]
network = "hg1"
urls = ["https://a.example/tiny.pth", "https://b.example/other.pth?x=1"]
sha256_start = "0123abcd"
code_license = "MIT"
data = "synthetic people"
data_terms = "none"
commercial = "yes"
commercial_reason = "made for it"
verified = false
"""


@pytest.mark.parametrize("entry", read_manifest().values(), ids=lambda entry: entry.name)
def test_what_is_listed(entry: PublicWeights) -> None:
    assert entry.name not in shipped()
    assert entry.digits[:8] in entry.file  # publishers put the first digits into the name; a slip would show here
    assert all(url.startswith("https://") and url.endswith(entry.file) for url in entry.urls)
    assert entry.skeleton in {"", *SKELETONS}
    if entry.layout:
        assert entry.layout in IMPORTERS
        part = IMPORTERS[entry.layout].part
        assert entry.network in (NETWORKS if part == "network" else BACKBONES)
        assert (entry.skeleton == "") == (part == "backbone")
    assert all(0 < value < 1 for value in entry.published.values())
    assert entry.commercial != "yes" or not {"MPII", "ImageNet"} & set(entry.data.replace(",", "").split())
    if "MPII" in entry.data:
        assert entry.commercial == "no"


def test_an_entry(tmp_path: Path) -> None:
    path = tmp_path / "list.toml"
    path.write_text(GOOD)
    entry = read_manifest(path)["tiny"]
    assert (entry.file, entry.digits, entry.hosts) == ("tiny.pth", "0123abcd", "a.example, b.example")
    assert (entry.bytes, entry.layout, entry.published) == (0, "", {})


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[tiny]", "[Tiny]", r"list\.toml: Tiny\.name: String should match pattern"),
        ("[tiny]", '["../tiny"]', r"list\.toml: \.\./tiny\.name: String should match pattern"),
        ("https://a.example/tiny.pth", "file:///etc/passwd", r"tiny\.urls\.0: String should match pattern"),
        ("tiny.pth", "..", r"tiny: .*must end in a plain file name, got '\.\.'"),
        ('urls = ["https://a.example/tiny.pth", "https://b.example/other.pth?x=1"]', "urls = []", r"tiny\.urls: Tuple"),
        (', "https://b.example/other.pth?x=1"', "", r"tiny: .*give two urls, or one and what is known of another"),
        ("0123abcd", "0123abc", r"tiny\.sha256_start: String should match"),
        ('sha256_start = "0123abcd"', "", r"tiny: .*give either sha256 or"),
        ('sha256_start = "0123abcd"', "bytes = -1", r"tiny\.bytes: .*greater than or equal to 0"),
        ("https://b", "http://b", r"tiny: .*an http url, .* needs the whole sha256; or use https"),
        ("verified", 'skeleton = "os:mkdir"\nverified', r"tiny\.skeleton: String should match"),
        ("verified", 'layout = "os:mkdir"\nverified', r"tiny\.layout: String should match"),
        ('"yes"', '"maybe"', r"tiny\.commercial: Input should be 'yes', 'no' or 'unknown'"),
        ('data_terms = "none"', "", r"tiny\.data_terms: Field required"),
        ("verified", 'mirror = "x"\nverified', r"tiny\.mirror: Extra inputs are not permitted"),
        ("[tiny]", "", r"list\.toml: 'network' is a str; expected a table \[network\]"),
        ("[tiny]", "[tiny", r"list\.toml is not TOML"),
    ],
)
def test_a_wrong_list_says_where(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    path = tmp_path / "list.toml"
    path.write_text(GOOD.replace(old, new, 1))
    with pytest.raises(ValueError, match=says):
        read_manifest(path)


def test_http_with_all_of_the_checksum(tmp_path: Path) -> None:
    path = tmp_path / "list.toml"
    path.write_text(GOOD.replace("https", "http").replace('sha256_start = "0123abcd"', f'sha256 = "{"0123abcd" * 8}"'))
    assert read_manifest(path)["tiny"].urls[0] == "http://a.example/tiny.pth"


def test_no_list(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No such list of weights: .*none\.toml"):
        read_manifest(tmp_path / "none.toml")
