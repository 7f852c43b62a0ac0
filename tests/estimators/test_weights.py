"""Weights files: round trips, what a damaged file says, and starting from weights of another skeleton."""

import json
import os
import struct
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from poseglass.core.card import WeightCard
from poseglass.core.input_spec import InputSpec
from poseglass.core.skeleton import Skeleton
from poseglass.core.skeletons import LSP14, MPII16
from poseglass.core.table import build
from poseglass.estimators.fit import card_network, load_strictly
from poseglass.estimators.transfer import keypoint_channels, load_matching
from poseglass.estimators.weights_file import (
    CARD_KEY,
    CheckpointError,
    read_card,
    read_safetensors,
    read_weights,
    save_weights,
    sha256_of,
)
from poseglass.networks import NETWORKS, StackedHourglass

hypothesis = pytest.importorskip("hypothesis")
HealthCheck, given, settings, st = hypothesis.HealthCheck, hypothesis.given, hypothesis.settings, hypothesis.strategies

NUMBERS = {"num_stacks": 2, "width": 8, "depth": 1}
CARD = WeightCard(
    name="toy",
    network={"name": "stacked_hourglass", "num_keypoints": 16, **NUMBERS},
    codec={"name": "heatmap"},
    skeleton=MPII16,
    input=InputSpec(size_wh=(64, 64)),
    results={"PCKh@0.5": 0.5},
)


def toy(num_keypoints: int = 16, seed: int = 0) -> StackedHourglass:
    torch.manual_seed(seed)
    return StackedHourglass(num_keypoints, **NUMBERS).eval()


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "toy.safetensors"
    save_weights(path, toy().state_dict(), CARD)
    return path


def test_a_file_brings_back_tensors_card_and_output(written: Path) -> None:
    state, card = read_weights(written)
    assert card == CARD
    own = toy().state_dict()
    assert state.keys() == own.keys()
    assert all(torch.equal(state[name], own[name]) and state[name].dtype == own[name].dtype for name in own)
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(card_network(card, state)(images)[-1], toy()(images)[-1], rtol=0, atol=0)
    assert not card_network(card, state).training


def test_the_format_is_read_by_others(written: Path) -> None:
    own = toy().state_dict()
    assert all(torch.equal(tensor, own[name]) for name, tensor in load_file(written).items())
    assert [path.name for path in written.parent.iterdir()] == [written.name]


def test_half_rounds_kernels_and_leaves_the_rest(tmp_path: Path, written: Path) -> None:
    path = tmp_path / "half.safetensors"
    own = toy().state_dict()
    save_weights(path, own, CARD, half=True)
    stored, (state, _) = load_file(path), read_weights(path)
    for name, tensor in own.items():
        kernel = tensor.ndim >= 2
        assert stored[name].dtype == (torch.float16 if kernel else tensor.dtype)
        assert torch.equal(state[name], tensor.half().float() if kernel else tensor)
    assert path.stat().st_size < written.stat().st_size


def test_other_types_become_float32(tmp_path: Path) -> None:
    path = tmp_path / "mixed.safetensors"
    state = {
        "double": torch.tensor([0.1], dtype=torch.float64),
        "brain": torch.tensor([[1.5]], dtype=torch.bfloat16),
        "count": torch.tensor(7),
        "mask": torch.tensor([True, False]),
        "turned": torch.arange(6.0).reshape(2, 3).T,
        "empty": torch.zeros(0, 3),
    }
    save_weights(path, state, CARD)
    back, _ = read_weights(path)
    assert {name: tensor.dtype for name, tensor in back.items() if tensor.is_floating_point()} == dict.fromkeys(
        ("double", "brain", "turned", "empty"), torch.float32
    )
    assert all(
        torch.equal(back[name].to(tensor.dtype), tensor.to(back[name].dtype).to(tensor.dtype))
        for name, tensor in state.items()
    )
    assert back["count"].dtype == torch.int64
    assert back["count"].shape == ()


def test_an_existing_file_survives_what_cannot_be_saved(written: Path) -> None:
    before = written.read_bytes()
    state = toy().state_dict() | {"stem.conv.bias": torch.tensor([0.0, float("nan")])}
    with pytest.raises(
        CheckpointError, match=r"toy\.safetensors: not saved, weight 'stem\.conv\.bias' of 'toy' is NaN"
    ):
        save_weights(written, state, CARD)
    with pytest.raises(CheckpointError, match=r"infinite as float16; save it without half precision"):
        save_weights(written, {"kernel": torch.full((2, 2), 1e5)}, CARD, half=True)
    with pytest.raises(CheckpointError, match="nothing to save"):
        save_weights(written, {}, CARD)
    assert written.read_bytes() == before
    assert len(list(written.parent.iterdir())) == 1


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no folder"):
        save_weights(tmp_path / "missing" / "x.safetensors", toy().state_dict(), CARD)


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No such weights file: .*none\.safetensors"):
        read_weights(tmp_path / "none.safetensors")
    with pytest.raises(CheckpointError, match="got a folder"):
        read_weights(tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "but empty"),
        (b"just some words, long enough", "but text"),
        (b"<!DOCTYPE html><html></html>", "but a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"PK\x03\x04" + bytes(40), "PyTorch checkpoint: poseglass import"),
        (b"\x80\x02" + bytes(40), "PyTorch checkpoint: poseglass import"),
        (b"\x04\0\0\0\x01\0\0\0" + bytes(40), "Torch7"),
        (b"\x1f\x8b\x08" + bytes(40), "compressed archive"),
        (bytes(40), r"is not a safetensors file\."),
        (struct.pack("<Q", 2**62) + b'{"a":1}', r"header claims 4,611,686,018,427,387,904 bytes, the file has 15"),
        (struct.pack("<Q", 400) + b'{"a":1}', "truncated or not a safetensors file"),
        (struct.pack("<Q", 7) + b'{"a":1}', "its header is damaged"),
        (struct.pack("<Q", 7) + b'{"a":{}', "its header is damaged"),
        (struct.pack("<Q", 100_000) + b'{"a":' + b"[" * 99_995, "its header is damaged"),
        (struct.pack("<Q", 2) + b"{}", "without poseglass's card"),
    ],
    ids=range(15),
)
def test_what_is_no_weights_file_says_so(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"bad\.safetensors.*{says}"):
        read_weights(path)


def test_truncated(written: Path) -> None:
    whole = written.read_bytes()
    written.write_bytes(whole[:-5])
    with pytest.raises(
        CheckpointError, match=rf"truncated: it should have {len(whole):,} bytes and has {len(whole) - 5:,}"
    ):
        read_weights(written)
    written.write_bytes(whole + b"more")
    with pytest.raises(CheckpointError, match="damaged safetensors file"):
        read_weights(written)


def test_without_a_card(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"a": torch.zeros(2)}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"without poseglass's card.*poseglass import"):
        read_card(path)
    state, metadata = read_safetensors(path)
    assert state.keys() == {"a"}
    assert metadata == {"format": "pt"}


ENDLESS = CARD.to_json().replace('"size_wh": [64, 64]', '"size_wh": [Infinity, 64]')


@pytest.mark.parametrize(
    "card",
    ["{", "null", "[1]", "{}", json.dumps(json.loads(CARD.to_json()) | {"network": 3}), ENDLESS, "[" * 100_000],
    ids=["cut", "null", "list", "empty", "no network", "infinite size", "deep"],
)
def test_unreadable_card(tmp_path: Path, card: str) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({"a": torch.zeros(2)}, path, {CARD_KEY: card})
    with pytest.raises(CheckpointError, match=r"odd\.safetensors: The card of these weights cannot be read"):
        read_weights(path)


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    path = tmp_path / "nan.safetensors"
    save_file({"a": torch.tensor([float("inf")]), "b": torch.zeros(1)}, path, {CARD_KEY: CARD.to_json()})
    with pytest.raises(
        CheckpointError, match=r"nan\.safetensors has weights that are NaN or infinite.*: a\. Use an earlier"
    ):
        read_weights(path)


def test_sha256(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    length=st.one_of(st.integers(0, 2**64 - 1), st.integers(0, 300)),
    header=st.one_of(st.binary(max_size=80), st.text(alphabet='{}[]",:0129aeE-\\ ', max_size=80).map(str.encode)),
    tail=st.binary(max_size=64),
)
def test_random_bytes_never_crash_the_reader(tmp_path: Path, length: int, header: bytes, tail: bytes) -> None:
    path = tmp_path / "fuzz.safetensors"
    path.write_bytes(struct.pack("<Q", length) + b"{" + header + tail)
    with pytest.raises(CheckpointError, match=r"fuzz\.safetensors"):
        read_weights(path)


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_byte_or_a_cut_gives_weights_or_our_error(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "fuzz.safetensors"
    save_weights(path, {"a": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(1)}, CARD)
    content = bytearray(path.read_bytes())
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=4)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))])
    finite, message = True, str(path)
    try:
        state, _ = read_weights(path)
        finite = all(bool(tensor.isfinite().all()) for tensor in state.values())
    except CheckpointError as error:
        message = str(error)
    assert finite
    assert str(path) in message


def test_a_card_runs_no_code(tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    card = replace(CARD, network={"name": "os:mkdir", "path": str(flag)})
    with pytest.raises(
        CheckpointError, match=r"'toy' ask for code outside poseglass: network 'os:mkdir'.*trust_code=True"
    ):
        card_network(card)
    assert not flag.exists()
    with pytest.raises(CheckpointError, match="made a NoneType, not a network"):
        card_network(card, trust_code=True)
    assert flag.exists()


@pytest.mark.parametrize(
    ("network", "where"),
    [
        ({"name": "cpn", "backbone": {"name": "os:mkdir", "path": "RAN"}}, "network.backbone"),
        ({"name": "composed", "backbone": {"name": "os:mkdir", "path": "RAN"}, "neck": {"name": "level"}}, "backbone"),
        ({"name": "hrnet_w32", "head": {"name": "os:mkdir"}}, "network.head"),
        ({"name": "composed", "parts": [[{"inside": {"name": "os:mkdir"}}]]}, "network.parts.inside"),
    ],
)
@pytest.mark.parametrize("with_state", [True, False])
def test_a_part_of_a_network_runs_no_code(tmp_path: Path, network: dict, where: str, with_state: bool) -> None:
    flag = tmp_path / "ran"
    network = json.loads(json.dumps(network).replace("RAN", str(flag))) | {"num_keypoints": 16}
    with pytest.raises(CheckpointError, match=rf"code outside poseglass: .*{where} 'os:mkdir'.*trust_code=True"):
        card_network(replace(CARD, network=network), {"a": torch.zeros(16)} if with_state else None)
    assert not flag.exists()


def test_a_part_of_ones_own_is_built_when_trusted(tmp_path: Path) -> None:
    flag = tmp_path / "ran"
    network = {"name": "cpn", "num_keypoints": 16, "backbone": {"name": "os:mkdir", "path": str(flag)}}
    with pytest.raises(CheckpointError, match="their network cannot be built"):  # mkdir makes no backbone
        card_network(replace(CARD, network=network), trust_code=True)
    assert flag.exists()


def test_networks_that_cannot_be_built() -> None:
    for network, says in (
        ({"name": "hg9", "num_keypoints": 16}, "Unknown name 'hg9'"),
        ({"num_keypoints": 16}, "Unknown name ''"),
        ({"name": "hg2", "num_keypoints": 16, "widht": 3}, "widht"),
        ({"name": "hg2", "num_keypoints": 0}, "above 0"),
    ):
        with pytest.raises(CheckpointError, match=f"'toy': their network cannot be built. .*{says}"):
            card_network(replace(CARD, network=network))


def test_a_card_cannot_ask_for_more_than_its_file_holds() -> None:
    """A network of 10**9 stacks would be built until memory ends, before a single tensor was compared."""
    state = {"a": torch.zeros(3, 7), "b": torch.zeros(()), "empty": torch.zeros(10**9, 0)}
    too_much = [("num_stacks", 10**9), ("num_stacks", 4), ("width", 4e12), ("width", 8), ("blocks", [1, 4])]
    for key, value in [*too_much, ("widths", [7, 8]), ("first_width", 8)]:
        card = replace(CARD, network={"name": "stacked_hourglass", "num_keypoints": 5, key: value})
        with pytest.raises(
            CheckpointError, match=rf"card says network\.{key} = .* 3 tensors with sides of at most 7\."
        ):
            card_network(card, state)


def test_there_may_be_more_classes_than_tensors() -> None:
    table = {
        "name": "composed", "num_keypoints": 0, "backbone": {"name": "resnet18"},
        "neck": {"name": "level", "level": -1}, "head": {"name": "box_class", "num_classes": 500},
    }  # fmt: skip
    state = build(NETWORKS, "composed", **{key: value for key, value in table.items() if key != "name"}).state_dict()
    assert len(state) < 500
    assert card_network(replace(CARD, network=table), state).head.classes.out_features == 500


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"backbone": {"name": "resnet18", "width": 10**9}}, "network.backbone.width"),
        ({"backbone": {"name": "hrnet", "num_modules": [1, 1, 10**9]}}, "network.backbone.num_modules"),
        ({"neck": {"name": "deconv", "num_layers": 10**9}}, "network.neck.num_layers"),
        ({"head": {"name": "simcc", "size_wh": [64, 10**9]}}, "network.head.size_wh"),
    ],
)
def test_nor_may_a_part_of_its_network(more: dict, where: str) -> None:
    table = {"name": "composed", "num_keypoints": 5, "backbone": {"name": "resnet18"}, "neck": {"name": "level"}} | more
    with pytest.raises(CheckpointError, match=rf"card says {where} = 1000000000, but the file has 1 tensors"):
        card_network(replace(CARD, network=table), {"a": torch.zeros(64)})


@pytest.mark.slow
def test_a_network_too_deep_or_too_wide_is_told_plainly() -> None:
    """Where the file would allow it: many tensors, or long ones."""
    card = replace(CARD, network={"name": "stacked_hourglass", "num_keypoints": 1, "num_stacks": 1, "depth": 2500})
    with pytest.raises(CheckpointError, match="'toy': their network cannot be built"):
        card_network(card, {str(i): torch.zeros(1) for i in range(2500)})
    card = replace(CARD, network={"name": "stacked_hourglass", "num_keypoints": 1, "num_stacks": 1, "width": 2**20})
    with pytest.raises(CheckpointError, match="'toy' do not fit the network"):
        card_network(card, {"a": torch.zeros(2**20, dtype=torch.int8), "b": torch.zeros(1)})


def test_a_network_of_ones_own_may_take_any_number() -> None:
    card = replace(CARD, network={"name": "torch.nn:Linear", "in_features": 2, "out_features": 3, "bias": False})
    network = card_network(card, {"weight": torch.ones(3, 2)}, trust_code=True)
    assert network(torch.ones(1, 2)).tolist() == [[2.0] * 3]


def test_the_wrong_number_of_keypoints_is_told_in_keypoints() -> None:
    with pytest.raises(
        CheckpointError,
        match=r"'toy' predict 16 keypoints; asked for 17\. Use a skeleton of 16, or train a network of 17",
    ):
        load_strictly(toy(17), toy(16).state_dict(), source="toy")


def test_loading_strictly_lists_both_sides_and_changes_nothing() -> None:
    network = toy(seed=1)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    state = toy(seed=2).state_dict()
    state["extra.weight"] = state.pop("stem.conv.bias")
    state["stem.conv.weight"] = torch.zeros(2, 3, 5, 5)
    with pytest.raises(
        CheckpointError,
        match=r"missing: stem\.conv\.bias \(2,\); unexpected: extra\.weight \(2,\); "
        r"of another shape: stem\.conv\.weight \(2, 3, 5, 5\) for \(2, 3, 7, 7\)",
    ):
        load_strictly(network, state, source="toy")
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_a_narrower_network_is_not_taken_for_another_skeleton() -> None:
    narrow = StackedHourglass(16, num_stacks=2, width=4, depth=1)
    with pytest.raises(CheckpointError, match="of another shape: stem"):
        load_strictly(narrow, toy().state_dict())
    with pytest.raises(CheckpointError, match="in more than the number of keypoints: stem"):
        load_matching(narrow, toy().state_dict())


def last_layers(state: dict[str, Tensor]) -> set[str]:
    return {n for n in state if n.endswith(("heatmap.weight", "heatmap.bias")) or n == "heatmap_feedback.0.weight"}


def test_another_skeleton_starts_a_new_last_layer() -> None:
    old, network = toy(16, seed=1).state_dict(), toy(17, seed=2)
    initial = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    begun = load_matching(network, old)
    now = network.state_dict()
    assert set(begun) == last_layers(now)
    assert len(begun) == 5
    for name, tensor in now.items():
        assert torch.equal(tensor, initial[name] if name in begun else old[name]), name
    assert load_matching(toy(16), old) == []


def test_keypoints_of_the_same_name_keep_their_weights() -> None:
    old, network = toy(16, seed=1), toy(14, seed=2)
    assert load_matching(network, old.state_dict(), from_keypoints=MPII16.keypoints, to_keypoints=LSP14.keypoints) == []
    images = torch.rand(1, 3, 64, 64)
    order = [MPII16.index(name) for name in LSP14.keypoints]
    with torch.no_grad():
        # The first stack sees nothing of the dropped two, so its maps are the old ones in another order.
        torch.testing.assert_close(network(images)[0]["heatmap"], old(images)[0]["heatmap"][:, order])

    back, initial = toy(16, seed=3), toy(16, seed=3).state_dict()
    begun = load_matching(back, network.state_dict(), from_keypoints=LSP14.keypoints, to_keypoints=MPII16.keypoints)
    assert set(begun) == last_layers(initial)
    bias, pelvis = back.state_dict()["outputs.1.heatmap.bias"], MPII16.index("pelvis")
    assert bias[pelvis] == initial["outputs.1.heatmap.bias"][pelvis]
    assert torch.equal(bias[order], old.state_dict()["outputs.1.heatmap.bias"][order])


def test_names_that_do_not_match_the_weights() -> None:
    with pytest.raises(
        CheckpointError, match="predict 16 keypoints and the network 14, but 14 and 16 names were given"
    ):
        load_matching(toy(14), toy(16).state_dict(), from_keypoints=LSP14.keypoints, to_keypoints=MPII16.keypoints)


def test_a_missing_tensor_cannot_start_a_network() -> None:
    state = toy().state_dict()
    del state["stem.conv.bias"]
    with pytest.raises(CheckpointError, match=r"'weights' cannot start this network: missing: stem\.conv\.bias"):
        load_matching(toy(17), state)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError):
            save_weights(tmp_path / "x.safetensors", toy().state_dict(), CARD)
    finally:
        tmp_path.chmod(0o700)


def test_a_linear_layer_is_a_network_too(tmp_path: Path) -> None:
    path = tmp_path / "linear.safetensors"
    saved, loaded = nn.Linear(2, 3), nn.Linear(2, 3)
    save_weights(path, saved.state_dict(), CARD)
    load_strictly(loaded, read_weights(path)[0])
    assert torch.equal(loaded.weight, saved.weight)
    assert torch.equal(loaded.bias, saved.bias)


def in_order(*names: str) -> tuple[StackedHourglass, WeightCard]:
    torch.manual_seed(len(names))
    network = StackedHourglass(len(names), **NUMBERS).eval()
    table = {"name": "stacked_hourglass", "num_keypoints": len(names), **NUMBERS}
    return network, replace(CARD, network=table, skeleton=Skeleton("toy", names))


def test_the_same_keypoints_in_another_order_are_matched_by_name() -> None:
    old, card = in_order("a", "b", "c", "d", "e", "f", "g", "h")  # as many as the network is wide
    names = ("c", "a", "b", "h", "g", "f", "e", "d")
    network = toy(8, seed=9)
    begun = load_matching(
        network, old.state_dict(), from_keypoints=card.skeleton.keypoints, to_keypoints=names,
        channels=keypoint_channels(card),
    )  # fmt: skip
    assert begun == []
    images = torch.rand(1, 3, 64, 64)
    order = [card.skeleton.index(name) for name in names]
    with torch.no_grad():
        for mine, theirs in zip(network(images), old(images), strict=True):
            torch.testing.assert_close(mine["heatmap"], theirs["heatmap"][:, order])


def test_as_many_keypoints_of_other_names_never_go_by_position() -> None:
    old, card = in_order("a", "b", "c")
    network = toy(3, seed=5)
    initial = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    begun = load_matching(
        network, old.state_dict(), from_keypoints=("a", "b", "c"), to_keypoints=("c", "x", "y"),
        channels=keypoint_channels(card),
    )  # fmt: skip
    now, was = network.state_dict(), old.state_dict()
    assert set(begun) == last_layers(now)
    for name in ("outputs.0.heatmap.weight", "outputs.1.heatmap.bias"):
        assert torch.equal(now[name][0], was[name][2])
        assert torch.equal(now[name][1:], initial[name][1:])
    assert torch.equal(now["heatmap_feedback.0.weight"][:, 0], was["heatmap_feedback.0.weight"][:, 2])
    assert torch.equal(now["stem.conv.weight"], was["stem.conv.weight"])


def test_without_knowing_the_channels_other_keypoints_are_refused() -> None:
    network = StackedHourglass(3, num_stacks=1, width=8, depth=1)
    for names in (("a", "c", "b"), ("x", "y", "z")):
        with pytest.raises(
            CheckpointError, match=r"as many keypoints as the network, but different ones .*order of the we"
        ):
            load_matching(network, network.state_dict(), from_keypoints=("a", "b", "c"), to_keypoints=names)
    assert load_matching(network, network.state_dict(), from_keypoints="abc", to_keypoints="abc") == []


@pytest.mark.parametrize("name", ["cpm_light", "simple_baseline_light", "cpn_light", "hg2_light"])
def test_every_kind_of_network_starts_from_another_skeleton_by_name(name: str) -> None:
    torch.manual_seed(0)
    card = replace(CARD, network={"name": name, "num_keypoints": 16})
    old, network = (card_network(replace(card, network={"name": name, "num_keypoints": k})) for k in (16, 14))
    begun = load_matching(
        network, old.state_dict(), from_keypoints=MPII16.keypoints, to_keypoints=LSP14.keypoints,
        channels=keypoint_channels(card),
    )  # fmt: skip
    assert begun == []
    images = torch.rand(1, 3, 128, 128)
    order = [MPII16.index(n) for n in LSP14.keypoints]
    with torch.no_grad():
        torch.testing.assert_close(network(images)[0]["heatmap"], old(images)[0]["heatmap"][:, order])


def test_a_head_of_three_maps_a_keypoint_goes_by_name() -> None:
    table = {"name": "composed", "backbone": {"name": "resnet18", "width": 8}, "neck": {"name": "deconv", "width": 8}}
    table |= {"head": {"name": "offset"}}
    card = replace(CARD, network=table | {"num_keypoints": 3})
    torch.manual_seed(0)
    old, network = card_network(card), card_network(card)
    names = ("c", "a", "b")
    for value in (old.head.conv.weight, network.head.conv.weight):  # it starts empty
        torch.nn.init.normal_(value)
    load_matching(
        network, old.state_dict(), from_keypoints=("a", "b", "c"), to_keypoints=names, channels=keypoint_channels(card)
    )
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        mine, theirs = network(images)[-1], old(images)[-1]
    for key in ("heatmap", "offset"):
        torch.testing.assert_close(mine[key], theirs[key][:, [2, 0, 1]])


def test_channels_of_code_outside_are_not_known() -> None:
    assert keypoint_channels(replace(CARD, network={"name": "os:mkdir", "num_keypoints": 3})) is None


@pytest.mark.parametrize("dtype", [torch.uint16, torch.uint32, torch.uint64, torch.float8_e4m3fn, torch.float8_e5m2])
def test_rare_types_are_read_as_the_numbers_they_are(tmp_path: Path, dtype: torch.dtype) -> None:
    path = tmp_path / "rare.safetensors"
    save_file({"a": torch.tensor([0.0, 1.0, 3.0]).to(dtype)}, path)
    state, _ = read_safetensors(path)
    assert state["a"].dtype == (torch.float32 if dtype.is_floating_point else torch.int64)
    assert state["a"].tolist() == [0, 1, 3]


def test_types_that_are_no_weights_are_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    save_file({"wave": torch.ones(2, dtype=torch.complex64), "b": torch.ones(1)}, path)
    with pytest.raises(CheckpointError, match=r"of unsupported types: wave \(C64\)\. Supported are BF16, BOOL, F16"):
        read_safetensors(path)
    header = json.dumps({"scale": {"dtype": "F8_E8M0", "shape": [1], "data_offsets": [0, 1]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + b"\x7f")
    with pytest.raises(CheckpointError, match=r"scale \(F8_E8M0\)"):
        read_safetensors(path)
    with pytest.raises(
        CheckpointError, match=r"not saved, 'toy' has tensors of unsupported types: wave torch\.complex64\."
    ):
        save_weights(path, {"wave": torch.ones(2, dtype=torch.complex64)}, CARD)


def test_whole_numbers_in_the_place_of_weights_are_refused() -> None:
    state = toy().state_dict() | {"stem.conv.weight": torch.ones(2, 3, 7, 7, dtype=torch.int8)}
    for load in (load_strictly, load_matching):
        with pytest.raises(CheckpointError, match=r"of another type: stem\.conv\.weight int8 for float32"):
            load(toy(), state)


@pytest.mark.parametrize("text", ['{"info":{"a": 1}}', '[{"id": {}}]', '{"image":{', '{ "ab": {"c": 2}}'])
def test_json_is_named_as_text_and_not_as_truncated(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.json"
    path.write_text(text + " " * 20)
    with pytest.raises(CheckpointError, match=r"labels\.json is not a safetensors file but JSON text"):
        read_weights(path)


def test_a_folder_and_the_state_of_a_run_lead_to_its_weights(tmp_path: Path) -> None:
    (tmp_path / "recipe.toml").touch()
    with pytest.raises(CheckpointError, match=r"got a folder: .*which holds a run of poseglass: .*best\.safetensors"):
        read_weights(tmp_path)
    torch.save({"format": 2}, tmp_path / "checkpoint.pt")
    with pytest.raises(CheckpointError, match=r"but the training state of a run: its weights are .*best\.safetensors"):
        read_weights(tmp_path / "checkpoint.pt")
