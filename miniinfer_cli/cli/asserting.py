"""``--assert-latency`` and ``--assert-throughput``: their flags, and the end of a command whose assertions do not hold."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import click

from miniinfer_cli.cli import flags
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.comparison.assertions import (
    UNDISTURBED,
    Asserted,
    Disturbed,
    LatencyBound,
    Outcome,
    RegressionBound,
    ThroughputBound,
    parse_latency,
    parse_percent,
    parse_throughput,
)
from miniinfer_cli.comparison.pair_tests import Verdict
from miniinfer_cli.errors import CheckFailed, UsageError
from miniinfer_cli.measuring.conditions import Conditions
from miniinfer_cli.measuring.metrics import Samples
from miniinfer_cli.visible import visible

_PARAMETERS = ("assert_latency", "assert_throughput", "assert_regression")


class Parsed(click.ParamType):
    """What a function makes of a text, which raises ValueError for what it is not."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See click.ParamType."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def _latencies(text: str) -> tuple[LatencyBound, ...]:
    return tuple(map(parse_latency, text.split(",")))


@dataclass(frozen=True, slots=True)
class Asserts:
    """What is asserted of the times that are measured; ``strict``: what cannot be told fails, too."""

    latency: Sequence[LatencyBound]
    throughput: Sequence[ThroughputBound]
    regression: RegressionBound | None
    strict: bool

    @property
    def any(self) -> bool:
        """Whether there is an assertion."""
        return bool(self.latency or self.throughput or self.regression)

    def expect_none(self, why: str, hint: str) -> None:
        """Raises UsageError where there is an assertion, which nothing could be checked against."""
        given = flags.typed(_PARAMETERS)
        if given:
            raise UsageError(f"{' and '.join(given)}: {why}", hint=hint)

    def check_load(
        self, latencies_ms: Sequence[float], served: Samples, batch: int | None, conditions: Conditions
    ) -> list[Asserted]:
        """The same of queries under load by their ``latencies_ms``, and of requests by what was ``served``. Nothing of none."""
        found, disturbed = [], _disturbed(conditions)
        if latencies_ms:
            found += [bound.check(latencies_ms, disturbed, "queries") for bound in self.latency]
        if served.latency_ms:
            found += [bound.check(served, batch, disturbed, "requests") for bound in self.throughput]
        return found

    def check(self, samples: Samples, batch: int | None, conditions: Conditions) -> list[Asserted]:
        """How each ended, by what was measured."""
        disturbed = _disturbed(conditions)
        found = [bound.check(samples.latency_ms, disturbed) for bound in self.latency]
        return found + [bound.check(samples, batch, disturbed) for bound in self.throughput]

    def check_regression(self, verdict: Verdict) -> list[Asserted]:
        """How that ended; nothing where it is not asserted."""
        return [] if self.regression is None else [self.regression.check(verdict)]

    def check_workers(
        self, latencies: Sequence[Sequence[float]], times_ms: Sequence[float], batch: int | None, verdict: Verdict, label: str,
        conditions: Conditions | None,
    ) -> list[Asserted]:  # fmt: skip
        """How each ended, by what several processes measured; ``label``: the case, where there are others.

        ``conditions``: those under which they were all disturbed by other work; None where they were not.
        """
        why = ("no worker was measured that other work did not disturb",)
        disturbed = UNDISTURBED if conditions is None else Disturbed(why, conditions.times_longer)
        found = [bound.check_workers(latencies, disturbed) for bound in self.latency]
        found += [bound.check_workers(times_ms, batch, disturbed) for bound in self.throughput]
        found += self.check_regression(verdict)
        return [replace(one, why=f"{one.why} at {label}" if label else one.why) for one in found]


def _disturbed(conditions: Conditions) -> Disturbed:
    return Disturbed(conditions.disturbances, conditions.times_longer)


def assert_flags(command: flags.Command) -> flags.Command:
    """What is asserted of the times; gives the command ``asserts``, an Asserts."""

    @functools.wraps(command)
    def with_asserts(
        *args: Any, assert_latency: tuple[tuple[LatencyBound, ...], ...], assert_throughput: tuple[ThroughputBound, ...],
        assert_regression: RegressionBound | None = None, strict: bool, **kwargs: Any,
    ) -> Any:  # fmt: skip
        latency = [bound for bounds in assert_latency for bound in bounds]
        asserts = Asserts(latency, assert_throughput, assert_regression, strict)
        if strict and not asserts.any:
            raise UsageError("--strict: nothing is asserted", hint="add --assert-latency 'p99<5ms', or leave it out")
        return command(*args, asserts=asserts, **kwargs)

    return flags.together(
        click.option("--assert-latency", type=Parsed("p99<5ms", _latencies), multiple=True, metavar="'p99<5ms'",
                     help="Exit with 1 unless this holds of latencies: a percentile, median, mean, min or max. May be repeated."),
        click.option("--assert-throughput", type=Parsed(">2000", parse_throughput), multiple=True, metavar="'>2000'",
                     help="Exit with 1 unless there are more inferences a second, or '>2000samples/s'. May be repeated."),
        click.option("--strict", is_flag=True, help="Exit with 1 also where the times cannot tell whether an assertion holds."),
    )(with_asserts)  # fmt: skip


def regression_flag(command: flags.Command) -> flags.Command:
    """How much longer it may take than the other."""
    text = "Exit with 1 if an inference takes more than so much longer than the baseline's (in compare, than A's)."
    parsed = Parsed("5%", lambda t: RegressionBound(t.strip(), parse_percent(t)))
    return click.option("--assert-regression", type=parsed, metavar="5%", help=text)(command)


def print_assertions(printer: Printer, found: Sequence[Asserted]) -> None:
    """One line for each."""
    if found:
        printer.section("Assertions")
    for one in found:
        printer.line(f"{one.assertion}: {one.outcome}: {one.why}")


def expect_held(found: Sequence[Asserted], strict: bool, where: str) -> None:
    """Raises CheckFailed where one failed, or with ``strict`` could not be told; warns of those that could not.

    ``where``: what was measured.
    """
    untold = [one for one in found if one.outcome is Outcome.CANNOT_TELL]
    failed = [one for one in found if one.outcome is Outcome.FAILED] + (untold if strict else [])
    if failed:
        told = "; ".join(f"{one.assertion} {_ended(one)}: {one.why}" for one in failed)
        hint = "the figures stand in the summary, and in --json FILE"
        if all(one.outcome is Outcome.CANNOT_TELL for one in failed):
            hint = "measure longer, by --duration, or on a machine that does nothing else; without --strict it is a warning"
        raise CheckFailed(told, hint=hint).at(where)
    for one in untold:
        click.echo(f"miniinfer: warning: {visible(f'{where}: {one.assertion} {_ended(one)}: {one.why}')}", err=True)


def _ended(one: Asserted) -> str:
    return "does not hold" if one.outcome is Outcome.FAILED else "cannot be told"
