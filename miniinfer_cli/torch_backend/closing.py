"""A captured graph without its weights and sizes among the inputs: what is exported."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from miniinfer_cli.torch_backend.fused import write_out
from miniinfer_cli.torch_backend.reasons import NotTaken

Size = tuple[int, int]
"""A tensor among the arguments, and one of its dimensions."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What the arguments of a captured graph are, by number: ``constants`` (parameters and buffers of modules), ``tensors``,
    ``sizes``, integers that are dimensions of tensors, and ``unused`` ones, such as strides.
    """

    constants: tuple[int, ...]
    tensors: tuple[int, ...]
    sizes: Mapping[int, Size]
    unused: tuple[int, ...] = ()


def sort_arguments(graph: fx.GraphModule, examples: Sequence[Any]) -> Arguments:
    """Which argument is what. Raises NotTaken for a number that is no dimension of a tensor, and for other kinds."""
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    constants: list[int] = []
    tensors: list[int] = []
    numbers: list[int] = []
    for i, value in enumerate(examples):
        if isinstance(value, torch.Tensor):
            fixed = isinstance(value, torch.nn.Parameter) or getattr(value, "_dynamo_static_input_type", None) is not None
            (constants if fixed else tensors).append(i)
        elif isinstance(value, (int, torch.SymInt)):
            numbers.append(i)
        else:
            raise NotTaken("values", f"argument {i} is a {type(value).__name__}, no tensor")
    shapes = {i: _symbolic(inputs[i]) for i in tensors}
    sizes: dict[int, Size] = {}
    unused = [i for i in numbers if not inputs[i].users]
    for i in set(numbers) - set(unused):
        wanted = str(inputs[i].meta.get("example_value", examples[i]))
        found = [(t, d) for t, shape in shapes.items() for d, size in enumerate(shape) if str(size) == wanted]
        if not found:
            raise NotTaken("values", f"argument {i} ({inputs[i].name}) is a number, and no size of a tensor")
        sizes[i] = found[0]
    return Arguments(tuple(constants), tuple(tensors), sizes, tuple(unused))


def open_dims(graph: fx.GraphModule, arguments: Arguments) -> list[list[int]]:
    """Of each tensor the dimensions whose sizes PyTorch left open."""
    inputs = [node for node in graph.graph.nodes if node.op == "placeholder"]
    shapes = [_symbolic(inputs[i]) for i in arguments.tensors]
    return [[d for d, size in enumerate(shape) if not str(size).isdecimal()] for shape in shapes]


def close_over(graph: fx.GraphModule, arguments: Arguments, values: Sequence[Any]) -> fx.GraphModule:
    """The graph of the tensors alone: constants are attributes with the ``values`` of now, sizes are read off tensors.

    Raises NotTaken where a result is no tensor.
    """
    made = copy.deepcopy(graph.graph)
    inputs = [node for node in made.nodes if node.op == "placeholder"]
    attributes: dict[str, Any] = dict(graph.named_children())
    attributes.update({name.replace(".", "_"): value for name, value in graph.named_buffers(recurse=False)})
    for i in arguments.constants:
        name = f"_constant_{i}"
        attributes[name] = values[i].detach()
        with made.inserting_before(inputs[i]):
            inputs[i].replace_all_uses_with(made.get_attr(name))
    for i, (tensor, dim) in arguments.sizes.items():
        with made.inserting_after(inputs[max(arguments.tensors)]):
            inputs[i].replace_all_uses_with(made.call_method("size", (inputs[tensor], dim)))
    for i in (*arguments.constants, *arguments.sizes, *arguments.unused):
        made.erase_node(inputs[i])
    (result,) = (node for node in made.nodes if node.op == "output")
    for value in result.args[0] if isinstance(result.args[0], (tuple, list)) else (None,):
        if not isinstance(value, fx.Node) or not isinstance(value.meta.get("example_value"), torch.Tensor):
            raise NotTaken("values", "a result is no tensor")
    for name, value in vars(graph).items():
        if isinstance(value, torch.Tensor):
            attributes.setdefault(name, value)
    write_out(made)
    return fx.GraphModule(attributes, made)


def _symbolic(node: fx.Node) -> Sequence[Any]:
    """The sizes of an argument, with symbols for those that are open."""
    example = node.meta.get("example_value")
    return tuple(example.shape) if isinstance(example, torch.Tensor) else ()
