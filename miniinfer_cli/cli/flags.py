"""Flags that several commands share, and their help."""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click
from click.core import ParameterSource

from miniinfer_cli.backends.interface import MOST_THREADS, DeviceOptions, TrustTargets
from miniinfer_cli.cli.flag_values import (
    BytesParam,
    CountsParam,
    FiniteRange,
    InputParam,
    LimitParam,
    PercentilesParam,
    ShapesParam,
    TacticParam,
)
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.errors import UsageError
from miniinfer_cli.runtime.cache_folder import cache_options
from miniinfer_cli.runtime.trust import VARIABLE as KEY_VARIABLE
from miniinfer_cli.runtime.trust import key_in_environment

Command = Callable[..., Any]
MOST_STREAMS = 256
MAX_DELAY = ("--max-delay", "--max-delay-ms")
"""One flag by two names, in milliseconds in any case; the documents have the first."""
PATH = click.Path(path_type=Path, readable=False)  # whoever opens it says what is wrong with it, with the code for that


def typed(parameters: Sequence[str]) -> tuple[str, ...]:
    """The flags of these parameters of the running command that stand on its command line, as they are spelt there."""
    context = click.get_current_context()
    given = [n for n in parameters if context.get_parameter_source(n) is ParameterSource.COMMANDLINE]
    return tuple(p.opts[0] for p in context.command.params if p.name in given)


def merged(parts: tuple[dict[str, tuple[int, ...]], ...], flag: str) -> dict[str, tuple[int, ...]]:
    """The shapes of a flag that may be repeated. Raises UsageError when two give the same input."""
    shapes: dict[str, tuple[int, ...]] = {}
    for part in parts:
        for name, shape in part.items():
            if name in shapes:
                raise UsageError(f"{flag}: input {name!r} is given twice", hint=f"give it once in {flag}")
            shapes[name] = shape
    return shapes


def together(*decorators: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """The decorators as one; --help shows their flags in this order."""
    return lambda command: functools.reduce(lambda made, decorate: decorate(made), reversed(decorators), command)


def shapes_flag(name: str, text: str) -> Callable[[Command], Command]:
    """A repeatable flag of shapes by input name."""
    return click.option(name, type=ShapesParam(), multiple=True, metavar=ShapesParam.name, help=text)


def input_flag(text: str) -> Callable[[Command], Command]:
    """A repeatable flag of files by input name."""
    return click.option("--input", "inputs", type=InputParam(), multiple=True, metavar=InputParam.name, help=text)


def seed_flag(text: str) -> Callable[[Command], Command]:
    """The seed of random inputs."""
    return click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help=text)


def plan_argument(command: Command) -> Command:
    """The plan to open. Its faults are the reader's to tell, with the exit code of plans."""
    return click.argument("plan", type=PATH)(command)


def device_flag(command: Command) -> Command:
    """Where to run."""
    text = "Where to run: auto, cpu or cuda:N. auto takes a GPU if there is one, and says what it took."
    return click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N", help=text)(command)


def devices_flag(command: Command) -> Command:
    """Where to run, for what several GPUs may do."""
    text = "Where to run: auto, cpu, cuda:N, several GPUs as cuda:0,cuda:1, or cuda:all. auto takes a GPU if there is one."
    return click.option("--device", default="auto", show_default=True, metavar="auto|cpu|cuda:N|cuda:all", help=text)(command)


def threads_flag(command: Command) -> Command:
    """How many threads a CPU computes with."""
    text = "On a CPU, compute with so many threads; by default as the environment says, or as there are processors."
    return click.option("--threads", type=click.IntRange(1, MOST_THREADS), help=text)(command)


def bound_flags(command: Command) -> Command:
    """How long and how much one inference may compute; gives the command ``bounds``, the two as options of ``load``."""

    @functools.wraps(command)
    def with_limits(*args: Any, time_limit: float | None, memory_limit: int | None, **kwargs: Any) -> Any:
        return command(*args, bounds={"time_limit": time_limit, "memory_limit": memory_limit}, **kwargs)

    return together(
        click.option("--time-limit", type=FiniteRange(0, min_open=True), metavar="S",
                     help="End with code 6 when one inference, with the making of its program, takes more seconds."),
        click.option("--memory-limit", type=BytesParam(), metavar=BytesParam.name,
                     help="End with code 6 before one inference allocates more: activations, results, steps on the host."),
    )(with_limits)  # fmt: skip


GPU_FLAGS = (
    *("cuda_graph", "overlap", "pdl", "spin_wait", "blocking_sync", "ignore_targets", "trust_targets", "trust_key"),
    *("timing_cache", "tactics", "disable_tactics", "nvtx"),
)
"""The parameters of ``gpu_flags``."""


def trust_key_flag(command: Command) -> Command:
    """The key of somebody whose GPU code is trusted."""
    text = f"Trust GPU code that this key signed, besides what your own did (by default ${KEY_VARIABLE})."
    return click.option("--trust-key", type=PATH, help=text)(command)


def timing_cache_flag(text: str) -> Callable[[Command], Command]:
    """The file of tactics found best so far."""
    return click.option("--timing-cache", type=PATH, metavar="FILE", help=text)


def gpu_flags(command: Command) -> Command:
    """How a GPU is to be used; gives the command ``gpu``, a DeviceOptions."""

    @functools.wraps(command)
    def with_options(
        *args: Any,
        cuda_graph: bool,
        overlap: bool,
        pdl: bool,
        spin_wait: bool,
        blocking_sync: bool,
        ignore_targets: bool,
        trust_targets: TrustTargets,
        trust_key: Path | None,
        timing_cache: Path | None,
        tactics: tuple[tuple[str, str], ...],
        disable_tactics: tuple[str, ...],
        nvtx: bool,
        **kwargs: Any,
    ) -> Any:
        if spin_wait and blocking_sync:
            raise UsageError("--spin-wait and --blocking-sync exclude each other", hint="leave one of them out")
        if ignore_targets and trust_targets == "always":
            raise UsageError("--ignore-targets and --trust-targets always exclude each other", hint="leave one of them out")
        forced: dict[str, str] = {}
        for node, key in tactics:
            if forced.setdefault(node, key) != key:
                raise UsageError(f"--tactic: node {node!r} is given two tactics", hint="give it once in --tactic")
        options = DeviceOptions(
            cuda_graph=cuda_graph,
            overlap=overlap,
            pdl=pdl,
            scheduling="spin" if spin_wait else "blocking" if blocking_sync else "auto",
            ignore_targets=ignore_targets,
            trust_targets=trust_targets,
            trust_key=trust_key or key_in_environment(),
            timing_cache=timing_cache,
            tactics=forced,
            disable_tactics=disable_tactics,
            nvtx=nvtx or "NVTX_INJECTION64_PATH" in os.environ,  # a profiler is attached
            **cache_options(),
        )
        return command(*args, gpu=options, **kwargs)

    return together(
        click.option("--no-cuda-graph", "cuda_graph", flag_value=False, default=True, type=bool,
                     help="Launch every kernel by itself, not one captured graph for an inference."),
        click.option("--no-overlap", "overlap", flag_value=False, default=True, type=bool,
                     help="One inference at a time: copies do not run beside the computation."),
        click.option("--no-pdl", "pdl", flag_value=False, default=True, type=bool,
                     help="No kernel begins before the one in front of it has ended (programmatic dependent launch)."),
        click.option("--spin-wait", is_flag=True, help="Wait for the GPU spinning: the least latency, a busy processor."),
        click.option("--blocking-sync", is_flag=True, help="Sleep while waiting for the GPU: leaves the processor to others."),
        click.option("--trust-targets", type=click.Choice(get_args(TrustTargets)), default="auto", show_default=True,
                     help="Take compiled kernels from the plan when a key known here signed them, always, or never."),
        trust_key_flag,
        click.option("--ignore-targets", is_flag=True, help="The same as --trust-targets never."),
        timing_cache_flag("Take from this file tactics that were found best on this GPU, where the plan has none."),
        click.option("--tactic", "tactics", type=TacticParam(), multiple=True, metavar=TacticParam.name,
                     help="Do this node by the tactic of this key (docs/tuning.md). May be repeated."),
        click.option("--disable-tactic", "disable_tactics", multiple=True, metavar="KEY",
                     help="Take no tactic of this key, or whose key begins with this word. May be repeated."),
        click.option("--nvtx", is_flag=True,
                     help="Name every step to NVIDIA's profilers; on by itself when one is attached."),
    )(with_options)  # fmt: skip


def transfers_flag(command: Command) -> Command:
    """Whether copies are measured too."""
    text = "Leave the copies to and from the GPU out: measure computing alone."
    return click.option("--no-data-transfers", "transfers", flag_value=False, default=True, type=bool, help=text)(command)


def plugin_flag(command: Command) -> Command:
    """Modules that define operations."""
    text = "Import MODULE first: it defines operations of your own (docs/plugins.md). May be repeated."
    return click.option("--plugin", "plugins", multiple=True, metavar="MODULE", help=text)(command)


def limit_flag(command: Command) -> Command:
    """Limits that replace the defaults; gives the command ``limits``, values by name."""
    text = "Set a limit that keeps small files from taking all memory, disk or time (docs/security.md). May be repeated."

    @functools.wraps(command)
    def with_limits(*args: Any, limits: tuple[tuple[str, int], ...], **kwargs: Any) -> Any:
        return command(*args, limits=dict(limits), **kwargs)

    return click.option("--limit", "limits", type=LimitParam(), multiple=True, metavar=LimitParam.name, help=text)(with_limits)


def trace_flag(command: Command) -> Command:
    """Where the timeline of a few more inferences goes."""
    text = "Write what some more inferences do when, as a trace for Perfetto or chrome://tracing; - for standard output."
    return click.option("--trace", type=PATH, metavar="FILE", help=text)(command)


def report_flags(what: str) -> Callable[[Command], Command]:
    """Where the report, which is ``what``, goes; gives the command ``printer``, a Printer, and ``json_file``, a path or None."""

    def decorate(command: Command) -> Command:
        @functools.wraps(command)
        def with_printer(*args: Any, json_file: Path | None, quiet: bool, **kwargs: Any) -> Any:
            printer = Printer(quiet or str(json_file) == "-")  # JSON on standard output stands there alone
            return command(*args, printer=printer, json_file=json_file, **kwargs)

        text = f"Write {what} to this file; - for standard output."
        return together(
            click.option("--json", "json_file", type=PATH, help=text),
            click.option("--quiet", "-q", is_flag=True, help="Print errors only."),
        )(with_printer)

    return decorate


def feed_flags(command: Command) -> Command:
    """Inputs: files, shapes of random ones, and the seed."""
    return together(
        input_flag("Read an input from .npy, .npz, .pb (a TensorProto) or raw little-endian bytes. May be repeated."),
        shapes_flag("--shapes", "Sizes of inputs left to random values; named dimensions default to their optimum, or 1."),
        seed_flag("Seed of the random inputs."),
    )(command)


def schedule_flags(command: Command) -> Command:
    """How long to measure, and what to report of it."""
    return together(
        _number("--iterations", click.IntRange(1), 10, "Measure at least so many inferences on each stream."),
        _number("--warmup", FiniteRange(0), 200.0, "Warm up for so many milliseconds (at least one inference)."),
        _number("--duration", FiniteRange(0), 3.0, "Measure for at least so many seconds; 0: exactly --iterations."),
        click.option(
            "--streams", type=CountsParam(MOST_STREAMS), default="1", show_default=True, metavar="N",
            help="Run so many contexts at once over one copy of the weights. profile takes several: 1,2,4,8.",
        ),
        click.option(
            "--percentile", "percentiles", type=PercentilesParam(), default="90,95,99", show_default=True,
            help="Percentiles of each latency row.",
        ),
    )(command)  # fmt: skip


def _number(name: str, kind: click.ParamType, default: float, text: str) -> Callable[[Command], Command]:
    return click.option(name, type=kind, default=default, show_default=True, help=text)
