"""Conv, and ConvNHWC of ours."""

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_tactics import convolution_ways
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import ConvolutionOperands, Finish, convolution_of
from miniinfer_cli.ops import OURS


@lowers("Conv")
@lowers("ConvNHWC", domain=OURS)
def lower_convolution(site: Site) -> tuple[Tactic, ...] | None:
    """cuDNN where it takes the problem and our kernel is not known to be faster: ``convolution_heuristic.py``."""
    conv = convolution_of(site.node, site.input(0), site.input(1), site.output())
    if conv is None:
        return None
    io = ConvolutionOperands(Operand.input(0), Operand.input(1), Operand.output(0), site.handles[1])
    return convolution_ways(conv, io, Finish(bias=Operand.input(2) if site.has(2) else None), site.target).in_order
