"""Edits of a model: graphs, nodes, attributes, types, dimensions, tensors, opsets, functions, and the bytes on the wire."""

import random
from collections.abc import Callable, Iterator

import onnx
from onnx import AttributeProto, TensorProto, helper

from tests.fuzz.semantic import edges, seeds

Edit = Callable[[random.Random, onnx.ModelProto, onnx.GraphProto], None]


def edited_model(rng: random.Random) -> tuple[str, bytes]:
    """The name of the seed that was taken, and the bytes of a model made of it by one to four edits."""
    seed = seeds.any_model(rng)
    model = seed.model()
    if rng.random() < 0.6:
        _hold_inputs(rng, model.graph, seeds.tensors_of(seed, model.graph))
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 4))):
        graphs = list(_graphs(model.graph))
        graph = model.graph if rng.random() < 0.7 else rng.choice(graphs)
        rng.choices(_EDITS, _WEIGHTS)[0](rng, model, graph)
    data = model.SerializeToString()
    return seed.name, _wire(rng, data) if rng.random() < 0.08 else data


def _graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*([attribute.g] if attribute.type == AttributeProto.GRAPH else []), *attribute.graphs):
                yield from _graphs(inner)


def _hold_inputs(rng: random.Random, graph: onnx.GraphProto, data: dict[str, TensorProto]) -> None:
    """Some inputs become constants with the values that the suite gives them: axes, shapes and indices above all."""
    for value in list(graph.input):
        tensor = data.get(value.name)
        if tensor is None or rng.random() >= (0.7 if tensor.data_type in (TensorProto.INT64, TensorProto.INT32) else 0.3):
            continue
        graph.initializer.add().CopyFrom(tensor)
        if rng.random() < 0.9:
            graph.input.remove(value)


def _names(graph: onnx.GraphProto) -> list[str]:
    made = [name for node in graph.node for name in node.output]
    return ["", *made, *(v.name for v in graph.input), *(t.name for t in graph.initializer)]


def _node(rng: random.Random, graph: onnx.GraphProto) -> onnx.NodeProto:
    return rng.choice(graph.node) if graph.node else graph.node.add(op_type="Identity", input=["x"], output=["y"])


# -- attributes ----------------------------------------------------------------------------------------------------


def _attribute(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    node = _node(rng, graph)
    if not node.attribute or rng.random() < 0.15:
        _new_attribute(rng, node)
        return
    attribute = rng.choice(node.attribute)
    draw = rng.random()
    if draw < 0.1:
        node.attribute.remove(attribute)
    elif draw < 0.13:
        node.attribute.add().CopyFrom(attribute)
    elif draw < 0.16:
        attribute.name = rng.choice([a.name for a in node.attribute] + ["axis", "axes", "value", "to", ""])
    elif draw < 0.2:
        attribute.type = rng.choice(list(AttributeProto.AttributeType.values()))
    elif draw < 0.28:
        name = attribute.name
        node.attribute.remove(attribute)
        _fill(rng, node.attribute.add(name=name), rng.choice((1, 2, 3, 4, 6, 7, 8)))
    else:
        _fill(rng, attribute, attribute.type)


def _new_attribute(rng: random.Random, node: onnx.NodeProto) -> None:
    try:
        schema = onnx.defs.get_schema(node.op_type, onnx.defs.onnx_opset_version(), node.domain)
    except onnx.defs.SchemaError:
        return
    if schema.attributes:
        name = rng.choice(sorted(schema.attributes))
        _fill(rng, node.attribute.add(name=name), int(schema.attributes[name].type.value))


def _fill(rng: random.Random, attribute: AttributeProto, kind: int) -> None:
    """Other contents of this kind; of a list, often one item only."""
    attribute.type = kind
    if kind == AttributeProto.INT:
        attribute.i = edges.integer(rng)
    elif kind == AttributeProto.FLOAT:
        attribute.f = rng.choice(edges.FLOATS)
    elif kind == AttributeProto.STRING:
        attribute.s = rng.choice(edges.STRINGS)
    elif kind == AttributeProto.TENSOR:
        attribute.t.CopyFrom(edges.tensor(rng, "t"))
    elif kind == AttributeProto.INTS:
        _change_list(rng, attribute.ints, lambda: edges.integer(rng))
    elif kind == AttributeProto.FLOATS:
        _change_list(rng, attribute.floats, lambda: rng.choice(edges.FLOATS))
    elif kind == AttributeProto.STRINGS:
        _change_list(rng, attribute.strings, lambda: rng.choice(edges.STRINGS))


def _change_list(rng: random.Random, items: list, make: Callable[[], object]) -> None:
    draw = rng.random()
    if items and draw < 0.6:
        items[rng.randrange(len(items))] = make()
    elif items and draw < 0.75:
        del items[rng.randrange(len(items))]
    elif draw < 0.9:
        items.append(make())
    else:
        del items[:]


# -- nodes ---------------------------------------------------------------------------------------------------------


def _operands(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    node = _node(rng, graph)
    draw = rng.random()
    if node.input and draw < 0.4:
        node.input[rng.randrange(len(node.input))] = rng.choice(_names(graph))
    elif node.input and draw < 0.5:
        del node.input[rng.randrange(len(node.input))]
    elif len(node.input) > 1 and draw < 0.65:
        a, b = rng.sample(range(len(node.input)), 2)
        node.input[a], node.input[b] = node.input[b], node.input[a]
    elif draw < 0.75:
        node.input.append(rng.choice(_names(graph)))
    elif node.output and draw < 0.85:
        node.output[rng.randrange(len(node.output))] = rng.choice(["", "other", *_names(graph)])
    elif draw < 0.93:
        node.output.append(f"more{len(node.output)}")
    elif node.output:
        del node.output[-1]


def _constant_operand(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """A constant in the place of any operand, or of any input of the graph."""
    name = f"edge{len(graph.initializer)}"
    tensor = edges.tensor(rng, name)
    if graph.input and rng.random() < 0.3:
        value = rng.choice(graph.input)
        tensor.name = value.name
        graph.input.remove(value)
    else:
        node = _node(rng, graph)
        place = rng.randrange(len(node.input) + 1)
        if place < len(node.input):
            node.input[place] = name
        else:
            node.input.append(name)
    graph.initializer.add().CopyFrom(tensor)


def _operation(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """Another operation in a node's place: that of another model, with or without its attributes."""
    node = _node(rng, graph)
    if rng.random() < 0.05:
        node.domain = rng.choice(("", "ai.onnx.ml", "com.microsoft", "ai.onnx.preview.training", "nobody"))
        return
    other = rng.choice(rng.choice(seeds.suite_models()).model().graph.node)
    node.op_type, node.domain = other.op_type, other.domain
    if rng.random() < 0.7:
        del node.attribute[:]
        node.attribute.extend(other.attribute)


def _more_nodes(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """A node of another model behind what is there, read by an output or by a node; or one twice, or one less."""
    draw = rng.random()
    if draw < 0.2 and graph.node:
        graph.node.remove(_node(rng, graph))
        return
    if draw < 0.3:
        graph.node.add().CopyFrom(_node(rng, graph))
        return
    source = rng.choice(seeds.suite_models()).model()
    added = graph.node.add()
    added.CopyFrom(rng.choice(source.graph.node))
    names, tag = _names(graph), len(graph.node)
    for number, name in enumerate(added.input):
        held = next((t for t in source.graph.initializer if t.name == name), None)
        added.input[number] = rng.choice(names) if held is None else f"{name}_{tag}"
        if held is not None:
            copied = graph.initializer.add()
            copied.CopyFrom(held)
            copied.name = added.input[number]
    for number in range(len(added.output)):
        added.output[number] = f"added{tag}_{number}"
    if graph.output and added.output and rng.random() < 0.6:
        rng.choice(graph.output).name = added.output[0]
    elif added.output:
        graph.output.add(name=added.output[0])


def _order(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    nodes = list(graph.node)
    rng.shuffle(nodes)
    del graph.node[:]
    graph.node.extend(nodes)


def _subgraphs(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """A sub-graph is put elsewhere, goes into itself, or stands where there should be none."""
    node = _node(rng, graph)
    inner = onnx.GraphProto()
    inner.CopyFrom(rng.choice(list(_graphs(model.graph))))
    if len(inner.SerializeToString()) > 50_000:
        return
    name = rng.choice(("body", "then_branch", "else_branch", "value", "cond"))
    held = [a for a in node.attribute if a.type == AttributeProto.GRAPH]
    target = rng.choice(held) if held and rng.random() < 0.7 else node.attribute.add(name=name, type=AttributeProto.GRAPH)
    target.g.CopyFrom(inner)


# -- values --------------------------------------------------------------------------------------------------------


def _value(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """The type, the sizes, the kind or the name of an input, output or inner value."""
    values = [*graph.input, *graph.input, *graph.output, *graph.value_info]
    if not values:
        return
    value = rng.choice(values)
    kind = value.type
    draw = rng.random()
    if draw < 0.25:
        kind.tensor_type.elem_type = rng.choice(edges.TYPES)
    elif draw < 0.6 and kind.tensor_type.shape.dim:
        dim = rng.choice(kind.tensor_type.shape.dim)
        if rng.random() < 0.4:
            dim.dim_param = rng.choice(("N", "M", "N+1", "2*N", "", "?", "-1", "a b", "N" * 200))
        else:
            dim.dim_value = rng.choice((*edges.SIZES, -1))
    elif draw < 0.7:
        kind.tensor_type.shape.dim.add(dim_value=rng.choice(edges.SIZES))
    elif draw < 0.77 and kind.tensor_type.shape.dim:
        del kind.tensor_type.shape.dim[-1]
    elif draw < 0.82:
        kind.tensor_type.ClearField("shape")
    elif draw < 0.92:
        inner = onnx.TypeProto()
        inner.CopyFrom(kind)
        make = rng.choice((helper.make_sequence_type_proto, helper.make_optional_type_proto))
        made = make(inner) if rng.random() < 0.7 else helper.make_map_type_proto(TensorProto.INT64, inner)
        kind.CopyFrom(made)
    elif draw < 0.95:
        kind.Clear()
    else:
        value.name = rng.choice(("", "other", *_names(graph)))


def _listed(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """Inputs and outputs: one less, one twice, one more, in another order."""
    items = rng.choice((graph.input, graph.output))
    draw = rng.random()
    if items and draw < 0.3:
        del items[rng.randrange(len(items))]
    elif items and draw < 0.5:
        items.add().CopyFrom(rng.choice(items))
    elif draw < 0.8:
        items.add(name=rng.choice(_names(graph)))
    else:
        shuffled = list(items)
        rng.shuffle(shuffled)
        del items[:]
        items.extend(shuffled)


def _stored(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """An initializer: its type, sizes, bytes, place, or all of it."""
    if not graph.initializer:
        return
    tensor = rng.choice(graph.initializer)
    draw = rng.random()
    if draw < 0.2:
        tensor.data_type = rng.choice((*edges.TYPES, 0, 99))
    elif draw < 0.4 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice((*edges.SIZES, -1))
    elif draw < 0.5:
        tensor.dims.append(rng.choice(edges.SIZES))
    elif draw < 0.6:
        tensor.raw_data = tensor.raw_data[: rng.randrange(len(tensor.raw_data) + 1)]
    elif draw < 0.72:
        tensor.data_location = TensorProto.EXTERNAL
        for key in rng.sample(("location", "offset", "length", "checksum"), rng.randrange(1, 5)):
            places = (
                "m.onnx",
                "data",
                "..",
                ".",
                "/etc/passwd",
                "",
                "a\0b",
                "x" * 300,
                "-1",
                "0",
                "4",
                str(2**62),
                str(2**70),
                "1e3",
            )
            tensor.external_data.add(key=key, value=rng.choice(places))
    else:
        tensor.CopyFrom(edges.tensor(rng, tensor.name))


def _versions(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    draw = rng.random()
    if model.opset_import and draw < 0.8:
        rng.choice(model.opset_import).version = rng.choice((*range(1, 29), 0, -1, 2**31))
    elif draw < 0.9:
        model.ir_version = rng.choice((0, 1, 3, 4, 8, 10, 13, 14, 99))
    else:
        model.opset_import.add(
            domain=rng.choice(("", "ai.onnx.ml", "com.microsoft", "nobody")), version=rng.choice((1, 2, 5, 21))
        )


def _function(rng: random.Random, model: onnx.ModelProto, graph: onnx.GraphProto) -> None:
    """A node becomes the call of a function that holds it; or a function that is there is changed."""
    if model.functions and rng.random() < 0.5:
        body = rng.choice(model.functions)
        if body.node and rng.random() < 0.5:
            inner = onnx.GraphProto(node=body.node)
            rng.choice((_attribute, _operands, _operation))(rng, model, inner)
            del body.node[:]
            body.node.extend(inner.node)
        elif body.input:
            del body.input[rng.randrange(len(body.input))]
        return
    node = _node(rng, graph)
    if rng.random() < 0.2:
        node.domain, node.op_type = "own", "F"
    inputs, outputs = [n for n in dict.fromkeys(node.input) if n], [n for n in dict.fromkeys(node.output) if n]
    body = helper.make_function("own", "F", inputs, outputs, [node], list(model.opset_import))
    model.functions.add().CopyFrom(body)
    if not any(o.domain == "own" for o in model.opset_import):
        model.opset_import.add(domain="own", version=1)
    node.CopyFrom(helper.make_node("F", inputs, outputs, domain="own"))


_TABLE: tuple[tuple[Edit, int], ...] = (
    (_attribute, 24), (_operands, 14), (_constant_operand, 14), (_operation, 8), (_more_nodes, 12), (_order, 1), (_subgraphs, 3),
    (_value, 16), (_listed, 3), (_stored, 8), (_versions, 4), (_function, 3),
)  # fmt: skip
_EDITS, _WEIGHTS = [e for e, _ in _TABLE], [w for _, w in _TABLE]


def _wire(rng: random.Random, data: bytes) -> bytes:
    """A few bytes of the file changed, left out, doubled, or put elsewhere."""
    buffer = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randrange(len(buffer) + 1)
        end = min(len(buffer), at + rng.choice((1, 1, 2, 8, 64)))
        match rng.randrange(5):
            case 0 if at < len(buffer):
                buffer[at] ^= 1 << rng.randrange(8)
            case 1:
                del buffer[at:end]
            case 2:
                buffer[at:at] = buffer[at:end]
            case 3:
                buffer[at:end] = rng.choice((b"\xff\xff\xff\xff\x0f", b"\x80" * 12, b"\0", b"\x0a\xff\x01", b"\x0b", b"\x0c"))
            case _:
                other = rng.randrange(len(buffer) + 1)
                buffer[at:end] = buffer[other : other + end - at]
    return bytes(buffer)
