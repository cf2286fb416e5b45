"""Many threads submit at once: good requests, poisoned ones, some that are cancelled, some with deadlines, of three shapes.

    python -m tests.serving.stress [--requests 100000] [--seed 0]

None may be lost, told twice or mixed up with another, and each must end as it should.
"""

import argparse
import random
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError
from typing import Any

import numpy as np

from miniinfer_cli import Batcher
from miniinfer_cli.devices.opening import load
from miniinfer_cli.errors import DeadlinePassed, InputDataError
from miniinfer_cli.serving.request import BatchedFuture
from tests.emulation.engine import plan_of

# Each result tells whose it is; an index beyond the table is an error that names it.
MODEL = """graph main(x: f32[n,s], k: i64[n,1]) {
  t: f32[4] = const [0.0, 0.25, 0.5, 0.75]
  g = Gather(t, k)
  y = Add(x, g)
  return y, k
}"""
THREADS = 64
WIDTHS = (1, 3, 8)
WAIT_S = 120
_IN_FLIGHT = 8  # of one thread


class Client:
    """One thread: what it asked for, and what is wrong with how that ended."""

    def __init__(self, batcher: Batcher, numbers: range, seed: int, poisoned: int) -> None:
        self.faults: list[str] = []
        self.ended: Counter[str] = Counter()
        self.told: Counter[int] = Counter()
        self._batcher = batcher
        self._numbers = numbers
        self._chance = random.Random(seed)
        self._poisoned = poisoned

    def run(self) -> None:
        under_way: list[tuple[int, dict[str, Any], str, BatchedFuture]] = []
        try:
            for number in self._numbers:
                kind = self._chance.choices(("good", "poisoned", "cancelled", "deadline"), (89, self._poisoned, 5, 5))[0]
                rows = self._chance.choice((1, 1, 1, 2, 3))
                x = np.full((rows, self._chance.choice(WIDTHS)), number, np.float32)
                k = np.full((rows, 1), 1_000_000 + number if kind == "poisoned" else number % 4)
                late = self._chance.choice((1e-5, 1e-3, 0.05)) if kind == "deadline" else None
                future = self._batcher.submit({"x": x, "k": k}, priority=self._chance.randrange(3), deadline_s=late)
                future.add_done_callback(lambda _, number=number: self.told.update([number]))
                if kind == "cancelled" and self._chance.random() < 0.7:
                    future.cancel()  # at once; the others while they are computed, or when they have ended
                under_way.append((number, {"x": x, "k": k}, kind, future))
                if len(under_way) >= _IN_FLIGHT:
                    self._finish(*under_way.pop(0))
            for one in under_way:
                self._finish(*one)
        except BaseException as error:
            self.faults.append(f"the client failed: {error!r}")
            raise

    def _finish(self, number: int, inputs: dict[str, Any], kind: str, future: BatchedFuture) -> None:
        if kind == "cancelled":
            future.cancel()
        try:
            found = future.result(WAIT_S)
        except TimeoutError:
            ended = "lost"
        except CancelledError:
            ended = "cancelled"
        except DeadlinePassed:
            ended = "deadline"
        except InputDataError as error:
            ended = "poisoned" if str(1_000_000 + number) in str(error) else f"another's error: {error}"
        else:
            ended = "good"
            expected = inputs["x"] + np.float32(0.25) * inputs["k"].astype(np.float32)
            if not np.array_equal(found["y"], expected) or not np.array_equal(found["k"], inputs["k"]):
                ended = "mixed up"
        if ended != kind and not (ended == "good" and kind in ("cancelled", "deadline")):
            self.faults.append(f"request {number}, {kind}, ended as {ended}")
        self.ended[ended] += 1


def stress(requests: int, seed: int, contexts: int = 2, device: str = "cpu") -> dict[str, Any]:
    """What became of so many requests; raises AssertionError where something went wrong.

    None is poisoned but on a CPU: a GPU computes something for every index.
    """
    started = time.perf_counter()
    sizes = None if device == "cpu" else [1, 4, 16]  # where a program takes long to make
    options = {"overload": "block", "priorities": 3, "raise_after_ms": 5, "batch_sizes": sizes}
    with (
        load(plan_of(MODEL), device) as engine,
        Batcher(engine, 16, 0.5, max_queue=256, contexts=contexts, **options) as batcher,
    ):
        each = -(-requests // THREADS)
        clients = [
            Client(batcher, range(n, min(n + each, requests)), seed + n, int(device == "cpu")) for n in range(0, requests, each)
        ]
        threads = [threading.Thread(target=c.run) for c in clients]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        batcher.close()
        stats = batcher.stats()
    faults = [f for c in clients for f in c.faults]
    assert not faults, f"{len(faults)} faults: {faults[:5]}"
    told = sum((c.told for c in clients), Counter())
    assert set(told.values()) == {1}, "some were told twice"
    assert len(told) == requests, "some were not told"
    ended = sum((c.ended for c in clients), Counter())
    names = {"good": "result", "poisoned": "error"}
    counted = {names.get(kind, kind): count for kind, count in ended.items()}
    assert {k: n for k, n in stats["requests"].items() if n} == counted, f"counted {stats['requests']}, seen {counted}"
    assert stats["queued"] == stats["outside"] == stats["running"] == 0
    return {
        "seconds": time.perf_counter() - started,
        "ended": dict(ended),
        "batches": stats["batches"],
        "mean_batch": stats["mean_batch"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--contexts", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    print(stress(options.requests, options.seed, options.contexts, options.device))


if __name__ == "__main__":
    main()
