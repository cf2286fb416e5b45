"""NegativeLogLikelihoodLoss, SoftmaxCrossEntropyLoss."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import NULL, Action, Argument, Kernel, Lowered, Operand
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.launching.grids import index_dtype, index_name, launch_over
from miniinfer_cli.backends.cuda.tactics.normalization.normalizing import LOG_SOFTMAX, exp_sums, normalize_by, real_dtype
from miniinfer_cli.backends.cuda.tactics.reduction.reductions import Reduction, reduce_actions

_X = Operand.input(0)


@lowers("NegativeLogLikelihoodLoss")
def lower_negative_log_likelihood_loss(site: Site) -> Lowered | None:
    """The loss of each target, and their sum or mean."""
    terms = _Terms(site)
    return Lowered(tuple(terms.actions(NULL)), tuple(terms.scratch), tactic="terms")


@lowers("SoftmaxCrossEntropyLoss")
def lower_softmax_cross_entropy_loss(site: Site) -> Lowered | None:
    """Sums of exponentials along the classes, the logarithms by them if they are asked for, then the losses."""
    shape, dtype = site.shape(0), site.dtype()
    real = real_dtype(dtype)
    terms = _Terms(site)
    actions: list[Action] = []
    sums: Argument = NULL
    if math.prod(shape):
        place = terms.new_scratch(math.prod(shape) // shape[1] * 2 * element_nbytes(real))
        stages = reduce_actions(exp_sums(dtype), shape, (1,), _X, place, site.target, first_scratch=len(terms.scratch))
        terms.scratch += stages.scratch
        actions += stages.actions
        if site.gives(1):
            actions.append(
                normalize_by(LOG_SOFTMAX, _X, Operand.output(1), (dtype, dtype), shape, (1,), place, real, site.target)
            )
        sums = place
    actions += terms.actions(sums)
    return Lowered(tuple(actions), tuple(terms.scratch), tactic="terms")


class _Terms:
    """The part that both losses have."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.scratch: list[int] = []
        self.real = real_dtype(site.dtype())

    def new_scratch(self, nbytes: int) -> Operand:
        self.scratch.append(nbytes)
        return Operand.scratch(len(self.scratch) - 1)

    def actions(self, sums: Argument) -> list[Action]:
        """Losses of input 0, less what ``sums`` say where it is not null, and what is made of them."""
        site, real = self.site, self.real
        reduction = site.attr("reduction", "mean")
        shape, targets = site.shape(0), math.prod(site.shape(1))
        each = reduction == "none"
        out = Operand.output(0)
        to = out if each else self.new_scratch(targets * 2 * element_nbytes(real))
        actions: list[Action] = []
        if targets:
            largest = max(math.prod(shape), targets)
            index = index_dtype(largest).type
            defines = (
                ("MI_T", c_type(site.dtype())),
                ("MI_TARGET", c_type(site.dtype(1))),
                ("MI_WEIGHT", c_type(site.dtype(2) if site.has(2) else real)),
                ("MI_F", c_type(real)),
                ("MI_EACH", str(int(each))),
                ("MI_INDEX", index_name(largest)),
            )
            ignored = site.attr("ignore_index")
            arguments: tuple[Argument, ...] = (
                _X,
                Operand.input(1),
                site.operand(2),
                sums,
                to,
                index(targets),
                index(shape[1]),
                index(math.prod(shape[2:])),
                np.int32(ignored is not None),
                np.int64(ignored or 0),
            )
            actions.append(launch_over(Kernel("loss_terms", "loss.cu", defines), targets, arguments, site.target.multiprocessors))
        if each:
            return actions
        nbytes = 2 * element_nbytes(real)
        what = Reduction(
            "PairSum", f"Pack<{real}, 2>", nbytes, c_type(site.dtype()), nbytes, after="w / n" if reduction == "mean" else ""
        )
        stages = reduce_actions(what, (targets,), (0,), to, out, site.target, first_scratch=len(self.scratch))
        self.scratch += stages.scratch
        return [*actions, *stages.actions]
