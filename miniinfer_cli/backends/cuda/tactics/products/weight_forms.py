"""Weights and biases of a product in the forms that the library reads fastest, derived once."""

import math

import numpy as np

from miniinfer_cli.backends.cuda.contract.steps import Derived
from miniinfer_cli.backends.cuda.tactics.products.product_records import Product
from miniinfer_cli.ir import Constant, Graph, TensorType
from miniinfer_cli.ops import insert


def is_matrix(constant: Constant, rows: int, columns: int) -> bool:
    """True when the constant has as many elements as the matrix; its axes of size 1 are no matter."""
    return math.prod(constant.shape) == rows * columns


def columns_of(weights: Constant, product: Product, n: int, k: int) -> Derived:
    """B with its columns as rows, ``[n, k]``, zeros where there is nothing: which the library reads fastest."""
    graph = Graph("weights")
    value = graph.add_input("weights", TensorType(weights.dtype, weights.shape))
    stored = (product.n, product.k) if product.transpose_b else (product.k, product.n)
    if weights.shape != stored:
        value = insert(graph, "Reshape", value, graph.add_constant(np.array(stored, np.int64), "stored"))
    if not product.transpose_b:
        value = insert(graph, "Transpose", value, perm=[1, 0])
    if (n, k) != (product.n, product.k):
        pads = np.array([0, 0, n - product.n, k - product.k], np.int64)
        value = insert(graph, "Pad", value, graph.add_constant(pads, "pads"))
    graph.set_outputs([value])
    return Derived((weights,), f"columns of {stored} {'rows' if product.transpose_b else 'columns'} as {n}x{k}", graph)


def longer(bias: Constant, n: int) -> Derived:
    """A bias of n elements, zeros behind those that there are."""
    graph = Graph("bias")
    value = graph.add_input("bias", TensorType(bias.dtype, bias.shape))
    value = insert(graph, "Reshape", value, graph.add_constant(np.array([-1], np.int64), "flat"))
    pads = np.array([0, n - math.prod(bias.shape)], np.int64)
    graph.set_outputs([insert(graph, "Pad", value, graph.add_constant(pads, "pads"))])
    return Derived((bias,), f"padded to {n}", graph)
