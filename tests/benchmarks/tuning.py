"""What tuning gains, and takes: untuned and tuned times of whole plans, in turns in one process, and the seconds of tuning.

    python -m tests.benchmarks.tuning [--model NAME ...] [--batch 1 64 ...] [--tune fast|full] [--again] [--verbose]

Models are generated; their weights are random. Times are the device's, of a replay of the whole program: medians of what the
tuner itself compares last. ``--again``: the tuned plan is opened anew, and timed against the plan without its sections.
"""

import argparse
import dataclasses
import json
import logging
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import miniinfer_cli
from engine_format import Plan
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.opening import load
from miniinfer_cli.devices.tuning import TuningOptions, tune_plan
from miniinfer_cli.runtime.cache_folder import cache_options
from miniinfer_cli.runtime.random_inputs import random_inputs
from sample_models.catalogue import generate
from sample_models.request import Request

NETWORKS = ("resnet50", "bert_base", "vit_b16", "mobilenet_v2")
_PAIRS = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", nargs="+", default=list(NETWORKS))
    parser.add_argument("--dtype", default="f16")
    parser.add_argument("--batch", nargs="+", type=int, default=[1, 64])
    parser.add_argument("--tune", choices=("fast", "full"), default="fast")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--verbose", action="store_true", help="also what changed at which nodes, and what was rejected")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO if options.verbose else logging.WARNING, format="%(message)s")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.model:
            model = generate(name, Request("batch", 128, False), dtype=options.dtype, seed=1)
            for batch in options.batch:
                shape = {v.name: [d.dim_value or batch for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
                plan = miniinfer_cli.build(model, Path(folder) / f"{name}.plan", shapes=shape)
                row = {"model": name, "dtype": options.dtype, "batch": batch, **measure(plan, options)}
                plan.close()
                rows.append(row)
                print(line_of(row), flush=True)
                if options.out:
                    options.out.write_text(json.dumps(rows, indent=2) + "\n")


def measure(plan: Plan, options: Any) -> dict[str, Any]:
    """Tunes the plan; what it took and gained."""
    parts: dict[str, float] = {}
    last = ["", time.perf_counter()]

    def progress(what: str, part: float) -> None:
        now = time.perf_counter()
        if last[0]:
            parts[last[0]] = parts.get(last[0], 0.0) + now - last[1]
        last[:] = [what.partition(" ")[0], now]

    settings = DeviceOptions(**cache_options())
    tuned = tune_plan(plan, "cuda:0", TuningOptions(level=options.tune), settings, progress)
    progress("", 1.0)
    (point,) = tuned.points
    if options.verbose:
        for change in point.changes:
            kept = "kept" if change.kept else "    "
            before, after, nodes = change.before, change.after, len(change.labels)
            print(f"  {kept} {before.time_us:7.1f} -> {after.time_us:7.1f} us, {nodes} nodes, {change.labels[0]}:")
            print(f"       {before.candidate.name} -> {after.candidate.name}")
    figures: dict[str, Any] = {
        "untuned_us": point.untuned_us,
        "tuned_us": point.tuned_us,
        "dropped": point.dropped,
        "signatures": point.signatures,
        "changed": sum(c.kept for c in point.changes),
        "faster_alone": len(point.changes),
        "rejected": point.rejected,
        "seconds": tuned.seconds,
        "parts": {k: round(v, 2) for k, v in parts.items()},
    }
    if options.again:
        figures["again_us"], figures["again_error"] = again(tuned.plan, settings)
    return figures


def again(plan: Plan, settings: DeviceOptions) -> tuple[list[float], float]:
    """Medians of the plan without its sections and with them, in two engines, in turns; and how far their outputs differ."""
    bare = dataclasses.replace(plan, targets=())
    with load(bare, "cuda:0", settings) as one, load(plan, "cuda:0", settings) as other:
        samples: list[list[float]] = [[], []]
        ready = []
        outputs: list[Any] = []
        for engine in (one, other):
            arrays = engine.check(random_inputs(engine.inputs, engine.ranges, {}, {}, 0))
            context, program = engine.model.make_context(), engine.program(arrays)
            outputs.append(np.concatenate([np.asarray(o, np.float64).ravel() for o in context.enqueue(program, arrays).result()]))
            ready.append((context, program, arrays))
        for number in range(_PAIRS + 5):
            for side, (context, program, arrays) in enumerate(ready):
                pending = context.replay(program, arrays, timed=True)
                pending.wait()
                if number >= 5 and pending.times_ms is not None:
                    samples[side].append(pending.times_ms[1] * 1e3)
        for note in other.notes:
            print(f"  note: {note}")
        for context, *_ in ready:
            context.close()
    error = float(np.linalg.norm(outputs[1] - outputs[0]) / np.linalg.norm(outputs[0]))
    return [statistics.median(s) for s in samples], error


def line_of(row: dict[str, Any]) -> str:
    """A row for a person."""
    if row["untuned_us"] is None:
        gain = "nothing was kept"
    else:
        gain = f"{row['untuned_us']:.0f} -> {row['tuned_us']:.0f} us ({row['untuned_us'] / row['tuned_us']:.3f}x)"
    dropped = ", dropped" if row["dropped"] else ""
    again_us = ""
    if "again_us" in row:
        again_us = f", again {row['again_us'][0]:.0f} -> {row['again_us'][1]:.0f} us, outputs differ by {row['again_error']:.1e}"
    return (
        f"{row['model']} {row['dtype']} b{row['batch']}: {gain}{dropped}{again_us}; {row['seconds']:.1f} s {row['parts']},"
        f" {row['changed']} of {row['faster_alone']} kept, {row['signatures']} signatures, {row['rejected']} rejected"
    )


if __name__ == "__main__":
    main()
