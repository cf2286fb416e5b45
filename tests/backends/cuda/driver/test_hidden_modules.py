"""A module that is hidden from one thread is there for all others."""

import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from miniinfer_cli.backends.cuda.driver import cudnn as binding
from miniinfer_cli.backends.cuda.driver.cudnn import Cudnn
from miniinfer_cli.backends.cuda.driver.hidden_modules import hidden

FRONT_END = """
import threading

class cudnnGraphNotSupportedError(Exception):
    pass

def backend_version_string():
    return "9.0"

found = {}

def find(who):
    try:
        import torch
        found[who] = torch.loaded
    except ImportError as error:
        found[who] = error.name

find("the front end")
thread = threading.Thread(target=find, args=["another thread"])
thread.start()
thread.join()
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A torch and a front end that imports it, in a folder of their own; neither is loaded afterwards."""
    (tmp_path / "torch.py").write_text("loaded = 'yes'\n")
    (tmp_path / "cudnn.py").write_text(FRONT_END)
    monkeypatch.syspath_prepend(tmp_path)
    before = {name: sys.modules.pop(name) for name in ("torch", "cudnn") if name in sys.modules}
    yield
    for name in ("torch", "cudnn"):
        sys.modules.pop(name, None)
    sys.modules.update(before)


@pytest.mark.usefixtures("installed")
def test_cudnn_does_not_see_torch_while_another_thread_imports_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(binding, "load_library", lambda name: None)
    device: Any = SimpleNamespace(make_current=lambda: None)
    with Cudnn(device) as made:
        assert made._cudnn.found == {"the front end": "torch", "another thread": "yes"}


@pytest.mark.usefixtures("installed")
def test_what_is_hidden_is_there_again_afterwards():
    finders = len(sys.meta_path)
    for _ in range(2):
        with hidden("torch"), hidden("cudnn"):
            with pytest.raises(ModuleNotFoundError, match="No module named 'torch'"):
                import torch
            with pytest.raises(ModuleNotFoundError, match="No module named 'cudnn'"):
                import cudnn  # noqa: F401
        assert len(sys.meta_path) <= finders + 1
    import torch

    with hidden("torch"):
        import torch as again  # loaded already
    assert again is torch


def test_what_is_hidden_in_one_thread_ends_with_an_error_in_it():
    with pytest.raises(RuntimeError), hidden("wave"):
        raise RuntimeError
    sys.modules.pop("wave", None)
    import wave

    assert threading.current_thread() and wave.open
