"""What the application asks of the plans, in whatever process they are."""

from collections.abc import Generator, Iterable, Iterator
from typing import Any, Generic, Protocol, TypeVar

from miniinfer_cli.server.faults import Refused
from miniinfer_cli.server.figures import Figures
from miniinfer_cli.server.infer_request import InferRequest
from miniinfer_cli.server.signature import Signature


class Submitted(Protocol):
    """A request under way: a coroutine awaits its outputs by name. Times are of ``time.perf_counter``; see BatchedFuture."""

    arrived: float
    begun: float
    ended: float

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


AnyServed = TypeVar("AnyServed", bound=Served)


class Plans(Generic[AnyServed]):
    """All plans of a server, by name and version."""

    def __init__(self, plans: Iterable[AnyServed] = ()) -> None:
        self._plans: dict[str, dict[str, AnyServed]] = {}
        for served in plans:
            self.add(served)

    def __iter__(self) -> Iterator[AnyServed]:
        for versions in self._plans.values():
            yield from versions.values()

    def add(self, served: AnyServed) -> None:
        """One more, under its own name and version."""
        self._plans.setdefault(served.name, {})[served.version] = served

    def find(self, name: str, version: str | None = None) -> AnyServed | None:
        """The plan of this name, of the highest version where none is asked for; None where there is none."""
        versions = self._plans.get(name)
        if versions is None:
            return None
        if version is None:
            return versions[max(versions, key=int)] if len(versions) > 1 else next(iter(versions.values()))
        return versions.get(version)

    def names(self) -> list[str]:
        """The names, in the order in which they were given."""
        return list(self._plans)

    def versions(self, name: str) -> list[str]:
        """The versions of a name, ascending."""
        return sorted(self._plans.get(name, {}), key=int)


def find_served(plans: Plans[AnyServed], rest: list[str]) -> AnyServed:
    """The plan of NAME, or NAME/versions/VERSION. Raises Refused."""
    name = rest[0] if rest else ""
    version = rest[2] if len(rest) == 3 and rest[1] == "versions" else None
    served = plans.find(name, version) if len(rest) in (1, 3) and (version is not None) == (len(rest) == 3) else None
    if served is None:
        versions = plans.versions(name)
        known = f"there are versions {', '.join(versions)}" if versions else f"there are {', '.join(plans.names())}"
        raise Refused(404, f"there is no model {'/'.join(rest)!r} ({known})")
    return served
