"""Random numbers drawn on the device, and Dropout.

Numbers are a function of a key, a stream and the element's number. The key is the node's seed; without one it is the clock
of each launch. With a seed, small results are those of the reference, drawn while lowering; large ones are distributed like
them, but others.
"""

import math
import zlib

import numpy as np

from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import (
    NULL,
    Argument,
    Copy,
    Fill,
    Kernel,
    Launch,
    Lowered,
    Operand,
    inputs,
    outputs,
)
from miniinfer_cli.backends.cuda.contract.types import c_type
from miniinfer_cli.backends.cuda.launching.grids import BLOCK, blocks_for, index_dtype, index_name
from miniinfer_cli.backends.cuda.launching.same_bytes import copied
from miniinfer_cli.ir import Array, numpy_dtype
from miniinfer_cli.ops.registry import lookup

_DRAWN = 1 << 14  # elements that are drawn while lowering, at most


@lowers("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike")
def lower_random(site: Site) -> Lowered:
    """A tensor of random numbers; an operand gives its type and shape alone."""
    count = math.prod(site.out_shape())
    if count == 0:
        return Lowered(())
    normal = site.node.op.startswith("RandomNormal")
    if site.attr("seed") is not None and count <= _DRAWN:
        return _drawn_before(site)
    names = ("mean", "scale") if normal else ("low", "high")
    bounds = [np.float64(site.attr(name, default)) for name, default in zip(names, (0.0, 1.0), strict=True)]
    kernel = _kernel("draw", count, ("MI_Y", c_type(site.out_dtype())), ("MI_NORMAL", str(int(normal))))
    return _launched(site, kernel, count, (*outputs(0), index_dtype(count).type(count), *bounds), per_thread=4)


def _drawn_before(site: Site) -> Lowered:
    like = [np.empty(site.shape(0), numpy_dtype(site.dtype()))] if site.types else []
    (array,) = lookup("", site.node.op).evaluate(like, site.node.attrs, n_outputs=1)
    table = np.ascontiguousarray(array)
    return Lowered((Copy(Operand.output(0), Operand.table(0), table.nbytes),), tables=(table,), tactic="drawn")


@lowers("Bernoulli")
def lower_bernoulli(site: Site) -> Lowered:
    """1 with the probability that the operand gives."""
    count = math.prod(site.shape(0))
    if count == 0:
        return Lowered(())
    drawn, tables = _uniform(site, count)
    kernel = _kernel("bernoulli", count, ("MI_X", c_type(site.dtype())), ("MI_Y", c_type(site.out_dtype())))
    arguments = (*inputs(0), *outputs(0), drawn, index_dtype(count).type(count))
    return _launched(site, kernel, count, arguments, tables)


@lowers("Multinomial")
def lower_multinomial(site: Site) -> Lowered:
    """Classes drawn with given probabilities; a block takes a row."""
    rows, classes = site.shape(0)
    samples = site.out_shape()[1]
    if rows * samples == 0:
        return Lowered(())
    drawn, tables = _uniform(site, rows * samples)
    largest = rows * max(classes, samples)
    index = index_dtype(largest)
    kernel = _kernel(
        "multinomial",
        largest,
        ("MI_X", c_type(site.dtype())),
        ("MI_Y", c_type(site.out_dtype())),
        ("MI_CLASSES", str(BLOCK)),
    )
    arguments = (*inputs(0), *outputs(0), drawn, index.type(classes), index.type(samples), *_stream(site))
    return Lowered((Launch(kernel, (rows,), (BLOCK,), arguments),), tables=tables, tactic="multinomial")


@lowers("Dropout")
def lower_dropout(site: Site) -> Lowered:
    """A copy and a mask of ones, unless the node is, or may be, in training."""
    count = math.prod(site.shape(0))
    if count == 0:
        return Lowered(())
    training = site.known(2)
    if not site.has(2) or (training is not None and not training.reshape(())):
        mask = (Fill(Operand.output(1), 1, count),) if site.gives(1) else ()
        return Lowered((*copied(site).actions, *mask), tactic="copy")
    drawn, tables = _uniform(site, count)
    ratio = c_type(site.dtype(1)) if site.has(1) else "f32"
    kernel = _kernel("dropout", count, ("MI_X", c_type(site.dtype())), ("MI_RATIO", ratio))
    arguments = (
        *inputs(0), site.operand(1), *inputs(2), *outputs(0), site.result(1), drawn, index_dtype(count).type(count),
    )  # fmt: skip
    return _launched(site, kernel, count, arguments, tables)


def _uniform(site: Site, count: int) -> tuple[Argument, tuple[Array, ...]]:
    """Numbers from [0, 1) that the reference draws for the node's seed, as a table; no table where the kernel draws."""
    seed = site.attr("seed")
    if seed is None or count > _DRAWN:
        return NULL, ()
    (drawn,) = lookup("", "RandomUniform").evaluate([], {"shape": (count,), "dtype": 11, "seed": seed}, n_outputs=1)
    return Operand.table(0), (drawn,)


def _stream(site: Site) -> tuple[Argument, ...]:
    """The seed, whether there is one, and a number of the node's own, so that nodes of one seed draw differently."""
    seed = site.attr("seed")
    name = zlib.crc32(site.node.name.encode())
    return np.uint64(0 if seed is None else int(seed) % (1 << 64)), np.int32(seed is not None), np.uint32(name)


def _kernel(name: str, largest: int, *defines: tuple[str, str]) -> Kernel:
    return Kernel(name, f"{name}.cu", (*defines, ("MI_INDEX", index_name(largest))))


def _launched(
    site: Site, kernel: Kernel, count: int, arguments: tuple[Argument, ...], tables: tuple[Array, ...] = (), per_thread: int = 1
) -> Lowered:
    grid = blocks_for(count, site.target.multiprocessors, per_thread)
    return Lowered((Launch(kernel, (grid,), (BLOCK,), (*arguments, *_stream(site))),), tables=tables, tactic=kernel.name)
