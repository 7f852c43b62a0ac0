"""The pickle machine: what it reads as data, and that nothing which a file says is ever run."""

import argparse
import collections
import io
import pickle
import struct
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poseglass.checkpoints.checkpoint import open_checkpoint
from poseglass.checkpoints.pickled import CodeFound, Foreign, Named, PickleError, PickleReader, Truncated
from poseglass.estimators.weights_file import CheckpointError

PLAIN = {
    "text": "été", "none": None, "yes": True, "no": False, "small": 3, "large": 2**70, "minus": -5, "real": 0.1,
    "bytes": b"\x00\xff", "list": [1, [2, "3"]], "tuple": (1, (2,), ()), "empty": {}, 7: "seven",
}  # fmt: skip


def read(value: Any, protocol: int = 2) -> Any:
    return PickleReader(pickle.dumps(value, protocol)).load()


@pytest.mark.parametrize("protocol", range(6))
def test_plain_values_come_back(protocol: int) -> None:
    assert read(PLAIN, protocol) == PLAIN
    ordered = collections.OrderedDict(b=1, a=2)
    assert list(read(ordered, protocol).items()) == [("b", 1), ("a", 2)]
    assert sorted(read({3, 1}, protocol)) == [1, 3]
    assert read(bytearray(b"ab"), protocol) == b"ab"
    assert read(collections.defaultdict(list, a=[1]), protocol) == {"a": [1]}
    shared = [1]
    back = read([shared, shared], protocol)
    assert back[0] is back[1]


@settings(max_examples=100, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
        max_leaves=20,
    ),
    st.integers(0, 5),
)
def test_whatever_plain_thing_comes_back(value: Any, protocol: int) -> None:
    assert read(value, protocol) == value


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", ["f4", "f8", ">f4", "i8", "u1", "?"])
def test_arrays_and_numbers_of_numpy(protocol: int, dtype: str) -> None:
    array = np.arange(6).reshape(2, 3).astype(dtype)
    for value in (array, np.asfortranarray(array), np.array(1, dtype), np.zeros((0, 2), dtype)):
        stored = read(value, protocol)
        assert stored.shape == value.shape
        assert np.array_equal(stored.storage, value)
        assert stored.dtype == torch.from_numpy(value.astype(value.dtype.newbyteorder("="))).dtype
    assert read(array[1, 2], protocol) == array[1, 2]


def test_what_numpy_holds_beside_numbers_is_foreign() -> None:
    assert isinstance(read(np.array(["a", "b"])), Foreign)
    assert isinstance(read(np.array([{}], dtype=object)), Foreign)
    assert isinstance(read(np.datetime64("2020-01-01")), Foreign)


class Thing:
    """Of a class that a reader of the file does not have."""

    def __init__(self) -> None:
        self.a = [1, 2]


class Kind(dict):
    """A dict that has attributes too, as EasyDict and yacs make them."""


class Many(list):
    """A list of its own class."""


@pytest.mark.parametrize("protocol", range(6))
def test_objects_stay_names_with_what_they_would_have_got(protocol: int) -> None:
    thing = read({"x": Thing()}, protocol)["x"]
    assert isinstance(thing, Foreign)
    assert thing.name == f"{__name__}.Thing"
    assert thing.state == {"a": [1, 2]}
    kind = Kind(a=1)
    kind.b = 2
    made = read(kind, protocol)
    assert made.name == f"{__name__}.Kind"
    if protocol >= 2:
        assert (made.entries, made.state) == ({"a": 1}, {"b": 2})
    assert read(Many([1, 2]), 2).elements == [1, 2]
    assert read(argparse.Namespace(lr=0.1), protocol).state == {"lr": 0.1}
    assert isinstance(read(Thing, protocol), Named)


def op_global(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


ATTACKS = [
    ("os", "system"), ("posix", "system"), ("nt", "system"), ("subprocess", "Popen"), ("builtins", "eval"),
    ("__builtin__", "eval"), ("builtins", "exec"), ("builtins", "__import__"), ("builtins", "open"),
    ("importlib", "import_module"), ("runpy", "run_path"), ("shutil", "rmtree"), ("socket", "socket"),
    ("ctypes", "CDLL"), ("pty", "spawn"), ("webbrowser", "open"), ("sys", "exit"), ("commands", "getoutput"),
    ("code", "interact"), ("pickle", "loads"), ("marshal", "loads"), ("os.path", "join"),
    ("torch.serialization", "os.system"),
    ("numpy", "os.system"), ("builtins", "compile"), ("builtins", "print"), ("timeit", "timeit"),
]  # fmt: skip


@pytest.mark.parametrize(("module", "name"), ATTACKS)
def test_functions_that_act_are_named(module: str, name: str) -> None:
    """Whether called or not, by either instruction that names one."""
    called = op_global(module, name) + b"(S'true'\ntR."
    short = lambda text: b"\x8c" + bytes([len(text)]) + text.encode()  # noqa: E731
    for text in (called, op_global(module, name) + b".", b"\x80\x04" + short(module) + short(name) + b"\x93."):
        with pytest.raises(CodeFound, match=rf"^{module}\.{name}$"):
            PickleReader(text).load()


def test_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "poseglass_trap.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Net: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    for text in (
        op_global("poseglass_trap", "Net") + b")R}b.",
        op_global("poseglass_trap", "Net") + b")\x81}b.",
        b"(iposeglass_trap\nNet\n.",
        b"\x80\x04\x8c\x0eposeglass_trap\x8c\x03Net\x93)}\x92.",
        b"(" + op_global("poseglass_trap", "Net") + b"o.",
    ):
        made = PickleReader(text).load()
        assert isinstance(made, Foreign)
        assert made.name == "poseglass_trap.Net"
    assert "poseglass_trap" not in sys.modules
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "ends at byte 0"),
        (b"\x80\x02}q", "ends at byte 4"),
        (b"X\xff\xff\xff\xffabc.", "ends at byte 9"),
        (b"B\xff\xff\xff\xffabc.", "ends at byte 9"),
        (b"\x8e" + b"\xff" * 8 + b".", "ends at byte"),
        (b"U\xff.", "ends at byte"),
        (b"cos", "ends at byte"),
    ],
)
def test_a_pickle_that_ends_early_says_where(text: bytes, says: str) -> None:
    with pytest.raises(Truncated, match=says):
        PickleReader(text).load()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"\xfe.", "unknown instruction 0xfe at byte 0"),
        (b"\x82\x01.", "table of extensions"),
        (b"K\x01K\x02R.", "a call has a int"),
        (b"K\x01)R.", "calls a int"),
        (b"]K\x01K\x02s.", "puts an item into a list"),
        (b"}K\x01a.", "puts an element into a dict"),
        (b"K\x01}b.", "gives attributes to a int"),
        (b"t.", "never opened"),
        (b".", "IndexError"),
        (b"h\x05.", "KeyError"),
        (b"I" + b"9" * 5000 + b"\n.", "ValueError"),
        (b"K\x01Q.", "outside the file"),
        (op_global("torch", "FloatTensor") + b"}b.", "gives attributes to a Named"),
    ],
)
def test_damage_is_told(text: bytes, says: str) -> None:
    with pytest.raises(PickleError, match=says):
        PickleReader(text).load()


def test_a_few_bytes_cannot_ask_for_much() -> None:
    """Neither a place in the memo, nor nesting, nor copying over and over takes memory or time that is not there."""
    assert PickleReader(b"K\x01r\xff\xff\xff\x7f.").load() == 1
    assert isinstance(PickleReader(b"(" * 100_000 + b"t" * 100_000 + b".").load(), tuple)
    deep = b"(" * 100_000 + b"t" * 100_000
    PickleReader(b"}" + deep + b"K\x01s.").load()  # as a key: hashing it would go as deep
    copies = b"]q\x00(" + b"K\x01" * 1000 + b"e" + (op_global("collections", "OrderedDict") + b"h\x00\x85R0") * 500
    with pytest.raises(PickleError, match=r"copies more than it contains|TypeError"):
        PickleReader(copies + b".").load()
    pairs = b"]q\x00(" + b"K\x01K\x02\x86" * 1000 + b"e" + (op_global("builtins", "list") + b"h\x00\x85R0") * 500
    with pytest.raises(PickleError, match="copies more than it contains"):
        PickleReader(pairs + b".").load()


@settings(max_examples=300, deadline=None)
@given(
    st.binary(max_size=60)
    | st.lists(
        st.sampled_from(
            [*map(bytes, [[i] for i in range(256)]), b"h\x00", b"q\x00", b"cx\ny\n", b"cnumpy\ndtype\n", b"K\x01"]
        )
    ).map(b"".join)
)
def test_no_bytes_get_past_our_error(text: bytes) -> None:
    try:
        PickleReader(text + b".").load()
    except PickleError as error:
        assert str(error)  # noqa: PT017 (any value is as good)


class Old(pickle._Pickler):
    """Writes strings as Python 2.7 did."""

    def save_text(self, text: str | bytes) -> None:
        raw = text.encode("latin1") if isinstance(text, str) else text
        short = len(raw) < 256
        self.write(b"U" + bytes([len(raw)]) + raw if short else b"T" + struct.pack("<i", len(raw)) + raw)
        self.memoize(text)

    dispatch = pickle._Pickler.dispatch | {str: save_text, bytes: save_text}


def python27(content: Any) -> bytes:
    """Return a checkpoint as PyTorch on Python 2.7 wrote it."""
    old = types.SimpleNamespace(
        __name__="old", Pickler=Old, dump=lambda what, file, protocol: Old(file, protocol).dump(what)
    )
    buffer = io.BytesIO()
    torch.save(content, buffer, pickle_module=old, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def test_checkpoints_of_python_27(tmp_path: Path) -> None:
    path = tmp_path / "old.pth.tar"
    weight = torch.arange(6.0).reshape(2, 3)
    content = {
        "epoch": 90,
        "best_acc": np.float64(0.875),
        "name": "\xe9t\xe9",
        "long": "x" * 300,
        "history": np.arange(3.0),
        "state_dict": collections.OrderedDict(weight=weight, half=weight.half(), part=weight[1:, 1:]),
    }
    path.write_bytes(python27(content))
    checkpoint = open_checkpoint(path)
    state = checkpoint.all()
    assert set(state) == {"history", "state_dict.weight", "state_dict.half", "state_dict.part"}
    assert torch.equal(state["state_dict.weight"], weight)
    assert torch.equal(state["state_dict.half"], weight.half())
    assert torch.equal(state["state_dict.part"], weight[1:, 1:])
    assert state["history"].tolist() == [0, 1, 2]
    assert checkpoint.foreign == {}


@pytest.mark.parametrize("protocol", range(6))
def test_a_plain_pickle_of_arrays(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "weights.pkl"
    path.write_bytes(pickle.dumps({"model": {"a": np.ones((2, 2), "f4"), "b": np.arange(3)}, "author": "us"}, protocol))
    state = open_checkpoint(path).all()
    assert state["model.a"].dtype == torch.float32
    assert state["model.b"].tolist() == [0, 1, 2]


class _FirstRebuild:
    """Pickles as PyTorch 0.1 to 0.3 wrote a tensor."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor = tensor

    def __reduce__(self) -> tuple[Any, ...]:
        storage = self.tensor.storage()
        return torch._utils._rebuild_tensor, (storage, 0, tuple(self.tensor.shape), self.tensor.stride())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.filterwarnings("ignore:TypedStorage")
def test_every_way_in_which_tensors_are_stored(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "x.pth"
    base = torch.arange(24.0).reshape(4, 6)
    content = {
        "v1": _FirstRebuild(base),
        "parameter": torch.nn.Parameter(base.clone()),
        "transposed": base.T,
        "part": base[1:3, ::2],
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 3),
        **{str(dtype): torch.tensor([0, 1, 2]).to(dtype) for dtype in (
            torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8,
            torch.uint8, torch.bool, torch.float8_e4m3fn, torch.uint16, torch.complex64,
        )},
    }  # fmt: skip
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    state = open_checkpoint(path).all()
    assert state.keys() == {key.replace("/", "") for key in content}
    for name, tensor in content.items():
        want = tensor.tensor if isinstance(tensor, _FirstRebuild) else tensor
        assert state[name].dtype == want.dtype
        assert state[name].shape == want.shape
        assert torch.equal(state[name].detach().to(torch.complex64), want.detach().to(torch.complex64))


def test_a_file_of_another_byte_order_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "big.pth"
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(2)}, buffer, _use_new_zipfile_serialization=False)
    path.write_bytes(buffer.getvalue().replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89"))
    with pytest.raises(CheckpointError, match="big-endian machine"):
        open_checkpoint(path)
