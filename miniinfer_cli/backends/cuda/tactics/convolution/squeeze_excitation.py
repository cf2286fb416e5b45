"""SqueezeExcitation: an image's means, both products and the gates' product with it in one launch, on sm_90."""

import math
from collections.abc import Callable
from functools import partial

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import inputs, outputs
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_kernels import transposed_weights
from miniinfer_cli.backends.cuda.tactics.convolution.excitation import ACTIVATIONS, GATES
from miniinfer_cli.backends.cuda.tactics.convolution.excitation_heuristic import EXCITATIONS
from miniinfer_cli.backends.cuda.tactics.convolution.squeeze_excitation_launch import Cut, SqueezeExcitation, squeeze_and_excite
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import needs_arch
from miniinfer_cli.ops import OURS
from miniinfer_cli.ops.activation_expansions import HARD_SIGMOID_ALPHA
from miniinfer_cli.ops.excitation import BETA

_X, _SQUEEZE, _EXCITE, _SQUEEZE_BIAS, _EXCITE_BIAS = range(5)


@lowers("SqueezeExcitation", domain=OURS)
def lower_squeeze_excitation(site: Site) -> tuple[Tactic, ...]:
    """A tactic for each way of cutting an image, the favourite first.

    None where weights or biases are computed, or a part of an image has no room: pooling, the products and Mul do the work.
    """
    images, *middle, channels = site.shape(_X)
    sizes = SqueezeExcitation(site.dtype(), images, math.prod(middle), channels, site.shape(_SQUEEZE)[0])
    functions = ACTIVATIONS[site.attr("activation", "Relu")], GATES[site.attr("gate", "Sigmoid")]
    limits = site.attr("alpha", HARD_SIGMOID_ALPHA), site.attr("beta", BETA)
    excite = site.handles[_EXCITE]
    constant = all(h is not None for i, h in enumerate(site.handles) if i != _X and site.has(i))
    if excite is None or not constant:
        return ()

    def emitting(cut: Cut) -> Callable[[Work], None]:
        def emit(work: Work) -> None:
            rank = len(excite.shape)
            turned = work.derive(transposed_weights(excite, [rank - 1, *range(1, rank - 1), 0]))
            biases = site.operand(_SQUEEZE_BIAS), site.operand(_EXCITE_BIAS)
            operands = (*inputs(_X, _SQUEEZE), turned, *biases, *outputs(0))
            work.add(squeeze_and_excite(sizes, cut, operands, functions, limits))

        return emit

    needs = partial(needs_arch, EXCITATIONS.whole_arch)
    return tuple(Tactic(cut.key, emitting(cut), sizes.estimate, needs) for cut in sizes.cuts(site.target))
