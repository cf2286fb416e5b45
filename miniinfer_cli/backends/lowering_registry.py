"""Which lowering a backend has for an operation."""

from collections.abc import Callable
from typing import Generic, TypeVar

from miniinfer_cli.ir import Node

L = TypeVar("L")


class LoweringRegistry(Generic[L]):
    """The lowerings of one backend, by domain and name of the operation; ``backend`` is its name in errors.

    ``bring`` imports, for a domain and a name, the files in which lowerings of the operation may register themselves, and
    ``bring_all`` imports all files; without them, all have been imported before anybody asks.
    """

    def __init__(
        self,
        backend: str,
        bring: Callable[[str, str], None] = lambda domain, name: None,
        bring_all: Callable[[], None] = lambda: None,
    ) -> None:
        self._backend = backend
        self._bring = bring
        self._bring_all = bring_all
        self._lowerings: dict[tuple[str, str], L] = {}

    def register(self, *names: str, domain: str = "") -> Callable[[L], L]:
        """Registers a lowering for operations of these names. Raises ValueError when one has a lowering already."""

        def add(lowering: L) -> L:
            for name in names:
                if self._lowerings.setdefault((domain, name), lowering) is not lowering:
                    raise ValueError(f"{name} has two {self._backend} lowerings")
            return lowering

        return add

    def find(self, node: Node) -> L | None:
        """The lowering for the node's operation, None when only its reference can run it."""
        key = node.domain, node.op
        found = self._lowerings.get(key)
        if found is None:
            self._bring(*key)
            found = self._lowerings.get(key)
        return found

    def operations(self) -> tuple[tuple[str, str], ...]:
        """Domain and name of every operation that has a lowering, sorted."""
        self._bring_all()
        return tuple(sorted(self._lowerings))
