"""``miniinfer serve``: plans behind the Open Inference Protocol."""

import functools
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import click

from miniinfer_cli.backends.interface import DeviceOptions
from miniinfer_cli.cli import flags
from miniinfer_cli.cli.flag_values import BytesParam, CountsParam, FiniteRange
from miniinfer_cli.cli.report import Printer
from miniinfer_cli.errors import RequestError, UsageError
from miniinfer_cli.plugins import load_plugins
from miniinfer_cli.server.settings import Connections, HttpLimits, PlanOptions
from miniinfer_cli.server.sources import parse_source
from miniinfer_cli.visible import visible

_MOST = 1 << 30
_MOST_LEVELS = 64
_NEEDED = ("httptools", "prometheus_client", "uvicorn")
_SECONDS = FiniteRange(0, min_open=True)


def _plan_flags(command: flags.Command) -> flags.Command:
    """How plans are opened and batched; gives the command ``options``, a PlanOptions."""

    @functools.wraps(command)
    def with_options(
        *args: Any, device: str, threads: int | None, max_batch: int | None, batch_sizes: tuple[int, ...] | None,
        max_delay_ms: float, contexts: int | None, max_queue: int, priorities: int, warm_up: bool, copy_threads: int,
        bounds: Mapping[str, Any], gpu: DeviceOptions, limits: dict[str, int], **kwargs: Any,
    ) -> Any:  # fmt: skip
        engine = replace(gpu, threads=threads, limits=limits, **bounds)
        options = PlanOptions(
            device, max_batch, batch_sizes, max_delay_ms, max_queue, contexts, priorities, warm_up, copy_threads, engine
        )
        return command(*args, options=options, **kwargs)

    return flags.together(
        flags.devices_flag, flags.threads_flag,
        click.option("--max-batch", type=click.IntRange(1, _MOST), metavar="N",
                     help="Rows of a batch at most (docs/batching.md)."),
        click.option("--batch-sizes", type=CountsParam(_MOST), metavar=CountsParam.name,
                     help="The sizes that batches are computed with; few make the start shorter."),
        click.option(*flags.MAX_DELAY, "max_delay_ms", type=FiniteRange(0), default=0.0, show_default=True, metavar="MS",
                     help="Let a request wait so long for others of its batch, even where nothing is computed."),
        click.option("--contexts", type=click.IntRange(1, _MOST_LEVELS), metavar="N",
                     help="Batches computed side by side; 1 on a CPU and 2 on a GPU by default."),
        click.option("--copy-threads", type=click.IntRange(0, _MOST_LEVELS), default=0, show_default=True, metavar="N",
                     help="Threads that help to put large batches together."),
        click.option("--max-queue", type=click.IntRange(1, _MOST), default=1024, show_default=True, metavar="N",
                     help="Requests of a plan that wait at most; more are refused, by status 503."),
        click.option("--priorities", type=click.IntRange(1, _MOST_LEVELS), default=3, show_default=True, metavar="N",
                     help="Levels of priority; a request's 1 is the highest."),
        click.option("--no-warm-up", "warm_up", flag_value=False, default=True, type=bool,
                     help="Answer at once; the first requests of each size then wait for their program."),
        flags.bound_flags, flags.gpu_flags, flags.limit_flag,
    )(with_options)  # fmt: skip


def _http_flags(command: flags.Command) -> flags.Command:
    """What requests and connections may take; gives the command ``http``, HttpLimits, and ``connections``, Connections."""

    @functools.wraps(command)
    def with_limits(
        *args: Any, max_body: int, timeout: float | None, read_timeout: float, keep_alive: float, drain_delay: float,
        drain_timeout: float, **kwargs: Any,
    ) -> Any:  # fmt: skip
        http = HttpLimits(max_body, read_timeout, timeout)
        connections = Connections(read_timeout, keep_alive, drain_delay, drain_timeout)
        return command(*args, http=http, connections=connections, **kwargs)

    return flags.together(
        click.option("--http-processes", "fronts", type=click.IntRange(0, 256), default=0, show_default=True, metavar="N",
                     help="Speak HTTP in so many processes of their own; 0: in the one that computes."),
        click.option("--timeout", type=_SECONDS, metavar="S",
                     help="End a request that has no result after so many seconds, by status 504."),
        click.option("--max-body", type=BytesParam(), default="64M", show_default=True, metavar=BytesParam.name,
                     help="Refuse a larger body of a request, by status 413."),
        click.option("--read-timeout", type=_SECONDS, default=30.0, show_default=True, metavar="S",
                     help="Time for the head of a request to come, and for its body."),
        click.option("--keep-alive", type=_SECONDS, default=75.0, show_default=True, metavar="S",
                     help="Close a connection that was idle for so long."),
        click.option("--drain-delay", type=FiniteRange(0), default=0.0, show_default=True, metavar="S",
                     help="On SIGTERM, tell that the server is not ready and go on for so long, before it ends."),
        click.option("--drain-timeout", type=_SECONDS, default=30.0, show_default=True, metavar="S",
                     help="Time for the requests under way to be answered then."),
    )(with_limits)  # fmt: skip


@click.command("serve")
@click.argument("plans", nargs=-1, required=True, metavar="[NAME[:VERSION]=]PLAN...")
@click.option("--host", default="127.0.0.1", show_default=True, help="Listen at this address; 0.0.0.0 for all that there are.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="... and port; 0 takes a free one.")
@_plan_flags
@_http_flags
@click.option(
    "--watch",
    type=FiniteRange(0.05),
    metavar="S",
    help="Look at the plans' files each so many seconds, and take again what has changed; SIGHUP does so at once.",
)
@click.option("--shared-memory", is_flag=True, help="Let clients register shared memory (/dev/shm) of the server's own user.")
@click.option("--triton-metric-names", is_flag=True, help="Tell the metrics by Triton's names as well.")
@flags.plugin_flag
@click.option("--quiet", "-q", is_flag=True, help="Print warnings and errors only.")  # fmt: skip
def command(
    plans: tuple[str, ...], host: str, port: int, options: PlanOptions, http: HttpLimits, connections: Connections,
    fronts: int, watch: float | None, shared_memory: bool, triton_metric_names: bool, plugins: tuple[str, ...], quiet: bool,
) -> None:  # fmt: skip
    """Serve plans by the Open Inference Protocol (version 2) over HTTP.

    A plan is called by the name of its file, version 1, unless NAME or NAME:VERSION says otherwise. SIGTERM and Ctrl-C end the
    server once what is under way is answered. See docs/serving.md.
    """
    try:
        from miniinfer_cli.server.hosting import host_plans  # late: brings uvicorn, an option
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in _NEEDED:
            raise
        raise UsageError(f"serve: {error.name} is not installed", hint="pip install 'miniinfer[serve]'") from None
    sources = [parse_source(plan) for plan in plans]
    load_plugins(plugins)
    printer = Printer(quiet)

    def told(text: str) -> None:
        printer.line(text)
        sys.stdout.flush()

    drained = host_plans(
        sources,
        host=host,
        port=port,
        options=options,
        limits=http,
        connections=connections,
        fronts=fronts,
        shared_memory=shared_memory,
        triton_metric_names=triton_metric_names,
        watch_s=watch,
        told=told,
        warned=lambda text: print(visible(f"miniinfer: {text}"), file=sys.stderr, flush=True),
    )
    if not drained:
        raise RequestError("requests were left without an answer", hint="give a longer --drain-timeout, and no second signal")
