"""The model while it is compiled: types, dimensions, constants, and the graph that passes edit."""

from engine_format.dtypes import DType
from miniinfer_cli.ir.arrays import Array, dtype_of, numpy_dtype
from miniinfer_cli.ir.constants import Constant, constant
from miniinfer_cli.ir.dims import Dim, Sym, symbol
from miniinfer_cli.ir.graph import Graph
from miniinfer_cli.ir.node import Node, Value
from miniinfer_cli.ir.numerics import KeptNode, LostWeight, Numerics
from miniinfer_cli.ir.states import StatePair, States
from miniinfer_cli.ir.types import MapType, OptionalType, SequenceType, Shape, TensorType, Type

__all__ = [
    "Array", "Constant", "DType", "Dim", "Graph", "KeptNode", "LostWeight", "MapType", "Node", "Numerics", "OptionalType",
    "SequenceType", "Shape", "StatePair",
    "States", "Sym", "TensorType", "Type", "Value", "constant", "dtype_of", "numpy_dtype", "symbol",
]  # fmt: skip
