"""Arithmetic on arrays of dtype object whose items are ints and symbolic dimensions: how references follow shapes.

Where the answer depends on the sizes, Undecided is raised, and inference takes the contents for unknown.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from miniinfer_cli.ir import Array, Dim, Sym, dims
from miniinfer_cli.ir.dims import Undecided, divide_exactly, floor_divide, lower_bound, positive_part


def _is_equal(a: Any, b: Any) -> bool:
    """Also of two strings."""
    if not isinstance(a, Sym) and not isinstance(b, Sym):
        return bool(a == b)
    difference = a - b
    above, below = lower_bound(difference), lower_bound(-difference)
    if difference == 0:
        return True
    if (above is not None and above > 0) or (below is not None and below > 0):
        return False
    raise Undecided(f"whether {a} is {b}")


def _divide(a: Dim, b: Dim) -> Dim:
    """Rounded toward 0: what is below 0 is divided as what is above it, and turned round."""
    if b == 0:
        raise Undecided(f"{a} divided by 0")
    exact = divide_exactly(a, b)
    if exact is not None:
        return exact
    if b < 0:
        a, b = -a, -b
    return positive_part(floor_divide(a, b)) - positive_part(floor_divide(-a, b))


def _modulo(a: Dim, b: Dim) -> Dim:
    if b == 0:
        raise Undecided(f"{a} modulo 0")
    return a - floor_divide(a, b) * b


def _elementwise(function: Callable[..., Any], n_inputs: int) -> Callable[..., Array]:
    ufunc = np.frompyfunc(function, n_inputs, 1)
    return lambda *arrays: np.asarray(ufunc(*arrays), dtype=object)


add = _elementwise(lambda a, b: a + b, 2)
subtract = _elementwise(lambda a, b: a - b, 2)
multiply = _elementwise(lambda a, b: a * b, 2)
truncated_divide = _elementwise(_divide, 2)
modulo = _elementwise(_modulo, 2)
truncated_modulo = _elementwise(lambda a, b: a - _divide(a, b) * b, 2)
minimum = _elementwise(dims.minimum, 2)
maximum = _elementwise(dims.maximum, 2)
equal = _elementwise(_is_equal, 2)
less = _elementwise(lambda a, b: a < b, 2)
less_or_equal = _elementwise(lambda a, b: a <= b, 2)
negative = _elementwise(lambda a: -a, 1)
absolute = _elementwise(lambda a: dims.maximum(a, -a), 1)
sign = _elementwise(lambda a: dims.minimum(dims.maximum(a, -1), 1), 1)
