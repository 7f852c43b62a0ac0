"""The pickle machine: what it reads as data, and that nothing which a file says is ever run."""

import argparse
import collections
import difflib
import fractions
import functools
import hashlib
import html
import io
import json
import math
import operator
import optparse
import pickle
import platform
import statistics
import struct
import sys
import textwrap
import types
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poseglass.checkpoints.checkpoint import open_checkpoint
from poseglass.core.pickled import CodeFound, Foreign, Named, PickleError, PickleReader, Storage, Truncated
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


@pytest.mark.parametrize(
    "what",
    [
        math.cos, operator.add, max, abs, optparse.Values(), functools.partial(math.pow, 2), ValueError("x"),
        platform.uname(), statistics.mean, textwrap.dedent, json.dumps, io.BytesIO, torch.nn.Linear(1, 1).eval,
        fractions.Fraction(1, 2), difflib.ndiff, html.escape, hashlib.sha256,
    ],
    ids=lambda what: getattr(what, "__qualname__", type(what).__name__),
)  # fmt: skip
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_functions_that_do_no_harm_are_only_names(what: Any, protocol: int) -> None:
    read({"extra": what}, protocol)


@pytest.mark.parametrize(
    ("module", "name"),
    [("io", "open"), ("_io", "FileIO"), ("codecs", "open"), ("posix", "mkdir"), ("builtins", "setattr"),
     ("tempfile", "mkdtemp"), ("urllib.request", "urlopen"), ("builtins", "eval.__call__")],
)  # fmt: skip
def test_functions_that_reach_files_and_networks_are_named(module: str, name: str) -> None:
    with pytest.raises(CodeFound, match=rf"^{module}\.{name}$"):
        PickleReader(op_global(module, name) + b".").load()


@pytest.mark.parametrize("name", ["os", "system", "sys.modules", "__globals__"])
def test_attributes_that_lead_to_functions_that_act_are_named(name: str) -> None:
    text = op_global("builtins", "getattr") + op_global("torch", "serialization")
    with pytest.raises(CodeFound, match=rf"^builtins\.getattr, {name}$"):
        PickleReader(text + b"S'" + name.encode() + b"'\n\x86R.").load()
    assert isinstance(PickleReader(text + b"S'load'\n\x86R.").load(), Foreign)


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
    with pytest.raises(PickleError, match=r"copies more than it holds|TypeError"):
        PickleReader(copies + b".").load()
    pairs = b"]q\x00(" + b"K\x01K\x02\x86" * 1000 + b"e" + (op_global("builtins", "list") + b"h\x00\x85R0") * 500
    with pytest.raises(PickleError, match="copies more than it holds"):
        PickleReader(pairs + b".").load()


MANY = b"(" + b"N" * 100_000 + b"tq\x00"
ZEROS = b"B" + struct.pack("<I", 100_000) + bytes(100_000) + b"q\x00"
BYTES = (
    op_global("numpy", "dtype") + b"S'u1'\n\x85Rq\x01" + op_global("numpy.core.multiarray", "_reconstruct") + b"q\x02"
)
OVER_AND_OVER = {
    "a list of a tuple": MANY + (op_global("builtins", "list") + b"h\x00\x85R") * 1000,
    "a set of a tuple": MANY + (op_global("builtins", "set") + b"h\x00\x85R") * 1000,
    "a size": MANY + (op_global("torch", "Size") + b"h\x00\x85R") * 1000,
    "arguments": MANY + (op_global("torch", "device") + b"h\x00R") * 1000,
    "arguments with words": MANY + (op_global("a", "b") + b"h\x00}\x92") * 1000,
    "a dict of pairs": b"(" + b"K\x01K\x02\x86" * 50_000 + b"tq\x00"
    + (op_global("collections", "OrderedDict") + b"h\x00\x85R") * 1000,
    "a tensor with attributes": MANY
    + (op_global("torch._tensor", "_rebuild_from_type_v2") + b"(" + op_global("builtins", "list") + b"Nh\x00\x85NtR")
    * 1000,
    "an array": ZEROS + BYTES + b"h\x02)R(K\x01J\xa0\x86\x01\x00\x85h\x01\x89h\x00tb" * 1000,
    "an array's state in a list": ZEROS + BYTES + b"h\x02)R(K\x01J\xa0\x86\x01\x00\x85h\x01\x89h\x00lb" * 1000,
    "a parameter": MANY + (op_global("torch.nn.parameter", "Parameter") + b")\x81h\x00b") * 1000,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("text", OVER_AND_OVER.values(), ids=OVER_AND_OVER.keys())
def test_nothing_is_copied_over_and_over(text: bytes) -> None:
    reader = PickleReader(text + b".")
    with pytest.raises(PickleError, match="copies more than it holds"):
        reader.load()
    assert reader.at < len(text) - 5_000  # after a few of the calls


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            op_global("builtins", "bytearray") + b"\x8a\x05" + (10**11).to_bytes(5, "little") + b"\x85R.",
            "bytes of a int",
        ),
        (op_global("a" * 2000, "b") + b".", "names a class by 2,001 characters"),
    ],
)
def test_a_few_bytes_cannot_make_many(text: bytes, says: str) -> None:
    with pytest.raises(PickleError, match=says):
        PickleReader(text).load()


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_that_are_most_of_a_file_are_not_too_much(protocol: int) -> None:
    arrays = [np.full(50_000, 65, "u1"), np.full(50_000, 66, "u1")]
    assert [stored.shape for stored in read(arrays, protocol)] == [(50_000,), (50_000,)]
    parts = ["a folder with quite a long name", "x.jpg"]
    assert len(read([PurePosixPath(*parts) for _ in range(3000)], protocol)) == 3000  # one text, held 3,000 times


@pytest.mark.parametrize(
    ("size", "stride"),
    [((2**61, 2**61), (1, 1)), ((2**60,), (1,)), ((1,) * 65, (1,) * 65), ((0, 2**61, 2**61), (1,) * 3)],
)
def test_a_shape_that_no_file_can_hold_is_not_believed(size: tuple[int, ...], stride: tuple[int, ...]) -> None:
    storage = Storage(torch.float32, "0", 1)
    text = op_global("torch._utils", "_rebuild_tensor") + b"(Nq\x00QK\x00"
    text += pickle.dumps(size, 2)[2:-1] + pickle.dumps(stride, 2)[2:-1] + b"tR."
    with pytest.raises(PickleError, match="a shape that no file can hold"):
        PickleReader(text, persistent=lambda what: storage).load()


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
