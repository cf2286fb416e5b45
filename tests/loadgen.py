"""MLPerf's LoadGen in the place of our load generator: the same systems answer, and it judges them."""

import tempfile
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlperf_loadgen

from miniinfer_cli.measuring.load import Load, Scenario, System

_SCENARIOS = {
    Scenario.SINGLE_STREAM: mlperf_loadgen.TestScenario.SingleStream,
    Scenario.MULTI_STREAM: mlperf_loadgen.TestScenario.MultiStream,
    Scenario.SERVER: mlperf_loadgen.TestScenario.Server,
    Scenario.OFFLINE: mlperf_loadgen.TestScenario.Offline,
}

_EXPECTED_NS = 100_000  # of a query: shorter than any, so that there are enough queries for the time


@dataclass
class Verdict:
    """What LoadGen said: ``VALID`` or ``INVALID``, and its summary by the names of its lines.

    Where it was asked to keep them: the index of the sample of each id that was ``asked``, how often each was ``answered``, and
    its ``outputs``.
    """

    result: str
    lines: dict[str, str]
    asked: dict[int, int]
    answered: Counter[int] = field(default_factory=Counter)
    outputs: dict[int, Any] = field(default_factory=dict)


class _Judged:
    """Hands LoadGen's samples to a system, and its answers to LoadGen; keeps both if ``keep``."""

    def __init__(self, system: System, keep: bool) -> None:
        self._system, self._keep = system, keep
        self.asked: dict[int, int] = {}
        self.answered: Counter[int] = Counter()
        self.outputs: dict[int, Any] = {}
        self.errors: list[BaseException] = []
        self._lock = threading.Lock()

    def issue(self, samples: Sequence[Any]) -> None:
        for sample in samples:
            if self._keep:
                self.asked[sample.id] = sample.index
            if not self._system.submit(sample.index, _Answer(self, sample.id)):
                self.fail(sample.id, RuntimeError("no room"))

    def complete(self, sample: int, outputs: Any) -> None:
        if self._keep:
            with self._lock:
                self.answered[sample] += 1
                self.outputs[sample] = outputs
        mlperf_loadgen.QuerySamplesComplete([mlperf_loadgen.QuerySampleResponse(sample, 0, 0)])

    def fail(self, sample: int, error: BaseException) -> None:
        self.errors.append(error)
        mlperf_loadgen.QuerySamplesComplete([mlperf_loadgen.QuerySampleResponse(sample, 0, 0)])  # else it waits for ever


@dataclass
class _Answer:
    judged: _Judged
    sample: int

    def end(self, number: int, begun: float, ended: float, outputs: Any) -> None:
        self.judged.complete(self.sample, outputs)

    def fail(self, error: BaseException) -> None:
        self.judged.fail(self.sample, error)


def judge(load: Load, system: System, samples: int, *, budget_ms: float = 1000.0, keep: bool = False) -> Verdict:
    """Has LoadGen send what ``load`` says to ``system``, which knows so many samples by number. Raises what one failed with."""
    judged = _Judged(system, keep)
    settings = mlperf_loadgen.TestSettings()
    settings.scenario = _SCENARIOS[load.scenario]
    settings.mode = mlperf_loadgen.TestMode.PerformanceOnly
    settings.min_duration_ms = int(load.seconds * 1000)
    settings.min_query_count = load.queries
    if load.scenario is Scenario.SERVER:
        settings.server_target_qps = load.rate
        settings.server_target_latency_ns = int(budget_ms * 1e6)
        settings.server_target_latency_percentile = 0.99
    elif load.scenario is Scenario.MULTI_STREAM:
        settings.multi_stream_samples_per_query = load.width
        settings.multi_stream_expected_latency_ns = _EXPECTED_NS
    elif load.scenario is Scenario.SINGLE_STREAM:
        settings.single_stream_expected_latency_ns = _EXPECTED_NS
    elif load.scenario is Scenario.OFFLINE:
        settings.offline_expected_qps = max(load.queries / max(load.seconds, 1.0), 1.0)
    settings.schedule_rng_seed = settings.sample_index_rng_seed = settings.qsl_rng_seed = load.seed + 1
    under_test = mlperf_loadgen.ConstructSUT(judged.issue, lambda: None)
    library = mlperf_loadgen.ConstructQSL(samples, samples, lambda _: None, lambda _: None)
    with tempfile.TemporaryDirectory() as folder:
        logs = mlperf_loadgen.LogSettings()
        logs.log_output.outdir = folder
        logs.log_output.copy_summary_to_stdout = False
        logs.enable_trace = False
        mlperf_loadgen.StartTestWithLogSettings(under_test, library, settings, logs)
        text = (Path(folder) / "mlperf_log_summary.txt").read_text()
    mlperf_loadgen.DestroyQSL(library)
    mlperf_loadgen.DestroySUT(under_test)
    if judged.errors:
        raise judged.errors[0]
    lines = {name.strip(): value.strip() for name, colon, value in (line.partition(":") for line in text.splitlines()) if colon}
    return Verdict(lines["Result is"], lines, judged.asked, judged.answered, judged.outputs)
