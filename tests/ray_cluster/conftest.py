"""One local Ray for the whole session, and the plans that are computed there."""

import logging
import os
from pathlib import Path

import pytest
import ray

from tests import served_net

ROOT = Path(__file__).parents[2]
plan = served_net.plan


@pytest.fixture(scope="session", autouse=True)
def cluster():
    # For its processes, which have the environment of this one: a runtime_env would start them anew, by an agent of its own.
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    os.environ["RAY_prestart_worker_first_driver"] = "0"  # noqa: SIM112  none before there is work for it
    ray.init(
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=256 << 20,
        logging_level=logging.ERROR,
        log_to_driver=False,
    )
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield
    ray.shutdown()
