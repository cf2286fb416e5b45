"""Weights that a plan holds once, as several nodes read them on a GPU."""

from pathlib import Path

import pytest

import miniinfer_cli
from tests.backends.cuda.checked_runs import assert_same
from tests.planning.test_shared_weights import FEEDS, MODELS


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("written", [False, True])
def test_shared_weights(name: str, written: bool, tmp_path: Path) -> None:
    path = tmp_path / "m.plan"
    plan = miniinfer_cli.build(MODELS[name], path, tf32=False)
    source = path if written else plan
    with miniinfer_cli.load(source, "cuda:0") as engine, miniinfer_cli.load(source, "cpu") as reference:
        assert_same(engine.run(FEEDS), reference.run(FEEDS))
