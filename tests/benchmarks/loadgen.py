"""MLPerf's LoadGen as the judge of a Batcher: its server scenario on a perceptron 256-512-10, VALID or INVALID.

    pip install mlcommons-loadgen
    python -m tests.benchmarks.loadgen [--runs 5] [--qps 8000] [--latency-ms 10] [--seconds 10] [--delay-ms 1] [--max-batch 32]

Queries of one row come by chance (Poisson), whether or not others have ended; of their latencies 99 % must be below
the bound. The processors must be quiet: others' work shows in the slowest percent first.
"""

import argparse
import gc
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlperf_loadgen
import numpy as np

import miniinfer_cli
from tests.benchmarks.batching import perceptron, warm_up

_SAMPLES = 256
_WANTED = ("Result is", "Completed samples per second", "50.00 percentile", "99.00 percentile", "99.90 percentile")


def serve(batcher: Any, options: argparse.Namespace) -> list[str]:
    """The lines of LoadGen's summary that matter, the verdict first."""
    data = [{"x": x} for x in np.random.default_rng(0).standard_normal((_SAMPLES, 1, 256), np.float32)]

    def answer(number: int) -> Callable[[Any], None]:
        def told(future: Any) -> None:
            y = future.result(0)["y"]
            mlperf_loadgen.QuerySamplesComplete([mlperf_loadgen.QuerySampleResponse(number, y.ctypes.data, y.nbytes)])

        return told

    def issue(samples: Any) -> None:
        for sample in samples:
            batcher.submit(data[sample.index]).add_done_callback(answer(sample.id))

    settings = mlperf_loadgen.TestSettings()
    settings.scenario = mlperf_loadgen.TestScenario.Server
    settings.mode = mlperf_loadgen.TestMode.PerformanceOnly
    settings.server_target_qps = options.qps
    settings.server_target_latency_ns = int(options.latency_ms * 1e6)
    settings.server_target_latency_percentile = 0.99
    settings.min_duration_ms = int(options.seconds * 1000)
    settings.min_query_count = 100
    system = mlperf_loadgen.ConstructSUT(issue, lambda: None)
    library = mlperf_loadgen.ConstructQSL(_SAMPLES, _SAMPLES, lambda _: None, lambda _: None)
    with tempfile.TemporaryDirectory() as folder:
        logs = mlperf_loadgen.LogSettings()
        logs.log_output.outdir = folder
        logs.log_output.copy_summary_to_stdout = False
        mlperf_loadgen.StartTestWithLogSettings(system, library, settings, logs)
        lines = (Path(folder) / "mlperf_log_summary.txt").read_text().splitlines()
    mlperf_loadgen.DestroyQSL(library)
    mlperf_loadgen.DestroySUT(system)
    found = (line.strip() for line in lines)
    return sorted((line for line in found if line.startswith(_WANTED)), key=lambda line: not line.startswith("Result"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--qps", type=float, default=8000)
    parser.add_argument("--latency-ms", type=float, default=10)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--delay-ms", type=float, default=1)
    parser.add_argument("--max-batch", type=int, default=32)
    parser.add_argument("--threads", type=int)
    options = parser.parse_args()
    with (
        miniinfer_cli.load(perceptron(), "cpu", threads=options.threads) as engine,
        miniinfer_cli.Batcher(engine, options.max_batch, options.delay_ms, max_queue=1 << 20) as batcher,
    ):
        warm_up(engine, batcher)
        gc.collect()
        gc.freeze()
        valid = 0
        for _ in range(options.runs):
            verdict, *figures = serve(batcher, options)
            valid += verdict.endswith(": VALID")
            print(verdict, *(" ".join(f.split()) for f in figures), sep="; ")
        print(f"valid: {valid} of {options.runs}")


if __name__ == "__main__":
    main()
