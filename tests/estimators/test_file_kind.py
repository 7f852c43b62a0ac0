"""What a file is that was given as a checkpoint and is none."""

import io
import json
import pickle
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from poseglass.checkpoints.checkpoint import open_checkpoint
from poseglass.estimators.weights_file import CheckpointError, read_weights


def zip_of(*names: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"x")
    return buffer.getvalue()


def npz() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(2), b=np.ones(3))
    return buffer.getvalue()


def npy() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.ones(2))
    return buffer.getvalue()


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"), io.BytesIO())
    return buffer.getvalue()


def scripted() -> bytes:
    return zip_of("net/data.pkl", "net/constants.pkl", "net/code/__torch__.py", "net/version")


def saved(**how: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.arange(200.0)}, buffer, **how)
    return buffer.getvalue()


HDF5 = b"\x89HDF\r\n\x1a\n" + bytes(100)
ONNX = b"\x08\x07\x12\x07pytorch\x1a\x032.1" + b":\x90\x03" + bytes(40)
TABLE = bytes(300) + b"\x57\xfb\x80\x8b\x24\x75\x47\xdb"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
PADDLE = pickle.dumps({"conv.weight": np.ones(2, "f4"), "StructuredToParameterName@@": {"conv.weight": "p0"}}, 2)
FLAX = b"\x81\xa6params\x81\xa5conv1\x81\xa6kernel\xc7\x10\x01" + bytes(range(120, 220))

KINDS = {
    "keras": ("weights.h5", HDF5, "an HDF5 file, as Keras .*: look for PyTorch weights .* where Keras runs"),
    "keras named pth": ("weights.pth", HDF5, "an HDF5 file, as Keras"),
    "keras 3": ("net.keras", zip_of("metadata.json", "config.json", "model.weights.h5"), "a Keras file"),
    "tensorflow graph": ("frozen.pb", b"\n\x1f\n\x05input\x12\x0bPlaceholder" + bytes(20), "a TensorFlow graph"),
    "tensorflow data": ("model.ckpt.data-00000-of-00001", bytes(range(256)), "a part of a TensorFlow checkpoint"),
    "tensorflow index": ("model.ckpt.index", TABLE, "the index of a TensorFlow checkpoint"),
    "tensorflow 1": ("model.ckpt", TABLE, "the table of a TensorFlow checkpoint"),
    "tensorflow ckpt": ("model.ckpt", bytes(range(200, 256)) * 3, "seems to be a TensorFlow checkpoint"),
    "tensorflow lite": ("model.bin", b"\x1c\0\0\0TFL3" + bytes(40), "a TensorFlow Lite model"),
    "caffe": ("net.caffemodel", b"\n\x07hrnet32" + bytes(40), "a Caffe model"),
    "caffe text": ("deploy.prototxt", b'name: "net"\nlayer {}\n', "a description of a Caffe network, without weights"),
    "paddle": ("hrnet.pdparams", PADDLE, "a PaddlePaddle parameters file"),
    "paddle named pth": ("hrnet.pth", PADDLE, "a PaddlePaddle parameters file"),
    "mxnet": ("net-0000.params", b"\x12\x01\0\0\0\0\0\0" + bytes(40), "an MXNet parameters file"),
    "mxnet named pth": ("net.pth", b"\x12\x01\0\0\0\0\0\0" + bytes(40), "an MXNet parameters file"),
    "onnx": ("net.onnx", ONNX, "an ONNX model, a program .*: take the PyTorch checkpoint"),
    "onnx named pth": ("net.pth", ONNX, "an ONNX model"),
    "torchscript": ("net.pt", scripted(), r"a TorchScript archive, .*torch\.jit\.load"),
    "exported": (
        "net.pt2",
        zip_of("net/archive_format", "net/models/model.json"),
        r"a program that torch\.export wrote",
    ),
    "npz": (
        "net.npz",
        npz(),
        r"an archive of NumPy arrays \(\.npz\): convert it with torch\.save\(\{name: torch\.from_numpy",
    ),
    "npy": ("net.npy", npy(), "a single NumPy array"),
    "flax": ("net.msgpack", FLAX, "a MessagePack file, as Flax"),
    "flax without suffix": ("checkpoint_9", FLAX, "a MessagePack file, as Flax"),
    "tensorrt": ("net.engine", b"ftrt" + bytes(40), "a TensorRT engine, which holds compiled kernels"),
    "tensorrt named pth": ("net.pth", b"ftrt" + bytes(40), "a TensorRT engine"),
    "zip of a checkpoint": (
        "net.zip",
        zip_of("readme.txt", "a/net.pth"),
        r"a zip archive that contains a/net\.pth: unpack",
    ),
    "zip": ("net.zip", zip_of("readme.txt"), r"a zip archive, not one that torch\.save wrote"),
    "tar": ("net.pth.tar", tar(), "a tar archive"),
    "gzip": ("net.pth.gz", b"\x1f\x8b\x08" + bytes(40), "a compressed archive: unpack it first"),
    "lfs": ("net.pth", LFS, "a Git LFS pointer: .*git lfs pull"),
    "html": ("net.pth", b"\n <!DOCTYPE html><html><title>Sign in</title>", "a web page: the download went wrong"),
    "xml": ("net.pth", b'<?xml version="1.0"?><Error><Code>NoSuchKey</Code></Error>', "a web page"),
    "empty": ("net.pth", b"", "empty: .*fetch it again"),
    "json": ("net.pth", b'{"a": 1}', "JSON text"),
    "shards": (
        "model.safetensors.index.json",
        json.dumps({"weight_map": {"a": "x"}}).encode(),
        r"JSON text \(it lists the",
    ),
    "text": ("net.pth", "Voilà, no weights.\n".encode(), "text"),
    "darknet": ("yolo.weights", b"\0\0\0\0\x02\0\0\0" + bytes(range(100)), "a Darknet weights file"),
    "matlab": ("net.mat", b"MATLAB 5.0 MAT-file, Platform" + bytes(90), "a MATLAB file"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_other_files_are_named_with_what_to_do(tmp_path: Path, kind: str) -> None:
    name, content, says = KINDS[kind]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{name} is not a checkpoint but {says}"):
        open_checkpoint(path)
    if "paddle" not in kind:  # of a pickle only import looks inside
        with pytest.raises(CheckpointError, match=rf"{name} is not a safetensors file but {says}"):
            read_weights(path)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.999])
def test_truncated_checkpoints_say_so(tmp_path: Path, zipped: bool, share: float) -> None:
    whole = saved(_use_new_zipfile_serialization=zipped)
    path = tmp_path / "cut.pth"
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(CheckpointError, match=r"cut\.pth is a truncated .*Fetch it again"):
        open_checkpoint(path)


def test_folders_are_named_with_what_to_do(tmp_path: Path) -> None:
    for inside, says in (
        ("recipe.toml", r", which holds a run of poseglass: its weights are .*best\.safetensors"),
        ("saved_model.pb", ", a TensorFlow SavedModel: look for"),
        (".metadata", ", a distributed checkpoint of PyTorch: .*dcp_to_torch"),
        ("data.pkl", ", an unpacked checkpoint"),
        ("net.pth", r": give a file in it, such as net\.pth"),
        ("readme.txt", r"\.$"),
    ):
        folder = tmp_path / f"with-{inside}"
        folder.mkdir()
        (folder / inside).touch()
        with pytest.raises(CheckpointError, match=rf"Expected a checkpoint file, got a folder: \S+{says}"):
            open_checkpoint(folder)


@pytest.mark.filterwarnings("ignore")
def test_a_real_torchscript_archive(tmp_path: Path) -> None:
    path = tmp_path / "scripted.pth"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(path))
    with pytest.raises(CheckpointError, match="TorchScript archive"):
        open_checkpoint(path)
