"""Requests by handles to a replica of Ray Serve: our Batcher beside Ray's `@serve.batch` around the same engine, in turns.

    python -m tests.benchmarks.ray_batching [--pairs 40] [--requests 240] [--at-once 96]

The outputs of both are compared first. Then: requests a second of each, medians, the ratio of these, and quartiles
of the pairs' ratios.
"""

import argparse
import asyncio
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from ray import serve

import miniinfer_cli
from miniinfer_cli.integrations.ray import deployment
from tests.ray_cluster.local import BATCH, DELAY_MS, local_ray, rays_batching
from tests.served_net import net, requests


def expect_equal(handles: dict[str, Any], plan: Path, given: list[dict[str, Any]]) -> None:
    """Each request's outputs are those of the engine, from both."""
    with miniinfer_cli.load(plan, "cpu") as engine:
        expected = [engine.run(inputs) for inputs in given]
    for handle in handles.values():
        responses = [handle.infer.remote(inputs) for inputs in given]
        for response, own in zip(responses, expected, strict=True):
            found = response.result(timeout_s=60)
            np.testing.assert_allclose(found["y"], own["y"], rtol=1e-5)
            np.testing.assert_array_equal(found["best"], own["best"])


async def rate(handle: Any, given: list[dict[str, Any]], count: int, at_once: int) -> float:
    """Requests a second of ``count``, of which ``at_once`` are under way at most."""
    places = asyncio.Semaphore(at_once)

    async def call(number: int) -> None:
        async with places:
            await handle.infer.remote(given[number % len(given)])

    begun = time.perf_counter()
    await asyncio.gather(*(call(number) for number in range(count)))
    return count / (time.perf_counter() - begun)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--requests", type=int, default=240)
    parser.add_argument("--at-once", type=int, default=3 * BATCH)
    asked = parser.parse_args()
    columns = requests(BATCH)
    given = [{name: array[n : n + 1] for name, array in columns.items()} for n in range(BATCH)]
    with tempfile.TemporaryDirectory() as folder, local_ray():
        plan = Path(folder, "net.plan")
        miniinfer_cli.build(net(), plan)
        serve.start(proxy_location="Disabled")
        logging.getLogger("ray.serve").setLevel(logging.ERROR)
        try:
            handles = {
                "ours": serve.run(deployment(plan, max_batch=BATCH, max_delay_ms=DELAY_MS), name="ours", route_prefix=None),
                "Ray's": serve.run(rays_batching(plan), name="theirs", route_prefix=None),
            }
            expect_equal(handles, plan, given)
            rates: dict[str, list[float]] = {name: [] for name in handles}
            for turn in range(asked.pairs + 1):  # the first warms up
                for name in sorted(handles, reverse=bool(turn % 2)):
                    found = asyncio.run(rate(handles[name], given, asked.requests, asked.at_once))
                    rates[name] += [found] if turn else []
        finally:
            serve.shutdown()
    ours, theirs = rates["ours"], rates["Ray's"]
    pairs = sorted(a / b for a, b in zip(ours, theirs, strict=True))
    for name, of_one in rates.items():
        print(f"{name}: {statistics.median(of_one):.0f} requests/s")
    low, _, high = statistics.quantiles(pairs, n=4)
    ratio = statistics.median(ours) / statistics.median(theirs)
    print(f"ours beside Ray's: {ratio:.3f}; of {asked.pairs} pairs the middle half: {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
