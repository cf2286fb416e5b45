"""Libraries that are there, absent or broken."""

import ctypes.util
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from miniinfer_cli.backends.cuda.driver.library_loading import load_library
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
