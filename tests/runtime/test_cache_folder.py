"""Where things are kept between processes, by what the environment says."""

from pathlib import Path

import pytest

from miniinfer_cli.errors import UsageError
from miniinfer_cli.runtime.cache_folder import cache_options, default_cache


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


def sizes() -> tuple[int, int]:
    options = cache_options()
    return options["kernel_cache_mib"], options["tactic_cache_mib"]


SIZES = ("MINIINFER_KERNEL_CACHE_MIB", "MINIINFER_TACTIC_CACHE_MIB")


def test_sizes(monkeypatch: pytest.MonkeyPatch):
    for name in SIZES:
        monkeypatch.delenv(name, raising=False)
    assert sizes() == (1024, 64)
    monkeypatch.setenv(SIZES[0], "0")
    monkeypatch.setenv(SIZES[1], "5")
    assert sizes() == (0, 5)
    monkeypatch.setenv(SIZES[0], "")
    assert sizes() == (1024, 5)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("text", ["-1", "1.5", "many", "1073741825", "9" * 5000, "\u0663"])
def test_what_is_no_size(name: str, text: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(name, text)
    with pytest.raises(UsageError, match=f"^{name}: expected MiB as a whole number up to 1073741824, got "):
        cache_options()
