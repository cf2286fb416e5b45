"""A tactic of a CUDA lowering, made wrong: what it emits is changed as ``wrong_launches`` changes a lowering's answer."""

from collections.abc import Callable
from dataclasses import replace

from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import Rewrite
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.work import Work
from tests.mutants import wrong_launches

Emit = Callable[[Work], None]


def spoiled(tactic: Tactic, way: str, site: Site, applied: Callable[[], None]) -> Tactic:
    """The tactic, whose result is wrong."""
    return replace(tactic, emit=lambda work: emit_wrongly(tactic.emit, tactic.key, way, site, work, applied))


def emit_wrongly(emit: Emit, key: str, way: str, site: Site, work: Work, applied: Callable[[], None]) -> None:
    """Emits into ``work``, and what makes the result wrong behind it."""
    apart = Work()
    emit(apart)
    made = wrong_launches.change(way, site, apart.finished(key), applied)
    if isinstance(made, Rewrite):
        work.replace_by(made.graph)
    else:
        work.take(made)
