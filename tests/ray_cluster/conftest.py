"""One local Ray for the whole session, and the plan that is computed there."""

import pytest
import ray

from tests import served_net
from tests.ray_cluster.local import local_ray

plan = served_net.plan


@pytest.fixture(scope="session", autouse=True)
def cluster():
    with local_ray():
        ray.data.DataContext.get_current().enable_progress_bars = False
        yield
