"""What is lowered for: an architecture, its limits and libraries, and who chooses among tactics. Known with no device."""

from collections.abc import Callable
from dataclasses import dataclass, field

from miniinfer_cli.backends.choosing import HEURISTIC, Policy
from miniinfer_cli.backends.cuda.contract.problems import Problem, Variant
from miniinfer_cli.backends.cuda.contract.refusals import Refusals

Watch = Callable[..., None]
"""Is called with a site, the sequence of tactics that it was offered, and the ``deciding.Decision``."""


def _supports_nothing(problem: Problem) -> bool:
    return False


def _supports_no_variant(problem: Problem, variant: Variant) -> bool:
    return False


def _made_by_nobody(problem: Problem) -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Target:
    """The device that is lowered for. ``arch`` is the compute capability as major * 10 + minor.

    ``supports`` prepares a problem on the device's libraries, and is False where they refuse it; with no library nothing is
    supported, with no device likely things are. ``supports_variant`` does so for one way of solving it. ``solved_by`` names the
    library for a problem, and its version. ``tf32``: matrix products of f32 may round their operands to 11 bits. ``policy``
    chooses among tactics; ``refusals`` are what libraries refused so far. ``watch`` is told of every decision.
    """

    arch: int = 90
    multiprocessors: int = 132
    shared_nbytes: int = 227 << 10  # dynamic shared memory that a block may ask for
    tf32: bool = True
    supports: Callable[[Problem], bool] = field(default=_supports_nothing, compare=False)
    supports_variant: Callable[[Problem, Variant], bool] = field(default=_supports_no_variant, compare=False)
    solved_by: Callable[[Problem], str] = field(default=_made_by_nobody, compare=False)
    policy: Policy = HEURISTIC
    watch: Watch | None = field(default=None, compare=False)
    refusals: Refusals = field(default_factory=Refusals, compare=False)
