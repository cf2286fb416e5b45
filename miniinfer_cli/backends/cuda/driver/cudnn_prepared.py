"""A graph that cuDNN has a plan for: how it is enqueued, and what is kept of it."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from miniinfer_cli.backends.cuda.contract.problems import Variant
from miniinfer_cli.backends.cuda.driver.cudnn_graphs import Problem, count_operands
from miniinfer_cli.backends.cuda.driver.cudnn_names import variant_of
from miniinfer_cli.errors import DeviceError

ALIGNMENT = 16
"""Bytes of which every operand's address must be a multiple: what the front end declares of each tensor."""


class Library(Protocol):
    """What a prepared graph asks of the library that prepared it."""

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Held while the front end's objects are read."""

    @property
    def faults(self) -> tuple[type[BaseException], ...]:
        """What the front end raises."""

    def handle_for(self, stream_handle: int) -> Any:
        """The handle of a stream that was bound. Raises ValueError for others."""


class PreparedGraph:
    """One plan for one problem. Any thread may enqueue it, on any stream that was bound."""

    def __init__(self, owner: Library, problem: Problem, graph: Any, index: int, name: str, *, restored: bool = False) -> None:
        self.problem = problem
        self.name = name
        """The engine and its knobs, as the library spells them."""
        self._owner = owner
        self._graph = graph
        self._index = index
        self._restored = restored
        self._operands = count_operands(problem)
        # A restored graph has one plan and no list of engines.
        self.workspace_nbytes = int(graph.get_workspace_size() if restored else graph.get_workspace_size_plan_at_index(index))
        """Bytes of workspace that enqueue() must be given, on a multiple of 256."""

    def enqueue(self, stream_handle: int, addresses: Sequence[int], workspace: int = 0) -> None:
        """Puts the graph on a stream that bind() knows; the device must be the calling thread's current one.

        ``addresses``: in the order that the problem's class documents, each a multiple of 16. ``workspace``: the address of
        ``workspace_nbytes`` bytes that nothing else uses meanwhile. May be captured, once the plan has run before. Raises
        ValueError for addresses that do not fit or a stream that is not bound, DeviceError where the library refuses.
        """
        if len(addresses) != self._operands:
            raise ValueError(f"expected {self._operands} addresses, got {len(addresses)}")
        if any(address % ALIGNMENT for address in addresses):
            raise ValueError(f"operands must lie on multiples of {ALIGNMENT} bytes, got {', '.join(map(hex, addresses))}")
        if self.workspace_nbytes and not workspace:
            raise ValueError(f"{self.name} needs a workspace of {self.workspace_nbytes} bytes")
        handle = self._owner.handle_for(stream_handle)
        pack = dict(enumerate(addresses, start=1))
        try:
            if self._restored:
                self._graph.execute(pack, workspace, handle=handle)
            else:
                self._graph.execute_plan_at_index(pack, workspace, self._index, handle=handle)
        except self._owner.faults as error:
            raise DeviceError(f"cuDNN failed for {self.problem} by {self.name}: {first_line(error)}") from error

    @property
    def variant(self) -> Variant:
        """The engine and its knobs by name."""
        return variant_of(self.name)

    def serialize(self) -> bytes:
        """A plan that was built here, with its name, for the tactic cache of this machine."""
        return self.name.encode() + b"\0" + self.plan()

    def plan(self) -> bytes:
        """A plan that was built here, serialized by the library: it holds machine code. Empty for one that was restored."""
        if self._restored:
            return b""
        with self._owner.lock:
            # What is serialized is the plan that was chosen last; building it again only chooses it.
            self._graph.build_plan_at_index(self._index)
            return bytes(self._graph.serialize())


def first_line(error: BaseException) -> str:
    """The first line of what an error says; its class where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
