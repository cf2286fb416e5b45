"""A server from its beginning to its end: it listens, opens all plans, answers requests, drains, and lets all go."""

from collections import Counter
from collections.abc import Callable, Sequence

from miniinfer_cli.server.app import Application
from miniinfer_cli.server.http import bind, run
from miniinfer_cli.server.office import Office
from miniinfer_cli.server.reloading import Reloader
from miniinfer_cli.server.repository import Repository, ServedPlan
from miniinfer_cli.server.settings import Connections, HttpLimits, PlanOptions
from miniinfer_cli.server.shared_memory import Regions
from miniinfer_cli.server.sources import Source
from miniinfer_cli.server.tracing import tracer

Told = Callable[[str], None]


def host_plans(
    sources: Sequence[Source],
    *,
    host: str,
    port: int,
    options: PlanOptions,
    limits: HttpLimits,
    connections: Connections,
    shared_memory: bool,
    triton_metric_names: bool,
    watch_s: float | None,
    told: Told,
    warned: Told,
) -> bool:
    """Serves until it is told to end. False where requests were left without an answer when the time of the drain was over.

    ``told`` hears of what is served and where, ``warned`` of what went wrong meanwhile. Raises UsageError for an address that
    cannot be had, and what opening plans raises.
    """
    listening = bind(host, port)
    try:
        repository = Repository(sources, options, lambda served: _tell(served, told, warned))
    except BaseException:
        listening.close()
        raise
    try:
        reloader = Reloader(repository, warned)
        regions = Regions() if shared_memory else None
        statuses: Counter[int] = Counter()
        office = Office(repository, statuses, regions, triton_metric_names=triton_metric_names)
        app = Application(repository, office, limits=limits, regions=regions, statuses=statuses, tracer=tracer())
        address, number, *_ = listening.getsockname()
        shown = f"[{address}]" if ":" in address else address
        told(f"Serving at http://{shown}:{number} (metrics at /metrics)")
        drained = run(app, listening, connections, reload=reloader.reload, finish=reloader.finish, watch_s=watch_s)
        if drained:
            ended = sum((Counter(served.figures.outcomes) for served in repository), Counter())
            told(", ".join(["All requests are answered", *(f"{count} {outcome}" for outcome, count in ended.items() if count)]))
        return drained
    finally:
        listening.close()
        repository.close()


def _tell(served: ServedPlan, told: Told, warned: Told) -> None:
    plan = served.current
    for note in plan.engine.notes:
        told(f"{served.name}: {note}")
    told(f"{served.name}, version {served.version}: {', '.join(plan.devices)}, batches of up to {plan.most_rows}")
    if plan.not_warm:
        warned(f"{served.name}: not warmed up, the first requests are slow: {plan.not_warm}")
