"""Libraries that are there, absent or broken."""

import ctypes.util
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from miniinfer_cli.backends.cuda.driver import library_loading
from miniinfer_cli.backends.cuda.driver.library_loading import LoadingAhead, load_library
from miniinfer_cli.errors import DeviceError


def use_pathfinder(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    """Lets ``answer`` be where a library is found, or what is raised when one is looked for."""

    def load(name: str) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return SimpleNamespace(abs_path=answer)

    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(pathfinder=SimpleNamespace(load_nvidia_dynamic_lib=load)))  # type: ignore[arg-type]
    load_library.cache_clear()


@pytest.fixture(autouse=True)
def forget_what_was_loaded() -> Any:
    yield
    load_library.cache_clear()


def test_a_library_is_loaded_once(monkeypatch: pytest.MonkeyPatch):
    path = ctypes.util.find_library("c")
    assert path is not None
    use_pathfinder(monkeypatch, path)
    library = load_library("c")
    assert library.abs(-3) == 3 and load_library("c") is library


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            RuntimeError("No such file: libcudnn.so.9\nmore"),
            "cudnn library was not found or cannot be loaded: No such file: libcud",
        ),
        (ChildProcessError(), "cudnn library was not found or cannot be loaded: ChildProcessError"),
        (None, "the cudnn library was loaded from an unknown place"),
        ("/nowhere/libcudnn.so.9", "/nowhere/libcudnn.so.9 cannot be loaded"),
    ],
    ids=["absent", "no probe", "no path", "broken"],
)
def test_the_error_says_how_to_get_it(answer: Any, message: str, monkeypatch: pytest.MonkeyPatch):
    use_pathfinder(monkeypatch, answer)
    with pytest.raises(DeviceError, match=message) as caught:
        load_library("cudnn")
    assert caught.value.hint == "pip install 'miniinfer[cuda]'"


def test_without_pathfinder(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cuda", None)  # type: ignore[arg-type]
    load_library.cache_clear()
    with pytest.raises(DeviceError, match="cuda-pathfinder is not installed"):
        load_library("cudnn")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels, with what is made in it."""
    monkeypatch.setattr(library_loading, "wheel_folders", lambda: [tmp_path / "none", tmp_path])
    library = tmp_path / "empty.so"
    subprocess.run([os.environ.get("CXX", "g++"), "-shared", "-x", "c++", "/dev/null", "-o", library], check=True)
    for name in ("cu13/lib/libcublasLt.so.13", "cudnn/lib/libcudnn.so.9", "cudnn/lib/libcudnn_graph.so.9"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, tmp_path / name)
    return tmp_path


def loaded_from(folder: Path) -> set[str]:
    """The names of what is loaded out of a folder."""
    maps = Path("/proc/self/maps").read_text().splitlines()
    return {Path(path).name for line in maps for path in line.split()[5:] if path.startswith(str(folder))}


def test_libraries_and_their_parts_are_loaded_ahead_from_their_wheels(wheels: Path) -> None:
    LoadingAhead(()).wait()
    assert loaded_from(wheels) == set()
    ahead = LoadingAhead(("cublasLt", "cudnn", "nowhere"))
    ahead.wait()
    ahead.wait()
    assert loaded_from(wheels) == {"libcublasLt.so.13", "libcudnn.so.9", "libcudnn_graph.so.9"}


def test_which_of_two_is_not_guessed_and_what_is_broken_is_left(wheels: Path) -> None:
    shutil.copy(wheels / "empty.so", wheels / "cu13/lib/libcublasLt.so.12")
    (wheels / "cudnn/lib/libcudnn_graph.so.9").write_bytes(b"no library")
    LoadingAhead(("cublasLt", "cudnn")).wait()
    assert loaded_from(wheels) == {"libcudnn.so.9"}


def test_what_another_package_has_loaded_is_not_loaded_again(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[bytes, int]] = []

    class Load:
        def __call__(self, name: bytes, mode: int) -> int | None:
            asked.append((name, mode))
            return 1 if mode & os.RTLD_NOLOAD and b"cudnn" in name else None

    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(dlopen=Load()))
    LoadingAhead(("cublasLt", "cudnn")).wait()
    here, now = os.RTLD_NOW | os.RTLD_NOLOAD, os.RTLD_NOW
    assert asked == [
        (b"libcublasLt.so.13", here),
        (bytes(wheels / "cu13/lib/libcublasLt.so.13"), now),
        (b"libcudnn.so.9", here),  # whose parts are then its own
    ]


def test_no_memory_for_a_thread_is_no_error(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(thread: threading.Thread) -> None:
        raise MemoryError

    monkeypatch.setattr(library_loading, "start_thread", start)
    LoadingAhead(("cublasLt",)).wait()
    assert loaded_from(wheels) == set()
