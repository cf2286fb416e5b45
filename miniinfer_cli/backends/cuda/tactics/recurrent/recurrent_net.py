"""A recurrent net in numbers: what its kernels take, whichever way its steps are made."""

import math
from collections.abc import Sequence

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.site import Site
from miniinfer_cli.backends.cuda.contract.steps import Action, Argument, Copy, Fill, Kernel, Operand
from miniinfer_cli.backends.cuda.contract.types import c_type, computed_type, element_nbytes
from miniinfer_cli.backends.cuda.tactics.products.product_records import Product
from miniinfer_cli.ir import DType, numpy_dtype
from miniinfer_cli.ops.recurrent_activations import clip_bound
from miniinfer_cli.ops.recurrent_shapes import GATES, activation_names

_NETS = tuple(GATES)  # in the order of recurrent_cell.cuh
# In its order, too, with the defaults of alpha and beta; None where a function has none.
_FUNCTIONS: dict[str, tuple[float | None, float | None]] = {
    "relu": (None, None),
    "tanh": (None, None),
    "sigmoid": (None, None),
    "softsign": (None, None),
    "softplus": (None, None),
    "affine": (1.0, 0.0),
    "leakyrelu": (0.01, None),
    "thresholdedrelu": (1.0, None),
    "scaledtanh": (1.0, 1.0),
    "hardsigmoid": (0.2, 0.5),
    "elu": (1.0, None),
}
_SHARED_NBYTES = 48 << 10


class Net:
    """The node in numbers."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.op = site.node.op
        self.gates = GATES[self.op]
        self.dtype = site.dtype()
        self.layout = int(site.attr("layout", 0))
        first, second, self.width = site.shape(0)
        self.length, self.batch = (second, first) if self.layout else (first, second)
        self.directions, _, self.hidden = site.shape(2)
        self.acc = DType(computed_type(self.dtype))
        self.item = element_nbytes(self.acc)
        self.linear_before_reset = bool(site.attr("linear_before_reset", 0))
        self.states = {"RNN": 2, "GRU": 4, "LSTM": 3}[self.op]

    @property
    def weights_nbytes(self) -> int:
        """Bytes of one direction's recurrence weights."""
        return self.gates * self.hidden * self.hidden * element_nbytes(self.dtype)

    @property
    def phases(self) -> tuple[int, ...]:
        """What a step is done in: at once, or the gates and then the candidate."""
        return (1, 2) if self.op == "GRU" and not self.linear_before_reset else (0,)

    @property
    def state_count(self) -> int:
        """Elements of a state of all directions and sequences."""
        return self.directions * self.batch * self.hidden

    @property
    def projected_nbytes(self) -> int:
        """Bytes of the product of all time steps with the input weights."""
        return self.length * self.batch * self.directions * self.gates * self.hidden * self.item

    def fits_at_once(self, rows: int) -> bool:
        """True when a block that makes every step holds the states of so many sequences."""
        return self.states * rows * self.hidden * self.item <= _SHARED_NBYTES

    def estimate_of_steps(self) -> Estimate:
        """Every step reads the recurrence weights and its part of the projection, and writes a state and an output."""
        sums = self.length * self.batch * self.directions * self.gates * self.hidden
        weights = self.length * self.directions * self.weights_nbytes
        moved = self.length * self.state_count * (3 * self.item + element_nbytes(self.dtype))
        return Estimate(2 * sums * self.hidden + 4 * sums, weights + self.projected_nbytes + moved)

    def projection(self) -> Product:
        """The product of all time steps with the input weights of all directions."""
        columns = self.directions * self.gates * self.hidden
        types = self.dtype, self.dtype, self.acc
        return Product(self.length * self.batch, columns, self.width, *types, False, True, self.width, self.width, columns)

    def kernel(self, name: str, file: str, rows: int = 0) -> Kernel:
        """A kernel; ``rows``: sequences of a warp, for kernels that read the recurrence weights."""
        defines = {"MI_NET": str(_NETS.index(self.op)), "MI_T": c_type(self.dtype), "MI_ACC": c_type(self.acc)}
        if rows:
            largest = 16 // element_nbytes(self.dtype)
            defines |= {"MI_ROWS": str(rows), "MI_PACK": str(largest if self.hidden % largest == 0 else 1)}
        return Kernel(name, file, tuple(defines.items()))

    def initial(self) -> tuple[Argument, Argument]:
        """The states before the first step."""
        return self.site.operand(5), self.site.operand(6)

    def sizes(self) -> "np.ndarray":
        """The struct Sizes."""
        reverse = self.site.attr("direction", "forward") == "reverse"
        flags = reverse, self.linear_before_reset, self.site.attr("input_forget", 0)
        return np.array([self.length, self.batch, self.hidden, self.directions, *map(int, flags)], np.int32)

    def distances(self) -> "np.ndarray":
        """The struct Distances."""
        h, d, n, t = self.hidden, self.directions, self.batch, self.length
        columns = d * self.gates * h
        if self.layout:
            return np.array([columns, t * columns, d * h, t * d * h, h, h, d * h], np.int64)
        return np.array([n * columns, columns, d * n * h, h, n * h, n * h, h], np.int64)

    def arguments(self, projected: Operand) -> tuple[Argument, ...]:
        """What every kernel of a step begins with."""
        number = numpy_dtype(self.acc).type
        names = activation_names(self.op, self.site.attr("activations"), self.site.attr("direction", "forward"))
        flat = [name for group in names for name in group]
        code, alpha, beta = _functions(flat, self.site.attr("activation_alpha"), self.site.attr("activation_beta"))
        clip = clip_bound(self.op, self.site.attr("clip"))
        parameters = np.array([*alpha, *beta, math.inf if clip is None else clip], number)
        bias, lengths, peepholes = (self.site.operand(i) for i in (3, 4, 7))
        return (
            *(projected, bias, peepholes, lengths, *(self.site.result(i) for i in range(3))),
            *(self.sizes(), self.distances(), np.array(code, np.int32), parameters),
        )

    def untouched(self) -> list[Action]:
        """No time steps: the last states are the first."""
        actions: list[Action] = []
        for number, first in enumerate(self.initial()[: 2 if self.op == "LSTM" else 1], 1):
            last = self.site.result(number)
            nbytes = self.state_count * element_nbytes(self.dtype)
            if isinstance(last, Operand):
                actions.append(Copy(last, first, nbytes) if isinstance(first, Operand) else Fill(last, 0, nbytes))
        return actions


def _functions(
    names: Sequence[str], alphas: Sequence[float] | None, betas: Sequence[float] | None
) -> tuple[list[int], list[float], list[float]]:
    """Codes, alphas and betas of six functions; parameters are handed out in order to the functions that have them."""
    left_alphas, left_betas = iter(alphas or ()), iter(betas or ())
    order = list(_FUNCTIONS)
    codes, first, second = [0] * 6, [0.0] * 6, [0.0] * 6
    for i, name in enumerate(names):
        alpha, beta = _FUNCTIONS[name.lower()]
        codes[i] = order.index(name.lower())
        first[i] = 0.0 if alpha is None else float(next(left_alphas, alpha))
        second[i] = 0.0 if beta is None else float(next(left_betas, beta))
    return codes, first, second
