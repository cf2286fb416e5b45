"""How often ``miniinfer compare`` errs: of a plan with itself, and with one of 5 % more real work (``make bench-compare``).

Comparisons run side by side, each on processors of its own (``--lanes``), whole cores as far as that is known: what one does is
no foreign load of another. What must hold: of 100 A/A comparisons of 20 s at most 5 are called different; the extra work is found
in 45 of 50 comparisons of 60 s; and nothing is called faster that is slower, or equal that is not.
"""

import argparse
import collections
import concurrent.futures
import json
import math
import os
import queue
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import miniinfer_cli
from miniinfer_cli.comparison.processors import core_of

_LAYERS = 20  # one more is 5 % of real extra work


def chain(path: Path, layers: int, width: int) -> None:
    """x [rows, width] through so many layers of a product and a Relu."""
    rng = np.random.default_rng(0)
    nodes, weights, value = [], [], "x"
    for n in range(layers):
        scale = math.sqrt(2 / width)
        weights.append(numpy_helper.from_array(rng.normal(0, scale, (width, width)).astype(np.float32), f"w{n}"))
        nodes.append(helper.make_node("MatMul", [value, f"w{n}"], [f"h{n}"]))
        nodes.append(helper.make_node("Relu", [f"h{n}"], [f"r{n}"]))
        value = f"r{n}"
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "chain",
        [info("x", TensorProto.FLOAT, ["rows", width])],
        [info(value, TensorProto.FLOAT, ["rows", width])],
        weights,
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)


def compare(a: Path, b: Path, seconds: float, flags: Sequence[str], cores: Sequence[int]) -> dict:
    """What one comparison says, on these processors."""
    command = [sys.executable, "-m", "miniinfer_cli", "compare", str(a), str(b), "--no-outputs", "--duration", f"{seconds:g}"]
    done = subprocess.run(
        [*command, *flags, "--json", "-"],
        capture_output=True, text=True, preexec_fn=(lambda: os.sched_setaffinity(0, cores)) if cores else None,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{' '.join(done.args)} ended with {done.returncode}: {done.stderr}")
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def repeat(
    pair: tuple[Path, Path], count: int, seconds: float, flags: Sequence[str], lanes: Sequence[Sequence[int]], log: Path | None
) -> list[dict]:
    """So many comparisons, one at a time on each lane; each is added to the ``log`` as it ends, as a line."""
    free: queue.Queue = queue.Queue()
    lock = threading.Lock()
    for lane in lanes:
        free.put(lane)

    def one(_: int) -> dict:
        lane = free.get()
        try:
            found = compare(*pair, seconds, flags, lane)
        finally:
            free.put(lane)
        if log is not None:
            with lock, log.open("a") as file:
                file.write(json.dumps({"lane": lane, **found}) + "\n")
        return found

    with concurrent.futures.ThreadPoolExecutor(len(lanes)) as pool:
        return list(pool.map(one, range(count)))


def lanes_of(count: int) -> list[list[int]]:
    """So many groups of processors, as large as may be, of neighbours: threads of one core are of one lane."""
    cores: dict[str, list[int]] = {}
    for cpu in sorted(os.sched_getaffinity(0)):
        cores.setdefault(core_of(cpu), []).append(cpu)
    by_core = [cpu for group in cores.values() for cpu in group]
    each = max(1, len(by_core) // count)
    return [by_core[n * each : (n + 1) * each] for n in range(count)]


def told(name: str, documents: Sequence[dict]) -> collections.Counter:
    """Prints what came out, and gives the counts of verdicts."""
    times = [d["cases"][0]["times"] for d in documents]
    counts = collections.Counter(t["verdict"] for t in times)
    within = [statistics.stdev(map(math.log, t[s]["workers_ms"])) for t in times for s in "ab" if t["pairs"] > 1]
    changes = [t["change"] for t in times if t["change"] is not None]
    spread = f"{100 * statistics.median(within):.2f} %" if within else "unknown"
    change = f"{100 * statistics.median(changes):+.2f} %" if changes else "unknown"
    seconds = [d["race"]["seconds"] for d in documents]
    disturbed = sum(d["race"]["disturbed_pairs"] for d in documents)
    print(
        f"{name}: {len(times)} comparisons: {', '.join(f'{v} {n}' for v, n in sorted(counts.items()))}; spread between workers"
        f" {spread}, change {change}, pairs {statistics.median(t['pairs'] for t in times):g} ({disturbed} disturbed),"
        f" {statistics.median(seconds):.1f} s, {max(seconds):.1f} s at most",
        flush=True,
    )
    return counts


def main() -> None:
    """Prints the counts; exit code 1 where they are not as they must be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--false-alarms", type=int, default=100, help="A/A comparisons")
    parser.add_argument("--power", type=int, default=50, help="comparisons with 5 %% of extra work")
    parser.add_argument("--seconds", type=float, nargs=2, default=(20.0, 60.0), help="of each of these")
    parser.add_argument("--lanes", type=int, default=1, help="comparisons at a time, each on processors of its own")
    parser.add_argument("--threads", type=int, help="of an inference on the CPU")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--log", type=Path, help="add every result to this file, a line each")
    options = parser.parse_args()
    lanes = lanes_of(options.lanes) if options.device == "cpu" else [sorted(os.sched_getaffinity(0))]
    flags = ["--device", options.device, "--shapes", f"x:{options.rows}x{options.width}"]
    flags += ["--threads", str(options.threads)] if options.threads else []
    failed = False
    with tempfile.TemporaryDirectory() as folder:
        plans = [Path(folder) / name for name in ("a.plan", "same.plan", "more.plan")]
        for plan, layers in zip(plans, (_LAYERS, _LAYERS, _LAYERS + 1), strict=True):
            chain(plan.with_suffix(".onnx"), layers, options.width)
            miniinfer_cli.build(str(plan.with_suffix(".onnx")), str(plan))
        if options.false_alarms:
            counts = told(
                "A/A", repeat((plans[0], plans[1]), options.false_alarms, options.seconds[0], flags, lanes, options.log)
            )
            failed |= counts["faster"] + counts["slower"] > options.false_alarms / 20
        if options.power:
            counts = told("+5 %", repeat((plans[0], plans[2]), options.power, options.seconds[1], flags, lanes, options.log))
            failed |= counts["slower"] < 0.9 * options.power or counts["faster"] + counts["equal"] > 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
