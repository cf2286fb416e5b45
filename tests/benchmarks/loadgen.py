"""MLPerf's LoadGen as the judge of what answers under load: its four scenarios on a perceptron 256-512-10, VALID or INVALID.

    python -m tests.benchmarks.loadgen [--scenario server ...] [--runs 5] [--qps 8000] [--latency-ms 10] [--seconds 10]
                                       [--delay-ms 1] [--max-batch 32] [--by batcher|contexts]

In server, queries of one row come by chance (Poisson), whether or not others have ended; of their latencies 99 % must be below
the bound. Behind each verdict stand the figures of our own generator (`miniinfer profile --qps`), of a run of its own. The
processors must be quiet: others' work shows in the slowest percent first.
"""

import argparse
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import numpy as np

import miniinfer_cli
from miniinfer_cli.measuring.benchmark import unwatched
from miniinfer_cli.measuring.load import Load, Scenario, run_load
from miniinfer_cli.measuring.load_summary import LoadSummary, summarize_load
from miniinfer_cli.measuring.load_systems import Batched, Contexts, WallClock, frozen_collector
from tests.benchmarks.batching import perceptron
from tests.loadgen import judge

_SAMPLES = 256
_LEAST = 700  # queries, from which on LoadGen calls a 99th percentile known
_FIGURES = {
    Scenario.SINGLE_STREAM: ("90.00 percentile latency (ns)", "99.00 percentile latency (ns)"),
    Scenario.MULTI_STREAM: ("50.00 percentile latency (ns)", "99.00 percentile latency (ns)"),
    Scenario.SERVER: ("Completed samples per second", "50.00 percentile latency (ns)", "99.00 percentile latency (ns)"),
    Scenario.OFFLINE: ("Samples per second",),
}


def load_of(scenario: Scenario, options: argparse.Namespace) -> Load:
    rate = options.qps if scenario is Scenario.SERVER else None
    return Load(scenario, _LEAST, options.seconds, rate, 8 if scenario is Scenario.MULTI_STREAM else 1)


def shown(name: str, value: str) -> str:
    if not name.endswith("(ns)"):
        return f"{name} {float(value):.0f}"
    return f"{name.split('.')[0]}th percentile {float(value) / 1e6:.2f} ms"


def measure(load: Load, system: Any, budget_ms: float) -> LoadSummary:
    if load.scenario is Scenario.OFFLINE:
        load = replace(load, queries=1)
    return summarize_load(load, run_load(load, system, WallClock(), unwatched), 1, budget_ms=budget_ms, percentiles=(50, 99))


def ours(summary: LoadSummary) -> str:
    late = f", sent late p99 {dict(summary.sent_late.percentiles)[99]:.2f} ms" if summary.sent_late else ""
    latency = ", ".join(f"p{p:g} {ms:.2f} ms" for p, ms in summary.latency.percentiles) if summary.latency else "no latency"
    return f"ours: {summary.throughput_qps:.0f} requests a second, {latency}{late}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", action="append", choices=[str(s) for s in Scenario])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--qps", type=float, default=8000)
    parser.add_argument("--latency-ms", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--delay-ms", type=float, default=1)
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--by", choices=("batcher", "contexts"), default="batcher")
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    samples = [{"x": x} for x in np.random.default_rng(0).standard_normal((_SAMPLES, 1, 256), np.float32)]
    with ExitStack() as stack:
        engine = stack.enter_context(miniinfer_cli.load(perceptron(), "cpu", threads=options.threads))
        system: Any
        if options.by == "batcher":
            batcher = miniinfer_cli.Batcher(engine, options.max_batch, options.delay_ms, max_queue=1 << 20)
            system = Batched(stack.enter_context(batcher), samples)
        else:
            system = stack.enter_context(Contexts([engine], samples, streams=2, max_queue=1 << 20))
        system.warm_up(0.5)
        stack.enter_context(frozen_collector())
        for scenario in map(Scenario, options.scenario or Scenario):
            load, valid = load_of(scenario, options), 0
            for _ in range(options.runs):
                own = measure(load, system, options.latency_ms)
                if scenario is Scenario.OFFLINE:  # LoadGen wants to know how many last for the time
                    load = replace(load, queries=int(1.5 * own.throughput_qps * options.seconds))
                verdict = judge(load, system, _SAMPLES, budget_ms=options.latency_ms)
                valid += verdict.result == "VALID"
                print(f"{scenario}: {verdict.result}", *(shown(n, verdict.lines[n]) for n in _FIGURES[scenario]), sep="; ")
                print(f"  {ours(own)}", flush=True)
            print(f"{scenario}: valid: {valid} of {options.runs}", flush=True)


if __name__ == "__main__":
    main()
