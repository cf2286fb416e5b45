"""Conv, and ConvNHWC of ours."""

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Operand
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.viewing import reads_strided
from miniinfer_cli.backends.cuda.tactics.convolution.convolution_tactics import convolution_ways
from miniinfer_cli.backends.cuda.tactics.convolution.convolutions import ConvolutionOperands, Finish, convolution_of
from miniinfer_cli.backends.cuda.tactics.convolution.patches import prefers_patches
from miniinfer_cli.backends.cuda.tactics.convolution.pixel_products import reads_as_it_lies
from miniinfer_cli.backends.cuda.tactics.convolution.stems import prefers_stem
from miniinfer_cli.ops import OURS


@lowers("Conv")
@lowers("ConvNHWC", domain=OURS)
def lower_convolution(site: Site) -> tuple[Tactic, ...] | None:
    """cuDNN where it takes the problem and our kernel is not known to be faster: ``convolution_heuristic.py``."""
    conv = convolution_of(site.node, site.input(0), site.input(1), site.output())
    if conv is None:
        return None
    finish = Finish(bias=Operand.input(2) if site.has(2) else None)
    return convolution_ways(conv, _operands(site), finish, site.target).in_order


@reads_strided("ConvNHWC", domain=OURS)
def reads_image(site: Site, number: int) -> bool:
    """The image, where its patches are copied in any case, or what a stem reads, or channels of one that lie side by side."""
    conv = convolution_of(site.node, site.input(0), site.input(1), site.output())
    if number != 0 or conv is None:
        return False
    io = _operands(site)
    return prefers_patches(conv, io) or prefers_stem(conv, io, site.target) or reads_as_it_lies(conv, io, site.target)


def _operands(site: Site) -> ConvolutionOperands:
    strides = site.strided[0] if site.strided else None
    return ConvolutionOperands(Operand.input(0), Operand.input(1), Operand.output(0), site.handles[1], strides)
