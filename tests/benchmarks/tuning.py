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
import time
from pathlib import Path
from typing import Any

import numpy as np

import miniinfer_cli
from engine_format import Plan
from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.devices.opening import load
from miniinfer_cli.devices.tuning import Point, TuningOptions, tune_plan
from miniinfer_cli.runtime.cache_folder import cache_options
from sample_models.catalogue import generate
from sample_models.request import Request
from tests.gpu.plans import sizes_of

NETWORKS = ("resnet50", "bert_base", "vit_b16", "mobilenet_v2")
_PAIRS = 60
_WARM = 5


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
    for name in options.model:
        started = time.perf_counter()
        plan = miniinfer_cli.build(generate(name, Request("batch", 128, False), dtype=options.dtype, seed=1))
        print(f"{name}: made in {time.perf_counter() - started:.1f} s", flush=True)
        for row in measure(plan, options):
            rows.append({"model": name, "dtype": options.dtype, **row})
            print(line_of(rows[-1]), flush=True)
        if options.out:
            options.out.write_text(json.dumps(rows, indent=2) + "\n")


def measure(plan: Plan, options: Any) -> list[dict[str, Any]]:
    """Tunes the plan for the batch sizes; what each took and gained."""
    parts: list[dict[str, float]] = [{} for _ in options.batch]
    last: list[Any] = [0, "", time.perf_counter()]

    def progress(what: str, part: float) -> None:
        now = time.perf_counter()
        number, stage, since = last
        if stage:
            parts[number][stage] = round(parts[number].get(stage, 0.0) + now - since, 2)
        word = what.rpartition(": ")[2].partition(" ")[0]
        last[:] = [min(int(part * len(parts) + 1e-9), len(parts) - 1), word, now]

    settings = DeviceOptions(**cache_options())
    first = dataclasses.replace(plan.ranges[0], optimum=options.batch[0]) if plan.ranges else None
    if first is not None:
        plan = dataclasses.replace(plan, ranges=(first, *plan.ranges[1:]))
    tuned = tune_plan(plan, "cuda:0", TuningOptions(level=options.tune, at={"batch": options.batch}), settings, progress)
    progress("", 1.0)
    rows = []
    points = [p for p in tuned.points if p.sizes["batch"] in options.batch]
    for point in points:
        if options.verbose:
            show_changes(point)
        row: dict[str, Any] = {"batch": point.sizes["batch"]}
        row |= {name: getattr(point, name) for name in ("untuned_us", "tuned_us", "dropped", "signatures", "rejected", "seconds")}
        row |= {"changed": sum(c.kept for c in point.changes), "faster_alone": len(point.changes)}
        row["parts"] = parts[tuned.points.index(point)] if len(tuned.points) == len(parts) else {}
        rows.append(row)
    if options.again:
        for row in rows:
            row["again_us"], row["again_error"] = again(tuned.plan, row["batch"], settings)
    return rows


def show_changes(point: Point) -> None:
    """What was faster alone, and what of it was kept."""
    for change in point.changes:
        kept, before, after, nodes = "kept" if change.kept else "    ", change.before, change.after, len(change.labels)
        print(f"  {kept} {before.time_us:7.1f} -> {after.time_us:7.1f} us, {nodes} nodes, {change.labels[0]}:")
        print(f"       {before.candidate.name} -> {after.candidate.name}")


def again(plan: Plan, batch: int, settings: DeviceOptions) -> tuple[list[float], float]:
    """Medians of the plan without its sections and with them, in two engines, in turns; and how far their outputs differ."""
    bare = dataclasses.replace(plan, targets=())
    with load(bare, "cuda:0", settings) as one, load(plan, "cuda:0", settings) as other:
        samples: list[list[float]] = [[], []]
        ready, outputs = [], []
        for engine in (one, other):
            random = np.random.default_rng(0)
            feeds = {}
            for b in engine.inputs:
                shape = sizes_of(b, batch)
                assert b.dtype is not None
                whole = b.dtype.kind in "iu"
                feeds[b.name] = (random.integers(0, 2, shape) if whole else random.standard_normal(shape)).astype(b.dtype)
            arrays = engine.check(feeds)
            context, program = engine.model.make_context(), engine.program(arrays)
            results = context.enqueue(program, arrays).result()
            outputs.append(np.concatenate([np.asarray(o, np.float64).ravel() for o in results]))
            ready.append((context, program, arrays))
        for number in range(_PAIRS + _WARM):
            for side, (context, program, arrays) in enumerate(ready):
                pending = context.replay(program, arrays, timed=True)
                pending.wait()
                if number >= _WARM and pending.times_ms is not None:
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
