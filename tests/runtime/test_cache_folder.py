"""Where things are kept between processes, by what the environment says."""

from pathlib import Path

import pytest

from miniinfer_cli.runtime.cache_folder import default_cache


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({}, "/home/one/.cache/miniinfer"),
        ({"XDG_CACHE_HOME": "/x"}, "/x/miniinfer"),
        ({"XDG_CACHE_HOME": "x"}, "/home/one/.cache/miniinfer"),  # the specification: one that is relative does not count
        ({"XDG_CACHE_HOME": "/x", "MINIINFER_CACHE": "/y"}, "/y"),
        ({"XDG_CACHE_HOME": "/x", "MINIINFER_CACHE": ""}, None),
    ],
)
def test_the_folder(environment: dict[str, str], folder: str | None, monkeypatch: pytest.MonkeyPatch):
    for name in ("XDG_CACHE_HOME", "MINIINFER_CACHE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/one", **environment}.items():
        monkeypatch.setenv(name, value)
    assert default_cache() == (None if folder is None else Path(folder))


def test_nobodys_home(monkeypatch: pytest.MonkeyPatch):
    def fail() -> Path:
        raise RuntimeError("no home")

    for name in ("XDG_CACHE_HOME", "MINIINFER_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", fail)
    assert default_cache() is None
