"""MatMul and Gemm."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import Kernel, Launch, Operand
from miniinfer_cli.backends.cuda.contract.strides import broadcast_strides
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.contract.viewing import reads_strided
from miniinfer_cli.backends.cuda.contract.work import Work
from miniinfer_cli.backends.cuda.launching.grids import launch_over
from miniinfer_cli.backends.cuda.tactics.products.library_products import library_problem, library_tactics
from miniinfer_cli.backends.cuda.tactics.products.product_records import Operands, Product
from miniinfer_cli.backends.cuda.tactics.products.products import is_gemv, matrices, merged, product_tactics, reads_matrix


@lowers("MatMul")
def lower_matmul(site: Site) -> tuple[Tactic, ...]:
    """Batches of any broadcasting; rows that all meet one B are taken together."""
    return lower_product(merged(matmul_product(site)), _operands(site), site.target)


@lowers("Gemm")
def lower_gemm(site: Site) -> tuple[Tactic, ...]:
    """A row of C is a bias, a whole C a residual; anything else is spread over a residual first where the library wants one."""
    operands = _operands(site)
    product = gemm_product(site)
    if product.c is not None:
        operands = replace(operands, c=Operand.input(2))
    return lower_product(product, operands, site.target)


@reads_strided("MatMul", "Gemm")
def reads_factor(site: Site, number: int) -> bool:
    """A and B, by rows or columns; C is read dense."""
    return number < 2 and reads_matrix(site.shape(number), site.strides(number), element_nbytes(site.dtype(number)))


def matmul_product(site: Site) -> Product:
    """The product of a site of MatMul."""
    strides = site.strides(0), site.strides(1)
    return matrices(site.shape(0), site.shape(1), (site.dtype(0), site.dtype(1), site.out_dtype()), strides=strides)


def _operands(site: Site) -> Operands:
    return Operands(Operand.input(0), Operand.input(1), Operand.output(0), constants=site.constants)


def gemm_product(site: Site) -> Product:
    """The product of a site of Gemm."""
    dtype = site.out_dtype()
    transposed = bool(site.attr("transA", 0)), bool(site.attr("transB", 0))
    strides = site.strides(0), site.strides(1)
    product = matrices(site.shape(0), site.shape(1), (dtype, dtype, dtype), *transposed, strides)
    product = replace(product, alpha=float(site.attr("alpha", 1.0)))
    beta = float(site.attr("beta", 1.0))
    if not site.has(2) or beta == 0:
        return product
    rows, columns = broadcast_strides(site.shape(2), (product.m, product.n))
    return replace(product, c=(rows, columns), beta=beta)


def lower_product(product: Product, operands: Operands, target: Target) -> tuple[Tactic, ...]:
    """The product's tactics, with C in the form that the library takes."""
    product, operands = row_as_bias(product, operands)
    tactics = product_tactics(product, operands, target)
    spread = _spread_tactics(product, operands, target)
    return (*tactics, *spread) if is_gemv(product) else (*spread, *tactics)


def row_as_bias(product: Product, operands: Operands) -> tuple[Product, Operands]:
    """With C as the bias, where it is one row for all of the product's; else as they are."""
    p = product
    if p.c != (0, 1) or p.beta != 1 or p.bias is not None or any(axis.c for axis in p.batch):
        return product, operands
    return replace(p, c=None, bias=(0, 1)), replace(operands, c=None, bias=operands.c)


def _spread_tactics(product: Product, operands: Operands, target: Target) -> tuple[Tactic, ...]:
    """The library over a residual in scratch, when only a residual keeps it from the product."""
    p = product
    if p.c is None or operands.c is None or p.batch or p.is_empty or library_problem(p, target) is not None:
        return ()
    residual = Operand.scratch(0)
    changed = replace(p, c=(p.ldd, 1), beta=1.0)

    def emitting(tactic: Tactic) -> Callable[[Work], None]:
        def emit(work: Work) -> None:
            assert work.scratch(p.m * p.n * element_nbytes(p.d)) == residual
            work.add(_spread(p, operands, residual, target))
            tactic.emit(work)

        return emit

    by_library = library_tactics(changed, replace(operands, c=residual), target)
    return tuple(replace(t, key=f"{t.key} over C", emit=emitting(t)) for t in by_library)


def _spread(p: Product, operands: Operands, residual: Operand, target: Target) -> Launch[Operand]:
    """C, times beta, in the whole of ``residual``."""
    assert p.c is not None and operands.c is not None
    factor = "f64" if element_nbytes(p.d) == 8 else "f32"
    kernel = Kernel("spread", "spread_c.cu", (("MI_D", c_type(p.d)), ("MI_ACC", factor)))
    beta = np.dtype(factor.replace("f", "float")).type(p.beta)
    arguments = (operands.c, residual, np.int64(p.m), np.int64(p.n), np.int64(p.c[0]), np.int64(p.c[1]), beta)
    return launch_over(kernel, p.m * p.n, arguments, target.multiprocessors)
