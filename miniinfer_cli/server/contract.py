"""What the application asks of the plans, in whatever process they are."""

from collections.abc import Generator
from typing import Any, Protocol

from miniinfer_cli.server.faults import Refused
from miniinfer_cli.server.figures import Figures
from miniinfer_cli.server.infer_request import InferRequest
from miniinfer_cli.server.signature import Signature


class Submitted(Protocol):
    """A request under way: a coroutine awaits its outputs by name. Times are of ``time.perf_counter``; see BatchedFuture."""

    arrived: float
    begun: float

    def cancel(self) -> bool:
        """See BatchedFuture."""

    def cancelled(self) -> bool:
        """See BatchedFuture."""

    def __await__(self) -> Generator[Any, None, dict[str, Any]]:
        """See BatchedFuture."""


class Plan(Protocol):
    """What answers requests; see ``plans.OpenPlan``."""

    signature: Signature
    batch_is_first: bool

    @property
    def most_rows(self) -> int:
        """See OpenPlan."""

    def submit(self, request: InferRequest, most_s: float | None) -> Submitted:
        """See OpenPlan."""


class Served(Protocol):
    """A plan under a name; see ``repository.ServedPlan``."""

    figures: Figures

    @property
    def name(self) -> str:
        """See ServedPlan."""

    @property
    def version(self) -> str:
        """See ServedPlan."""

    @property
    def current(self) -> Plan:
        """See ServedPlan."""


class Plans(Protocol):
    """All plans; see ``repository.Repository``."""

    def find(self, name: str, version: str | None = None) -> Served | None:
        """See Repository."""

    def names(self) -> list[str]:
        """See Repository."""

    def versions(self, name: str) -> list[str]:
        """See Repository."""


def find_served(plans: Plans, rest: list[str]) -> Served:
    """The plan of NAME, or NAME/versions/VERSION. Raises Refused."""
    name = rest[0] if rest else ""
    version = rest[2] if len(rest) == 3 and rest[1] == "versions" else None
    served = plans.find(name, version) if len(rest) in (1, 3) and (version is not None) == (len(rest) == 3) else None
    if served is None:
        versions = plans.versions(name)
        known = f"there are versions {', '.join(versions)}" if versions else f"there are {', '.join(plans.names())}"
        raise Refused(404, f"there is no model {'/'.join(rest)!r} ({known})")
    return served
