"""One local Ray for the whole session, and the plans that are computed there."""

import logging
import os
from pathlib import Path

import pytest
import ray

import miniinfer_cli
from tests.ray_cluster.networks import net

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def plan(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "net.plan"
    miniinfer_cli.build(net(), path)
    return path


@pytest.fixture(scope="session", autouse=True)
def cluster():
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    ray.init(
        num_cpus=6,
        include_dashboard=False,
        object_store_memory=256 << 20,
        logging_level=logging.ERROR,
        log_to_driver=False,
        runtime_env={"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}},
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()
