"""Matrix products whose sizes keep the library from its fast kernels, made so that these take them.

The library uses the matrix units at full speed where n, k and the distances between rows are multiples of 16 bytes; elsewhere it
takes up to seven times as long. There are two ways out:

- *padded*: operands are copied into rows that are whole vectors, with zeros behind (weights once, when they are loaded), and the
  result is copied out of such rows.
- *interleaved*: rows of odd length whose numbers differ by eight (of f16; by four of f32) lie alike, and from a column of their
  own on at multiples of 16 bytes. So the result is eight interleaved matrices, which one call makes as a batch: of rows r, r + 8,
  ... of A, and of B from its column ``r * shift`` on. What is left are a few columns on either side, and rows where eight do
  not divide their number. Nothing is copied; B is read eight times, so it pays where there are many rows.
"""

from dataclasses import dataclass

from miniinfer_cli.backends.cuda.contract.problems import Compute
from miniinfer_cli.backends.cuda.contract.tactic import Tactic
from miniinfer_cli.backends.cuda.contract.target import Target
from miniinfer_cli.backends.cuda.tactics.products.interleaved_products import INTERLEAVED, interleaved_tactic, turns_of
from miniinfer_cli.backends.cuda.tactics.products.library_products import library_problem
from miniinfer_cli.backends.cuda.tactics.products.padded_products import PADDED, padded_tactic, padding_of
from miniinfer_cli.backends.cuda.tactics.products.product_heuristic import PRODUCTS, ProductHeuristic
from miniinfer_cli.backends.cuda.tactics.products.product_records import Operands, Product

__all__ = ["INTERLEAVED", "PADDED", "Aligned", "aligned_tactics"]


@dataclass(frozen=True, slots=True)
class Aligned:
    """The tactics of a product whose sizes are in the way, those first that take the least time by the heuristic's table.

    ``ahead`` are faster than the library as it is, ``beside`` are not.
    """

    ahead: tuple[Tactic, ...] = ()
    beside: tuple[Tactic, ...] = ()


def aligned_tactics(product: Product, operands: Operands, target: Target, table: ProductHeuristic = PRODUCTS) -> Aligned:
    """The product by the library over sizes that it likes; nothing where those that there are do, or no sizes would."""
    problem = library_problem(product, target, table)
    if problem is None or problem.compute not in (Compute.F32, Compute.TF32) or not (product.a.is_half or target.tf32):
        return Aligned()
    limit = table.gain * table.misaligned_us(product)
    ways: list[tuple[float, Tactic]] = []
    padding = padding_of(product, operands)
    if padding is not None:
        ways.append((padding.time_us(table), padded_tactic(padding, operands, target)))
    turns = turns_of(product, operands)
    if turns is not None:
        ways.append((turns.time_us(table), interleaved_tactic(turns, operands, target)))
    ways.sort(key=lambda way: way[0])
    return Aligned(tuple(t for us, t in ways if us < limit), tuple(t for us, t in ways if us >= limit))
