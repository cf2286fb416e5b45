"""What the process that has the plans and those that speak HTTP tell each other: the first item of each message.

The plans' process is the back, the others are fronts. ``marshal`` takes tuples, numbers, text and bytes; what else there is
travels as pickle's bytes: both are processes of one server.
"""

from dataclasses import dataclass

from miniinfer_cli.server.figures import CANCELLED, CLOSED, DEADLINE, Figures
from miniinfer_cli.server.settings import Connections, HttpLimits
from miniinfer_cli.server.signature import Signature

# From a front.
READY, INFER, CANCEL, ASK, COUNTED = range(5)
# (READY,); (INFER, requests); (CANCEL, number); (ASK, number, method, path, body); (COUNTED, pickle of Counted)
# A request is (number, number of the plan, priority, seconds or None, inputs, outputs, bytes that it has behind the message).
# An input is (name, shape, bytes behind the message), (name, shape, texts), (name, shape, offset in the arena, bytes) or (name,
# shape, region, offset, bytes); an output is (name,) or (name, region, offset, bytes).

# To a front.
OPEN, PLANS, ENDED, TOLD, COUNT, DRAIN, BROKEN, FREED = range(5, 13)
# (OPEN, pickle of FrontSettings); (PLANS, pickle of PlanFacts of all); (ENDED, answers); (TOLD, number, status, body, type);
# (COUNT,); (DRAIN, at once); (BROKEN,), where a device has failed; (FREED, number)
# FREED: a request that ended as KEPT_ENDS say is looked at no more, and the front's arena has its body back.
# An answer is (number, None, arrived, begun, ended, outputs) or (number, status, message, outcome); an output is (shape, bytes or
# texts) or (shape, number of bytes that were written to its region).


KEPT_ENDS = frozenset((CANCELLED, CLOSED, DEADLINE))
"""How a request ends while somebody may be putting its batch together."""


@dataclass(frozen=True, slots=True)
class FrontSettings:
    """What a front is told first. ``shared_memory``: clients may name regions. ``arena_nbytes``: of the memory for bodies, which
    is filled from its beginning; GPUs copy from the first ``registered_nbytes`` where bodies lie.
    """

    limits: HttpLimits
    connections: Connections
    shared_memory: bool
    arena_nbytes: int = 256 << 20
    registered_nbytes: int = 32 << 20


@dataclass(frozen=True, slots=True)
class PlanFacts:
    """What a front knows of a plan."""

    name: str
    version: str
    signature: Signature
    most_rows: int
    batch_is_first: bool


@dataclass(frozen=True, slots=True)
class Counted:
    """What a front has counted so far: answers by status, and the figures of each plan."""

    statuses: dict[int, int]
    figures: list[Figures]
