"""One rule for where the cache lies, on every system."""

import sys
from pathlib import Path

import platformdirs
import pytest

from poseglass.core import folders
from poseglass.core.folders import cache_folder


def test_the_variable_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("POSEGLASS_CACHE", str(tmp_path / "mine"))
    assert cache_folder("weights") == tmp_path / "mine" / "weights"
    assert cache_folder("crops") == tmp_path / "mine" / "crops"
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("POSEGLASS_CACHE", "~/cache")
    assert cache_folder("weights") == tmp_path / "home" / "cache" / "weights"


@pytest.mark.skipif(sys.platform != "linux", reason="XDG is Linux's")
def test_the_user_s_cache_on_linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("POSEGLASS_CACHE", "")  # as if it were not set
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder("crops") == tmp_path / "xdg" / "poseglass" / "crops"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder("crops") == tmp_path / "home" / ".cache" / "poseglass" / "crops"
    assert not (tmp_path / "home").exists()  # nothing is made by asking


@pytest.mark.parametrize(
    ("system", "name", "expected"),
    [("macos", "MacOS", "Library/Caches/poseglass/weights"), ("windows", "Windows", "AppData/Local/poseglass/weights")],
)
def test_other_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, system: str, name: str, expected: str) -> None:
    module = pytest.importorskip(f"platformdirs.{system}")
    for variable in ("POSEGLASS_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    if system == "windows":
        monkeypatch.setattr(module, "get_win_folder", lambda _: str(tmp_path / "AppData" / "Local"))

    def asked(application: str, **options: bool) -> Path:
        return getattr(module, name)(application, **options).user_cache_path

    monkeypatch.setattr(folders, "user_cache_path", asked)
    found = Path(str(cache_folder("weights")).replace("\\", "/"))
    assert found == tmp_path / expected


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSEGLASS_CACHE", raising=False)
    monkeypatch.setattr(folders, "user_cache_path", lambda *_, **__: Path("~/.cache/poseglass"))
    with pytest.raises(
        FileNotFoundError, match=r"no home folder\. Set POSEGLASS_CACHE to a folder where poseglass can keep crops"
    ):
        cache_folder("crops")
    monkeypatch.setenv("POSEGLASS_CACHE", "~nobody-of-this-name/cache")
    with pytest.raises(FileNotFoundError, match=r"no home folder"):
        cache_folder("crops")


def test_it_is_platformdirs_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POSEGLASS_CACHE", raising=False)
    assert cache_folder("a").parent == Path(platformdirs.user_cache_dir("poseglass", False, opinion=False))
