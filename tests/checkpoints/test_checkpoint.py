"""Checkpoints of others: what is read, what is refused, and that nothing in them runs."""

import argparse
import io
import os
import pickle
import tarfile
import time
import tracemalloc
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from poseglass.checkpoints.checkpoint import Checkpoint, open_checkpoint
from poseglass.checkpoints.choose import main_names
from poseglass.core.card import WeightCard
from poseglass.core.input_spec import InputSpec
from poseglass.core.pickled import Storage, Stored
from poseglass.core.skeletons import MPII16
from poseglass.estimators.weights_file import CheckpointError, save_weights

hypothesis = pytest.importorskip("hypothesis")
HealthCheck, given, settings, st = hypothesis.HealthCheck, hypothesis.given, hypothesis.settings, hypothesis.strategies

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.count": torch.tensor(4)}
ZIP, LEGACY = {"_use_new_zipfile_serialization": True}, {"_use_new_zipfile_serialization": False}
both_formats = pytest.mark.parametrize("how", [ZIP, LEGACY], ids=["zip", "legacy"])


def saved(content: Any, how: dict[str, bool] = ZIP) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, **how)
    return buffer.getvalue()


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    return open_checkpoint(path).all()


def read_main(path: Path) -> dict[str, Tensor]:
    checkpoint = open_checkpoint(path)
    names = main_names(checkpoint)
    return {names[name]: tensor for name, tensor in checkpoint.read(names).items()}


def same(state: dict[str, Tensor]) -> bool:
    return state.keys() == STATE.keys() and all(torch.equal(state[name], STATE[name]) for name in STATE)


@both_formats
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: OrderedDict(state),
        lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"state": {0: {"step": 1}}, "param_groups": [{}]}},
        lambda state: {"state_dict": {f"module.{k}": v for k, v in state.items()}, "best_acc": np.float64(0.5)},
        lambda state: {"state_dict": {f"model.module.{k}": v for k, v in state.items()}, "best_acc": np.float32(1)},
        lambda state: {"model": state, "arch": "hg", "acc": torch.tensor(1.0)},
        lambda state: {k: torch.nn.Parameter(v, requires_grad=False) for k, v in state.items()},
    ],
    ids=["plain", "ordered", "container", "module", "model.module", "model", "parameters"],
)
def test_containers(tmp_path: Path, how: dict[str, bool], wrap: Any) -> None:
    path = tmp_path / "x.pth.tar"
    path.write_bytes(saved(wrap(STATE), how))
    assert same(read_main(path))


def test_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({f"module.{name}": tensor for name, tensor in STATE.items()}, path)
    assert same(read_main(path))
    renamed = path.rename(tmp_path / "x.bin")  # the content decides
    assert same(read_main(renamed))


class Evil:
    """Unpickled with no care, it makes a folder."""

    def __init__(self, flag: Path) -> None:
        self.flag = flag

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.flag),)


@both_formats
def test_a_pickle_with_code_is_refused_and_never_runs(tmp_path: Path, how: dict[str, bool]) -> None:
    flag, path = tmp_path / "it_ran", tmp_path / "evil.pth"
    path.write_bytes(saved({"state_dict": STATE, "extra": Evil(flag)}, how))
    with pytest.raises(
        CheckpointError,
        match=r"evil\.pth is a pickle that contains code \(\w+\.mkdir\).*not read.*Ask for the weights alone",
    ):
        read_checkpoint(path)
    assert not flag.exists()
    torch.load(path, weights_only=False)  # so that the test could have failed
    assert flag.exists()


@pytest.mark.parametrize("protocol", range(6))
def test_a_bare_pickle_with_code_never_runs(tmp_path: Path, protocol: int) -> None:
    flag, path = tmp_path / "it_ran", tmp_path / "evil.pkl"
    path.write_bytes(pickle.dumps(Evil(flag), protocol))
    with pytest.raises(
        CheckpointError,
        match=r"evil\.pkl is (a pickle that contains code|a damaged checkpoint or may|not a checkpoint)",
    ):
        read_checkpoint(path)
    assert not flag.exists()


def zip_of(entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def entries_of(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def tar_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "not a checkpoint but empty"),
        (b"These are words, not weights.\n", r"not a checkpoint but text\. Expected \.pth, \.pt or \.safetensors"),
        (b"<html><body>404", "but a web page"),
        (b"\x04\0\0\0\x01\0\0\0" + bytes(40), "Torch7"),
        (bytes(600), r"is not a checkpoint\. Expected"),
        (tar_of("storages"), r"tar archive, not a checkpoint \(files named \.pth\.tar are not tar archives\)"),
        (saved(STATE)[:-30], r"truncated or damaged checkpoint: its table of contents, at the end of the file"),
        (saved(STATE)[: len(saved(STATE)) // 2], "truncated or damaged checkpoint"),
        (saved(STATE, LEGACY)[:-3], r"truncated checkpoint: it has 1 of its 2 tensors\. Fetch it again"),
        (saved(STATE, LEGACY)[:60], "truncated checkpoint: it ends at byte 60"),
        (zip_of({"readme.txt": b"hello"}), "zip archive, not one that torch.save wrote"),
        (zip_of({"x/data.pkl": b"", "x/constants.pkl": b""}), r"TorchScript archive.*torch\.jit\.load"),
        (zip_of(entries_of(saved(STATE)), zipfile.ZIP_DEFLATED), "compressed entries"),
        (zip_of({"x/data.pkl": b"\x80\x02."}), "damaged"),
        (saved(torch.zeros(3)), "contains one tensor, and no named tensor"),
        (saved([3.0, "word"]), "has no state dict: it contains a list, and no named tensor"),
        (saved({}), "has no state dict: it contains nothing"),
        (saved({"epoch": 3, "lr": 0.1}), "has no state dict: it contains epoch, lr"),
        (saved({"a": argparse.Namespace(lr=1)}), "has no state dict: it contains a, and"),
        (saved(argparse.Namespace(lr=1)), "contains an object of class argparse.Namespace, and no named tensor"),
        (saved({"a": torch.zeros(1).expand(10**12)}), r"'a' \(1000000000000,\) is larger than what the file stores"),
        (saved({"a": torch.zeros(2, 2).to_sparse()}), "has no state dict: it contains a"),
    ],
    ids=range(22),
)
def test_what_is_refused_and_why(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "bad.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"bad\.pth.*{says}|bad\.pth:? {says}"):
        read_checkpoint(path)


@pytest.mark.parametrize("number", [2**31 - 1, 2**60], ids=["8 GB", "more than there is"])
@pytest.mark.parametrize("places", ["storage", "shape", "storage and shape"])
def test_numbers_that_the_file_does_not_hold_are_not_believed(tmp_path: Path, number: int, places: str) -> None:
    path = tmp_path / "forged.pth"
    entries = entries_of(saved({"a": torch.zeros(300)}))
    (name,) = (name for name in entries if name.endswith("data.pkl"))
    honest, forged = b"M" + (300).to_bytes(2, "little"), b"\x8a\x08" + number.to_bytes(8, "little")
    parts = entries[name].split(honest)
    assert len(parts) == 3  # the size of the storage, then the shape
    entries[name] = parts[0] + (forged if "storage" in places else honest) + parts[1]
    entries[name] += (forged if "shape" in places else honest) + parts[2]
    path.write_bytes(zip_of(entries))
    total, message = 0, str(path)
    try:
        total = sum(tensor.numel() for tensor in read_checkpoint(path).values())
    except CheckpointError as error:
        message = str(error)
    assert total <= 300
    assert str(path) in message


def shared(part: bytes, times: int, outer: bytes = b"h\x00") -> bytes:
    """Return a pickle of a list that holds one value over and over."""
    return b"\x80\x02" + part + b"q\x000](" + outer * times + b"e."


LONG_KEY = b"\x80\x02}X\xa0\x86\x01\0" + b"a" * 100_000 + b"(" + b"]Na" * 12_000 + b"ls."
MODULE = b"cnets\nNet\n)\x81h\x00b"
LARGE_STATE = b"}(U\x0b_parameters}U\x08_modules}"
UNSAVED = b"(" + b"".join(b"U\x04%04d" % i for i in range(2000)) + b"l"
BUFFERS = b"}(" + b"".join(b"U\x04%04d]Na" % i for i in range(2000)) + b"u"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (shared(b"(" + b"N" * 50_000 + b"l", 20_000), "has no state dict: it contains a list"),
        (shared(b"(" + b"N" * 50_000 + b"l", 20_000, b"cx\ny\n)\x81h\x00b"), "has no state dict: it contains a list"),
        (shared(b"(" + b"]" * 12_000 + b"l", 20_000), "has no state dict: it contains a list"),
        (shared(b"(" + b"]Na" * 12_000 + b"l", 20_000), "contain each other endlessly"),
        (LONG_KEY, r"contains a{80}\.\.\."),
        (
            shared(
                LARGE_STATE + b"U\x08_buffers" + BUFFERS + b"U\x1b_non_persistent_buffers_set" + UNSAVED + b"u",
                20_000, MODULE,
            ),
            "contain each other endlessly",
        ),
    ],
    ids=["plain values", "values in objects", "empty containers", "containers", "a long key", "unsaved buffers"],
)  # fmt: skip
def test_a_small_file_cannot_ask_for_hours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, says: str
) -> None:
    monkeypatch.setattr("poseglass.checkpoints.checkpoint.MAX_VALUES", 100_000)
    path = tmp_path / "small.pkl"
    path.write_bytes(content)
    started = time.process_time()
    with pytest.raises(CheckpointError, match=rf"small\.pkl.*{says}"):
        read_checkpoint(path)
    assert time.process_time() - started < 60  # seconds rather than hours, on a slow machine as well


@pytest.mark.slow
def test_a_long_key_is_not_written_out_over_and_over(tmp_path: Path) -> None:
    path = tmp_path / "small.pkl"
    path.write_bytes(LONG_KEY)
    tracemalloc.start()
    with pytest.raises(CheckpointError, match="has no state dict"):
        read_checkpoint(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 50e6


def test_names_are_only_so_long(tmp_path: Path) -> None:
    path = tmp_path / "long.pth"
    path.write_bytes(saved({"a" * 998: {"b": torch.zeros(1)}, "remark" * 1000: [1, [2]]}))
    assert [*read_checkpoint(path)] == [f"{'a' * 998}.b"]
    path.write_bytes(saved({"a" * 999: {"b": torch.zeros(1)}}))
    with pytest.raises(CheckpointError, match=r"long\.pth.*a name in it has more than 1,000 characters: a{80}\.\.\."):
        read_checkpoint(path)
    path.write_bytes(pickle.dumps({f"{i}": inner for inner in [{".a" * 490: np.zeros(1)}] for i in range(500)}))
    with pytest.raises(CheckpointError, match=r"long\.pth.*its names are longer than those of any network"):
        read_checkpoint(path)


@pytest.mark.parametrize("shape", [(2**61, 2**61), (2**61, 64, 3, 3)])
def test_a_forged_shape_is_told_with_the_file(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / "forged.pth"
    stored = Stored(Storage(torch.float32, "0", 1), torch.float32, shape, 0, (1,) * len(shape))
    with pytest.raises(CheckpointError, match=r"forged\.pth: tensor 'a\.weight' .* larger than what the file stores"):
        Checkpoint(path, {"a.weight": stored}).shapes(["a.weight"])


def test_the_tensors_of_a_zip_are_mapped_not_copied(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    path.write_bytes(saved({"a": torch.zeros(300), "b": torch.ones(300)}))
    a, b = (tensor.untyped_storage() for tensor in read_checkpoint(path).values())
    assert abs(a.data_ptr() - b.data_ptr()) < path.stat().st_size


def test_no_such_file_a_folder_and_one_of_ours(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"No such checkpoint: .*none\.pth"):
        read_checkpoint(tmp_path / "none.pth")
    with pytest.raises(CheckpointError, match="got a folder"):
        read_checkpoint(tmp_path)
    ours = tmp_path / "ours.safetensors"
    save_weights(ours, STATE, WeightCard("x", {"name": "hg2"}, {"name": "heatmap"}, MPII16, InputSpec()))
    with pytest.raises(CheckpointError, match="already a poseglass weights file"):
        read_checkpoint(ours)


def test_a_file_too_large_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "large.pth"
    with path.open("wb") as file:
        file.truncate(9 * 1024**3)  # sparse: takes no room
    with pytest.raises(CheckpointError, match=r"has 9,663,676,416 bytes; files over 8,589,934,592 bytes are not read"):
        read_checkpoint(path)


WHOLE = {
    "zip": saved({"state_dict": {"module.a": torch.ones(40)}, "epoch": 3}),
    "legacy": saved({"state_dict": {"module.a": torch.ones(40)}, "epoch": 3}, LEGACY),
}


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), form=st.sampled_from(sorted(WHOLE)))
def test_damage_gives_tensors_or_our_error(tmp_path: Path, data: st.DataObject, form: str) -> None:
    content, path = bytearray(WHOLE[form]), tmp_path / "fuzz.pth"
    for place in data.draw(st.lists(st.integers(0, len(content) - 1), max_size=6)):
        content[place] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.just(len(content)) | st.integers(0, len(content)))])
    message = str(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            assert all(isinstance(tensor, Tensor) for tensor in read_checkpoint(path).values())
        except CheckpointError as error:
            message = str(error)
    assert str(path) in message


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(start=st.sampled_from([b"", b"PK\x03\x04", b"\x80\x02", b"\x80\x04", b"ustar"]), rest=st.binary(max_size=300))
def test_random_bytes_give_our_error(tmp_path: Path, start: bytes, rest: bytes) -> None:
    path = tmp_path / "fuzz.pth"
    path.write_bytes(start + rest)
    with pytest.raises(CheckpointError, match=r"fuzz\.pth"):
        read_checkpoint(path)
