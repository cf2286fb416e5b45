"""A cache of plans for each test."""

import pytest


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("MINIINFER_CACHE", str(folder))
    monkeypatch.delenv("MINIINFER_ORT_PLUGINS", raising=False)
    return folder
