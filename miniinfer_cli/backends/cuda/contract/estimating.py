"""What work takes at least, by types alone: elements and bytes of tensors, and the estimate of a node that has no better one."""

import math

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.ir import TensorType, Type


def default_estimate(site: Site) -> Estimate:
    """Every operand read and every result written once, and one operation of each node for an element of the results."""
    results = sum(map(elements, site.results))
    nodes = 1 if site.node.body is None else len(site.node.body)
    return Estimate(results * nodes, sum(map(nbytes, (*site.types, *site.results))))


def moved_estimate(site: Site, *others: int) -> Estimate:
    """What moves elements: each of the results read and written once, and the inputs of these numbers, which say where from."""
    return Estimate(0, 2 * sum(map(nbytes, site.results)) + sum(nbytes(site.types[i]) for i in others))


def elements(type: Type | None) -> int:
    """Elements of a tensor; sizes that data decide count as one, what is no tensor as nothing."""
    if not isinstance(type, TensorType) or type.shape is None:
        return 0
    return math.prod(n for n in type.shape if isinstance(n, int))


def nbytes(type: Type | None) -> int:
    """The bytes of these elements on the device."""
    return elements(type) * element_nbytes(type.dtype) if isinstance(type, TensorType) else 0
