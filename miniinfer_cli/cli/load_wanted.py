"""A load that is asked for: the flags of ``profile`` that say which requests come, and who answers them."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from miniinfer_cli.cli import flags
from miniinfer_cli.cli.flag_values import FiniteRange
from miniinfer_cli.cli.wanted import Wanted
from miniinfer_cli.errors import UsageError
from miniinfer_cli.measuring.load import MOST_ARRIVALS, Load, Scenario

_LOAD_FLAGS = ("samples_per_query", "max_queue", "max_batch", "max_delay")
_OTHERS = ("top", "trace", "all_points", "sweep_state", "transfers")  # flags that mean nothing under load
_UNBOUNDED = 1 << 30


@dataclass(frozen=True, slots=True)
class LoadWanted:
    """What comes, and who answers: contexts alone, or a Batcher where ``max_batch`` or ``max_delay_ms`` is given."""

    load: Load
    max_queue: int
    max_batch: int | None
    max_delay_ms: float | None
    budget_ms: float | None

    @property
    def batched(self) -> bool:
        """Whether a Batcher puts requests together."""
        return self.max_batch is not None or self.max_delay_ms is not None

    def settings(self) -> dict[str, Any]:
        """The flags, by stable keys; null where a scenario has no such thing."""
        load = self.load
        return {
            "scenario": str(load.scenario),
            "qps": load.rate,
            "samples_per_query": load.width if load.scenario is Scenario.MULTI_STREAM else None,
            "max_queue": self.max_queue if load.scenario is Scenario.SERVER else None,
            "max_batch": self.max_batch,
            "max_delay_ms": self.max_delay_ms,
            "latency_budget_ms": self.budget_ms,
        }


def load_flags(command: flags.Command) -> flags.Command:
    """What comes, and who answers; gives the command ``load``, a LoadWanted, or None where no load is asked for."""

    @functools.wraps(command)
    def with_load(
        *args: Any, wanted: Wanted, scenario: str | None, qps: float | None, samples_per_query: int, max_queue: int,
        max_batch: int | None, max_delay: float | None, latency_budget: float | None, **kwargs: Any,
    ) -> Any:  # fmt: skip
        if scenario is None and qps is None:
            unheeded = flags.typed(_LOAD_FLAGS)
            if unheeded:
                raise UsageError(f"{', '.join(unheeded)}: there is no load", hint="add --qps R, or --scenario NAME")
            return command(*args, wanted=wanted, latency_budget=latency_budget, load=None, **kwargs)
        chosen = _scenario(scenario, qps)
        if wanted.swept is not None:
            several = " and ".join(flags.typed(("streams", "batches")))
            raise UsageError(f"{several}: a load takes one setting", hint="give one value; leave the load out to sweep several")
        unheeded = flags.typed(_OTHERS)
        if unheeded:
            raise UsageError(f"{', '.join(unheeded)}: means nothing under load", hint="leave it out, or --qps and --scenario")
        _expect_scenario("--samples-per-query", chosen, Scenario.MULTI_STREAM, flags.typed(("samples_per_query",)))
        _expect_scenario("--max-queue", chosen, Scenario.SERVER, flags.typed(("max_queue",)))
        if latency_budget is not None and chosen is Scenario.OFFLINE:
            hint = "leave it out: throughput is what counts there"
            raise UsageError("--latency-budget: the one query of --scenario offline has no latency to keep to", hint=hint)
        width = samples_per_query if chosen is Scenario.MULTI_STREAM else 1
        schedule = wanted.schedule
        most = max(schedule.iterations, schedule.duration_s * (qps or 0)) * width
        if most > MOST_ARRIVALS:
            raise UsageError(
                f"--qps, --duration and --iterations make {most:.0f} requests, {MOST_ARRIVALS} at most are sent",
                hint="measure for a shorter --duration",
            )
        made = Load(chosen, schedule.iterations, schedule.duration_s, qps, width, wanted.seed)
        limit = max_queue if chosen is Scenario.SERVER else _UNBOUNDED
        return command(*args, wanted=wanted, latency_budget=latency_budget,
                       load=LoadWanted(made, limit, max_batch, max_delay, latency_budget), **kwargs)  # fmt: skip

    return flags.together(
        click.option("--scenario", type=click.Choice([str(s) for s in Scenario]),
                     help="Measure under load: requests come as in this scenario of MLPerf."),
        click.option("--qps", type=FiniteRange(0, min_open=True), metavar="R",
                     help="Measure under load: so many requests a second come by chance (--scenario server)."),
        click.option("--samples-per-query", type=click.IntRange(1, 1 << 16), default=8, show_default=True, metavar="N",
                     help="In --scenario multi-stream, so many requests come at once."),
        click.option("--max-queue", type=click.IntRange(1, _UNBOUNDED), default=1024, show_default=True, metavar="N",
                     help="In --scenario server, so many requests wait at most; more are dropped."),
        click.option("--max-batch", type=click.IntRange(1, _UNBOUNDED), metavar="N",
                     help="Under load, put requests together in batches of up to so many rows (docs/batching.md)."),
        click.option(*flags.MAX_DELAY, "max_delay", type=FiniteRange(0), metavar="MS",
                     help="Under load, let a request wait so long for others of its batch; 2 with --max-batch."),
    )(with_load)  # fmt: skip


def _scenario(named: str | None, qps: float | None) -> Scenario:
    chosen = Scenario.SERVER if named is None else Scenario(named)
    if chosen is Scenario.SERVER and qps is None:
        raise UsageError("--scenario server: how many requests come is not said", hint="add --qps R, requests a second")
    if chosen is not Scenario.SERVER and qps is not None:
        hint = "leave --qps out, or take --scenario server, where requests come by chance"
        raise UsageError(f"--qps: in --scenario {chosen} requests come when others have ended", hint=hint)
    return chosen


def _expect_scenario(flag: str, chosen: Scenario, only: Scenario, typed: Sequence[str]) -> None:
    if typed and chosen is not only:
        raise UsageError(f"{flag}: means nothing in --scenario {chosen}", hint=f"it is for --scenario {only}: leave it out")
