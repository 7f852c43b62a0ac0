"""Identifies a file that was given as weights but is not: by its first bytes, its name, and an archive's entries."""

import re
from collections.abc import Collection
from pathlib import Path

PICKLED = re.compile(rb"\x80[\x00-\x05]|\(dp|\(lp|\(d|\}q|\]q|c[A-Za-z_][\w.]*\r?\n[A-Za-z_][\w.]*\r?\n")
"""How pickles begin, including those of protocols 0 and 1, which have no marker."""

_ELSEWHERE = "look for PyTorch weights of the same network, or convert it to a PyTorch state dict where {} runs"

_FORMATS: tuple[tuple[bytes, str, str], ...] = (
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras and TensorFlow write", "Keras"),
    (b"MATLAB 7.3 MAT", "a MATLAB file", "MATLAB or SciPy"),
    (b"MATLAB 5.0 MAT", "a MATLAB file", "MATLAB or SciPy"),
    (b"\x12\x01\0\0\0\0\0\0", "an MXNet parameters file", "MXNet"),
    (b"\x04\0\0\0\x01\0\0\0", "a Torch7 one", "Lua Torch"),
    (b"\x03\0\0\0\x01\0\0\0", "a Torch7 one", "Lua Torch"),
    (b"ftrt", "a TensorRT engine, which holds compiled kernels rather than weights", "it was made"),
    (b"GGUF", "a GGUF file", "its converter"),
    (b"7767517\n", "an ncnn description", "ncnn"),
)
"""First bytes, the kind of file they indicate, and what runs it."""

_SUFFIXES: dict[str, tuple[str, str]] = {
    ".h5": ("an HDF5 file, as Keras and TensorFlow write", "Keras"),
    ".hdf5": ("an HDF5 file, as Keras and TensorFlow write", "Keras"),
    ".keras": ("a Keras file", "Keras"),
    ".pb": ("a TensorFlow graph", "TensorFlow"),
    ".meta": ("the graph of a TensorFlow checkpoint", "TensorFlow"),
    ".index": ("the index of a TensorFlow checkpoint", "TensorFlow"),
    ".tflite": ("a TensorFlow Lite model", "TensorFlow"),
    ".caffemodel": ("a Caffe model", "Caffe"),
    ".prototxt": ("a description of a Caffe network, without weights", "Caffe"),
    ".pdparams": ("a PaddlePaddle parameters file", "PaddlePaddle"),
    ".pdopt": ("the optimizer state of PaddlePaddle", "PaddlePaddle"),
    ".pdmodel": ("a PaddlePaddle program", "PaddlePaddle"),
    ".pdiparams": ("a PaddlePaddle parameters file", "PaddlePaddle"),
    ".params": ("an MXNet parameters file", "MXNet"),
    ".msgpack": ("a MessagePack file, as Flax writes", "Flax"),
    ".engine": ("a TensorRT engine, which holds compiled kernels rather than weights", "it was made"),
    ".plan": ("a TensorRT engine, which holds compiled kernels rather than weights", "it was made"),
    ".trt": ("a TensorRT engine, which holds compiled kernels rather than weights", "it was made"),
    ".mlmodel": ("a Core ML model", "coremltools"),
    ".weights": ("a Darknet weights file", "Darknet"),
    ".t7": ("a Torch7 one", "Lua Torch"),
}
"""The kind of file by its suffix, and what runs it. Used when the bytes do not tell."""


def is_pickle(start: bytes, path: Path) -> bool:
    """Return whether a file is a pickle, by its first bytes; those of other frameworks are not counted."""
    return PICKLED.match(start) is not None and path.suffix.lower() not in _SUFFIXES


def what_it_is(start: bytes, path: Path | None = None, *, entries: Collection[str] | None = None) -> str:
    """Describe what a file seems to be, and what to do with it: ``" but ..."``, or an empty string.

    Args:
        start: Its first bytes, a few hundred.
        path: Its path, for the suffix and the last bytes. None if only the first bytes are known.
        entries: Names of its entries, if it is a zip archive.
    """
    text = start.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    suffix = path.suffix.lower() if path is not None else ""
    if not start:
        return " but empty: the download or the copy went wrong, fetch it again"
    if start.startswith(b"version https://git-lfs"):
        return " but a Git LFS pointer: fetch the file itself with git lfs pull"
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<error")):
        return " but a web page: the download went wrong, or the address requires a login; fetch it again"
    if start.startswith(b"PK\x03\x04"):
        return _archive(entries, suffix)
    for magic, what, where in _FORMATS:
        if start.startswith(magic):
            return f" but {what}: {_ELSEWHERE.format(where)}"
    if start[4:8] == b"TFL3":
        return by_suffix(".tflite")
    if suffix == ".onnx" or re.match(rb"\x08[\x01-\x0f](\x12|\x1a|\x3a|\x42)", start):
        return (
            " but an ONNX model, a program rather than weights: take the PyTorch checkpoint that it was exported from"
        )
    if path is not None and re.search(r"\.data-\d+-of-\d+$", path.name):
        return f" but a part of a TensorFlow checkpoint: {_ELSEWHERE.format('TensorFlow')}"
    if suffix in _SUFFIXES:
        return by_suffix(suffix)
    if PICKLED.match(start):
        return " but a PyTorch checkpoint: poseglass import CHECKPOINT --out FILE.safetensors converts known ones"
    if start.startswith(b"\x93NUMPY"):
        return " but a single NumPy array: weights are many, each with a name; torch.save a dict of tensors"
    if start[257:262] == b"ustar":
        return (
            " but a tar archive, not a checkpoint (files named .pth.tar are not tar archives): unpack it and import "
            "the file inside; if PyTorch before 0.2 wrote it, load and save it again with any later version"
        )
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"7z\xbc\xaf", b"\x28\xb5\x2f\xfd", b"Rar!")):
        return " but a compressed archive: unpack it first"
    if start[8:9] == b"{" and start[0:1] != b"{" and int.from_bytes(start[:8], "little") < 2**32:
        return " but a safetensors file"
    if path is not None and _ends_with(path, b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"):
        return f" but the table of a TensorFlow checkpoint: {_ELSEWHERE.format('TensorFlow')}"
    if re.match(rb"[\x81-\x8f\xde\xdf].{0,4}?[\xa1-\xbf\xd9]", start, re.DOTALL) and suffix not in (".pth", ".pt"):
        return by_suffix(".msgpack")
    if text.startswith((b"{", b"[")) and _is_text(start):
        index = " (it lists the parts of a model that was saved in several files: import needs one file)"
        return f" but JSON text{index if b'weight_map' in start else ''}"
    if _is_text(start):
        return " but text"
    if suffix == ".ckpt":
        return f" but seems to be a TensorFlow checkpoint: {_ELSEWHERE.format('TensorFlow')}"
    return ""


def folder_kind(path: Path) -> str:
    """Describe what a folder seems to be, and what to do with it: ``", ..."``, or an empty string."""
    if (path / "recipe.toml").is_file():
        return f", which holds a run of poseglass: its weights are {path / 'best.safetensors'}, used as they are"
    if (path / "saved_model.pb").is_file():
        return f", a TensorFlow SavedModel: {_ELSEWHERE.format('TensorFlow')}"
    if (path / ".metadata").is_file():
        return (
            ", a distributed checkpoint of PyTorch: convert it to one file with "
            "`python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE.pth`"
        )
    if (path / "data.pkl").is_file():
        return ", an unpacked checkpoint: give the file that it was unpacked from"
    files = sorted(p.name for p in path.iterdir() if p.suffix in (".pth", ".pt", ".tar", ".safetensors", ".ckpt"))
    return f": give a file in it, such as {files[0]}" if files else ""


def by_suffix(suffix: str) -> str:
    """Describe files with a known suffix, and what to do with them: ``" but ..."``."""
    what, where = _SUFFIXES[suffix]
    return f" but {what}: {_ELSEWHERE.format(where)}"


def _archive(entries: Collection[str] | None, suffix: str) -> str:
    """Describe a zip archive; empty if ``torch.save`` may have written it, or its entries are unknown."""
    leaves = {name.rpartition("/")[2] for name in entries or ()}
    if suffix == ".keras" or {"model.weights.h5", "metadata.json"} <= leaves:
        return by_suffix(".keras")
    if entries is None:
        return " but a PyTorch checkpoint: poseglass import CHECKPOINT --out FILE.safetensors converts known ones"
    if "constants.pkl" in leaves:
        return (
            " but a TorchScript archive, a program rather than weights: where its code runs, save the weights with "
            "torch.save(torch.jit.load(path).state_dict(), 'weights.pth')"
        )
    if leaves & {"serialized_exported_program.json", "archive_format"}:
        return (
            " but a program that torch.export wrote: save the weights with "
            "torch.save(torch.export.load(path).state_dict, 'weights.pth')"
        )
    if "data.pkl" in leaves:
        return ""
    if leaves and all(name.endswith(".npy") for name in leaves):
        return (
            " but an archive of NumPy arrays (.npz): convert it with torch.save({name: torch.from_numpy(value) for "
            "name, value in numpy.load(path).items()}, 'weights.pth')"
        )
    inside = [name for name in entries if name.endswith((".pth", ".pt", ".tar", ".safetensors", ".ckpt", ".pkl"))]
    if inside:
        return f" but a zip archive that contains {inside[0]}: unpack it and import that file"
    return " but a zip archive, not one that torch.save wrote: unpack it if it contains one"


def _ends_with(path: Path, tail: bytes) -> bool:
    try:
        with path.open("rb") as file:
            file.seek(-len(tail), 2)
            return file.read() == tail
    except OSError:
        return False


def _is_text(start: bytes) -> bool:
    if b"\0" in start:
        return False
    try:
        start.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data" and len(start) >= 500  # cut in the middle of a character
    return True
