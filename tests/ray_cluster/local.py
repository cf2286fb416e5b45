"""A Ray of this machine alone, and an engine behind Ray's own batching, which ours is compared with."""

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import ray
from ray import serve

import miniinfer_cli

ROOT = Path(__file__).parents[2]
BATCH = 32
DELAY_MS = 2.0


@contextlib.contextmanager
def local_ray() -> Iterator[None]:
    """Ray with four places for work, whose processes import from here."""
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
    try:
        yield
    finally:
        ray.shutdown()


class RaysBatching:
    """A replica that puts batches together by ``@serve.batch``, of as many rows and as long as ours in the tests."""

    def __init__(self, path: str) -> None:
        self.engine = miniinfer_cli.load(path, "cpu", threads=1)
        self.sizes: list[int] = []

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=DELAY_MS / 1e3)
    async def infer(self, given: list[dict[str, Any]]) -> list[dict[str, Any]]:
        self.sizes.append(len(given))
        outputs = self.engine.run({name: np.concatenate([g[name] for g in given]) for name in given[0]})
        return [{name: array[n : n + 1] for name, array in outputs.items()} for n in range(len(given))]

    async def batch_sizes(self) -> list[int]:
        """How many requests each batch so far had."""
        return self.sizes


def rays_batching(plan: Path) -> Any:
    """The application of it, with room for as many requests as ours has."""
    return serve.deployment(RaysBatching, max_ongoing_requests=4 * BATCH).bind(str(plan))
