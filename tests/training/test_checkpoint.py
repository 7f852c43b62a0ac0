import errno
import os
import pickle
from pathlib import Path

import pytest
import torch

from poseglass.training.checkpoint import load_checkpoint, save_checkpoint


def test_round_trip(tmp_path):
    state = {"network": {"w": torch.arange(6).view(2, 3).float()}, "progress": {"step": 3, "best": float("-inf")}}
    save_checkpoint(tmp_path / "c.pt", state)
    back = load_checkpoint(tmp_path / "c.pt")
    assert torch.equal(back["network"]["w"], state["network"]["w"])
    assert back["progress"] == state["progress"]
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


def test_a_full_disk_leaves_the_one_before(tmp_path, monkeypatch):
    save_checkpoint(tmp_path / "c.pt", {"step": 1})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device"):
        save_checkpoint(tmp_path / "c.pt", {"step": 2})
    assert load_checkpoint(tmp_path / "c.pt")["step"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]


class Evil:
    def __reduce__(self):
        return Path.touch, (Path("evil"),)


@pytest.mark.parametrize("content", [b"", b"text", pickle.dumps(Evil()), None])
def test_what_is_not_a_checkpoint_is_refused_without_running_it(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "c.pt"
    if content is None:
        torch.save({"evil": Evil()}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"c.pt is not a complete training checkpoint"):
        load_checkpoint(path)
    assert not (tmp_path / "evil").exists()


def test_every_truncation_is_noticed(tmp_path):
    path = tmp_path / "c.pt"
    save_checkpoint(path, {"w": torch.randn(300)})
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(ValueError, match="is not a complete training checkpoint"):
            load_checkpoint(path)


def test_another_format_is_refused(tmp_path):
    torch.save({"format": 99}, tmp_path / "c.pt")
    with pytest.raises(ValueError, match="not a training checkpoint of this version"):
        load_checkpoint(tmp_path / "c.pt")
    torch.save([1], tmp_path / "c.pt")
    with pytest.raises(ValueError, match="not a training checkpoint of this version"):
        load_checkpoint(tmp_path / "c.pt")


def test_no_checkpoint(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"the run ended before it wrote its first"):
        load_checkpoint(tmp_path / "c.pt")
