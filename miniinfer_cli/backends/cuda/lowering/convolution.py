"""Conv, and ConvNHWC of ours."""

from miniinfer_cli.backends.cuda.launching import products
from miniinfer_cli.backends.cuda.launching.convolution_kernels import library_call, own_kernel
from miniinfer_cli.backends.cuda.launching.convolutions import (
    Convolution,
    Finish,
    Places,
    convolution_of,
    library_problem,
    product_of,
)
from miniinfer_cli.backends.cuda.launching.product_records import Operands, Product
from miniinfer_cli.backends.cuda.site import Site, lowers
from miniinfer_cli.backends.cuda.steps import Lowered, Operand
from miniinfer_cli.backends.cuda.target import Target
from miniinfer_cli.ops import OURS


@lowers("Conv")
@lowers("ConvNHWC", domain=OURS)
def lower_convolution(site: Site) -> Lowered | None:
    """cuDNN where it takes the problem and our kernel is not known to be faster."""
    conv = convolution_of(site.node, site.input(0), site.input(1), site.output())
    if conv is None:
        return None
    places = Places(Operand.input(0), Operand.input(1), Operand.output(0), site.handles[1])
    return convolve(conv, places, Finish(bias=Operand.input(2) if site.has(2) else None), site.target)


def convolve(conv: Convolution, places: Places, finish: Finish, target: Target) -> Lowered:
    """The convolution and what follows it, by a library or by our kernels."""
    if 0 in conv.y_shape:
        return Lowered(())
    product = product_of(conv, finish)
    other = _is_ours(conv, product) or _is_product(product, finish, target)
    problem = None if other else library_problem(conv, finish, target)
    if problem is not None:
        return library_call(conv, places, finish, problem, target)
    if product is not None:
        operands = Operands(places.x, places.w, places.y, finish.residual, finish.bias)
        solution = products.solve(product, operands, target)
        if solution is not None:
            return solution.lowered()
    return own_kernel(conv, places, finish, target)


def is_fast(conv: Convolution, finish: Finish, target: Target) -> bool:
    """True when no kernel is known that is faster for the convolution with just ``finish`` than what ``convolve`` takes."""
    product = product_of(conv, finish)
    if _is_ours(conv, product_of(conv, Finish())):
        return conv.is_depthwise or product is not None
    if _is_product(product, finish, target) or library_problem(conv, finish, target) is not None:
        return True
    return _takes_product(product, target)


def _is_product(product: Product | None, finish: Finish, target: Target) -> bool:
    """True for a product with a residual: cuBLASLt is as fast as cuDNN there, and serves every size at once."""
    return finish.residual is not None and _takes_product(product, target)


def _takes_product(product: Product | None, target: Target) -> bool:
    return product is not None and products.solved_by_library(product, target) is not None


def _is_ours(conv: Convolution, product: Product | None) -> bool:
    """True where memory is the limit, and libraries that tile matrices gain nothing: depthwise, and a single pixel."""
    return conv.is_depthwise or (product is not None and products.is_gemv(product))
