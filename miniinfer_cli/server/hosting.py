"""A server from its beginning to its end: it listens, opens all plans, answers requests, drains, and lets all go."""

import gc
import sys
from collections import Counter
from collections.abc import Sequence

from miniinfer_cli.devices.registering import Registrar, registrar_of
from miniinfer_cli.server.app import Application
from miniinfer_cli.server.bodies import Heap
from miniinfer_cli.server.fronts import Fronts
from miniinfer_cli.server.http import bind, make_server
from miniinfer_cli.server.lifecycle import Ending, run
from miniinfer_cli.server.messages import FrontSettings
from miniinfer_cli.server.office import Office
from miniinfer_cli.server.reloading import Reloader, Told
from miniinfer_cli.server.repository import Repository, ServedPlan
from miniinfer_cli.server.settings import SWITCH_S, Connections, HttpLimits, PlanOptions
from miniinfer_cli.server.shared_memory import Regions
from miniinfer_cli.server.sources import Source
from miniinfer_cli.server.tracing import tracer


def host_plans(
    sources: Sequence[Source],
    *,
    host: str,
    port: int,
    options: PlanOptions,
    limits: HttpLimits,
    connections: Connections,
    fronts: int,
    shared_memory: bool,
    triton_metric_names: bool,
    watch_s: float | None,
    told: Told,
    warned: Told,
) -> bool:
    """Serves until it is told to end. False where requests were left without an answer when the time of the drain was over.

    ``fronts``: processes that speak HTTP; 0: this one does. ``told`` hears of what is served, where, and that it ends, ``warned``
    of what went wrong meanwhile. Raises UsageError for an address that cannot be had, and what opening plans raises.
    """
    listening = bind(host, port)
    try:
        repository = Repository(sources, options, lambda served: _tell(served, told, warned))
    except BaseException:
        listening.close()
        raise
    registrar: Registrar | None = None
    try:
        reloader = Reloader(repository, warned)
        registrar = registrar_of([device for served in repository for device in served.current.devices])
        regions = Regions(registrar=registrar) if shared_memory else None
        sys.setswitchinterval(SWITCH_S)
        gc.collect()
        gc.freeze()  # what was imported and opened is looked through no more

        def started() -> None:
            address, number, *_ = listening.getsockname()
            told(f"Serving at http://{f'[{address}]' if ':' in address else address}:{number} (metrics at /metrics)")

        async def here(ending: Ending) -> bool:
            statuses: Counter[int] = Counter()
            office = Office(repository, statuses, regions, triton_metric_names=triton_metric_names)
            app = Application(repository, office, limits=limits, regions=regions, statuses=statuses, tracer=tracer())
            server = make_server(app, limits, connections, Heap())
            ending.on_told = server.end
            started()
            await server.serve([listening])
            return server.drained

        async def elsewhere(ending: Ending) -> bool:
            settings = FrontSettings(limits, connections, shared_memory)
            several = Fronts(
                fronts,
                listening,
                repository,
                settings,
                regions,
                triton_metric_names=triton_metric_names,
                warned=warned,
                registrar=registrar,
            )
            reloader.on_taken = several.send_plans
            return await several.serve(ending, started)

        serve = elsewhere if fronts else here
        drained = run(serve, reload=reloader.reload, finish=reloader.finish, watch_s=watch_s, told=told)
        if drained:
            ended = sum((Counter(served.figures.outcomes) for served in repository), Counter())
            told(", ".join(["All requests are answered", *(f"{count} {outcome}" for outcome, count in ended.items() if count)]))
        return drained
    finally:
        listening.close()
        repository.close()
        if registrar is not None:
            registrar.close()


def _tell(served: ServedPlan, told: Told, warned: Told) -> None:
    plan = served.current
    for note in plan.engine.notes:
        told(f"{served.name}: {note}")
    how = f"each request by itself: {plan.alone_since}" if plan.alone_since else f"batches of up to {plan.most_rows}"
    told(f"{served.name}, version {served.version}: {', '.join(plan.devices)}, {how}")
    if plan.not_warm:
        warned(f"{served.name}: not warmed up, the first requests are slow: {plan.not_warm}")
