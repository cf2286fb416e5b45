"""Excitation: both products of squeeze-and-excitation in one launch."""

from collections.abc import Callable

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import inputs, outputs
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.convolution.excitation_launch import Excitation, excite
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.activation_expansions import HARD_SIGMOID_ALPHA
from miniinfer_cli.ops.excitation import BETA

ACTIVATIONS = {"Relu": "relu", "Swish": "swish", "HardSwish": "hard_swish"}
GATES = {"Sigmoid": "sigmoid", "HardSigmoid": "hard_sigmoid"}
_X, _SQUEEZE, _EXCITE, _SQUEEZE_BIAS, _EXCITE_BIAS = range(5)


@lowers("Excitation", domain=OURS)
def lower_excitation(site: Site) -> tuple[Tactic, ...]:
    """A tactic for each number of outputs that a block may make, the favourite first.

    None where a block has no room for what it keeps, or there is nothing to sum up: the two products do the work.
    """
    (images, *_, channels), squeezed, features = site.shape(_X), site.shape(_SQUEEZE)[0], site.shape(_EXCITE)[0]
    sizes = Excitation(site.dtype(), images, channels, squeezed, features)
    functions = ACTIVATIONS[site.attr("activation", "Relu")], GATES[site.attr("gate", "Sigmoid")]
    limits = site.attr("alpha", HARD_SIGMOID_ALPHA), site.attr("beta", BETA)
    operands = (*inputs(_X, _SQUEEZE, _EXCITE), site.operand(_SQUEEZE_BIAS), site.operand(_EXCITE_BIAS), *outputs(0))
    constant = all(h is not None for i, h in enumerate(site.handles) if i != _X and site.has(i))

    def emitting(share: int) -> Callable[[Work], None]:
        return lambda work: work.add(excite(sizes, share, operands, functions, limits, constant))

    shares = () if sizes.is_empty else sizes.shares(site.target)
    return tuple(Tactic(f"slices of {n}", emitting(n), sizes.estimate) for n in shares)
