"""``inspect --lint``: what a graph says of its speed with no run."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.diagnosis.findings import Advice, Figure, Remark
from miniinfer_cli.diagnosis.fusing import blocked_fusions
from miniinfer_cli.diagnosis.heavy import Heavy, Types, heavy_nodes, nbytes
from miniinfer_cli.ir import DType, Graph, Node, TensorType, Value
from miniinfer_cli.ir.dims import names_in
from miniinfer_cli.wording import Wording

FULL_LEVEL = 2
"""The level of optimization from which on all passes run."""
_COUNTS = 0.01  # part of all operations of a graph, or of what it moves, from which on a node is worth a remark
_FIX_SIZES = Wording("build(model, shapes={name: sizes})", flags="miniinfer build --shapes INPUT:SIZES")
_WASTE = 0.1  # part of the multiplications on zeros from which on it is called a waste


@dataclass(frozen=True, slots=True)
class HostStep:
    """A node that a GPU would leave to the host, why, and the bytes of its copies; None where only a run can tell."""

    node: str
    operation: str
    reason: str
    copied_nbytes: int | None


@dataclass(frozen=True, slots=True)
class Subject:
    """An optimized graph, and what is known of it besides.

    ``types``: of its values at the optimal sizes. ``opt_level``, ``disabled``, ``tf32``: how it was built. ``host_steps``: of a
    GPU. ``fixed_nodes``: nodes that the passes leave where the sizes are fixed at the optimal ones; None where none is open, or
    nobody tried.
    """

    graph: Graph
    types: Types
    opt_level: int = FULL_LEVEL
    disabled: Sequence[str] = ()
    tf32: bool = True
    host_steps: Sequence[HostStep] = ()
    fixed_nodes: int | None = None


def lint(subject: Subject) -> tuple[Remark, ...]:
    """Every remark on the graph, rule by rule."""
    return tuple(remark for rule in RULES for remark in rule(subject))


def left_out_passes(subject: Subject) -> Iterator[Remark]:
    """The plan was built with less than all passes."""
    level, disabled = subject.opt_level, sorted(subject.disabled)
    if level < FULL_LEVEL:
        text = f"built at optimization level {level}: no operation is fused, and no layout chosen"
        evidence = (Figure("optimization level", level), Figure("nodes", len(subject.graph)))
        how = Wording(
            f"build(model, opt_level={FULL_LEVEL}), the default", flags=f"miniinfer build --opt-level {FULL_LEVEL} (the default)"
        )
        advice = Advice("build it with all passes", how)
        yield Remark("passes", (), text, evidence, advice)
    if disabled:
        text = f"built without {', '.join(disabled)}"
        how = Wording("build(model) without disable_passes", flags="miniinfer build without --disable-pass")
        advice = Advice("build it with all passes", how)
        yield Remark("passes", (), text, (Figure("passes left out", len(disabled)),), advice)


def host_steps(subject: Subject) -> Iterator[Remark]:
    """What a GPU would leave to the host, by operation."""
    for operation in dict.fromkeys(s.operation for s in subject.host_steps):
        steps = [s for s in subject.host_steps if s.operation == operation]
        copied = [s.copied_nbytes for s in steps if s.copied_nbytes is not None]
        reasons = "; ".join(dict.fromkeys(s.reason for s in steps))
        evidence = (Figure("steps", len(steps)), *([Figure("copied an inference", sum(copied), "bytes")] if copied else []))
        advice = Advice(
            "take it out of the model, or express it by operations that run on a GPU",
            "docs/ops.md lists them; before and after a model, such work may run beside the GPU",
        )
        yield Remark(
            "host step", tuple(s.node for s in steps), f"{operation} runs on the host: {reasons}", evidence, advice, "gpu"
        )


def fusion_blocked(subject: Subject) -> Iterator[Remark]:
    """Elementwise work that is not fused, and what is in the way."""
    if subject.opt_level < FULL_LEVEL or subject.disabled:
        return  # then it is the build that is in the way
    total = sum(_moved(subject).values())
    found = [b for b in blocked_fusions(subject.graph, subject.types) if b.sizes or b.nbytes >= _COUNTS * total]
    for blocker in dict.fromkeys(b.blocker for b in found):
        these = [b for b in found if b.blocker == blocker]
        first = these[0]
        if first.output:
            advice = Advice(
                f"leave the output {blocker} out where nobody needs it",
                Wording(
                    "take it off the model's outputs, or off mark_outputs",
                    flags="take it off the model's outputs, or build without --mark-outputs for it",
                ),
                names=(blocker,),
            )
        elif first.sizes:
            advice = Advice("fix the sizes that stay open", _FIX_SIZES)
        else:
            advice = Advice(
                f"compute {first.reader.name!r} in front of {blocker!r}, or with the other reader",
                "change the order in the model",
            )
        text = (
            f"{first.reader.op} {first.reader.name!r} is not fused with {first.producer.op} {first.producer.name!r}: {first.why}"
        )
        moved = sum(b.nbytes for b in these)
        evidence = (Figure("fusions blocked", len(these)), Figure("moved for it", moved, "bytes"))
        yield Remark("fusion blocked", tuple(b.reader.name for b in these), text, evidence, advice)


def layout_copies(subject: Subject) -> Iterator[Remark]:
    """Transposes that are left, of a size that counts."""
    names, evidence = _copies(subject, "Transpose")
    if names:
        text = f"{_several(len(names), 'Transpose')} left after the layouts were chosen: {few(names)}"
        advice = Advice(
            "give and take data in the order in which it is computed",
            "export with channels last, or without the permutation in the model",
        )
        yield Remark("layout copy", names, text, evidence, advice)


def odd_channels(subject: Subject) -> Iterator[Remark]:
    """Channels that are no multiple of what 16 bytes hold, of products that count; a caller's input has those that it has."""
    for items, multiple, share in _odd(subject, lambda h: h.wasted < _WASTE):
        sizes = sorted({n for h in items for n in (h.channels_in, h.channels_out) if n % multiple})
        text = (
            f"{_several(len(items), 'product')} of {_numbers(sizes)} channels, no multiple of {multiple}"
            f" (16 bytes of {items[0].type.dtype}): {few([h.node.name for h in items])}"
        )
        more = ", ".join(f"{n} to {-(-n // multiple) * multiple}" for n in sizes[:4])
        advice = Advice(f"fill the channels up with zeros: {more}", "pad the weights in the model (with what reads the channels)")
        evidence = (Figure("of all operations", 100 * share, "%"), Figure("multiple", multiple))
        yield Remark("odd channels", tuple(h.node.name for h in items), text, evidence, advice, "gpu")


def padding_waste(subject: Subject) -> Iterator[Remark]:
    """Multiplications on zeros, where channels are filled up to what tensor cores take; and copies that only pad."""
    for items, multiple, share in _odd(subject, lambda h: h.wasted >= _WASTE):
        flops = sum(h.flops for h in items)
        wasted = sum(h.flops * h.wasted for h in items) / flops if flops else max(h.wasted for h in items)
        sizes = sorted({n for h in items for n in (h.channels_in, h.channels_out) if n % multiple})
        text = (
            f"{_several(len(items), 'product')} of {_numbers(sizes)} channels, filled up to multiples of {multiple}:"
            f" {few([h.node.name for h in items])}"
        )
        evidence = (Figure("multiplications on zeros", 100 * wasted, "%"), Figure("of all operations", 100 * share, "%"))
        advice = Advice(f"use multiples of {multiple} channels, which cost as much", "change the widths before training")
        yield Remark("padding waste", tuple(h.node.name for h in items), text, evidence, advice, "gpu")
    pads, moved_by_pads = _copies(subject, "Pad")
    if pads:
        text = f"{_several(len(pads), 'Pad')} left, each a copy of what it pads: {few(pads)}"
        advice = Advice("pad by the attribute of the convolution or pool behind it", "export with pads, or let zeros pad")
        yield Remark("padding waste", pads, text, moved_by_pads, advice)


def f32_weights(subject: Subject) -> Iterator[Remark]:
    """Products in f32: tensor cores take half as long in f16, and weights are half as large."""
    items = [h for h in heavy_nodes(subject.graph, subject.types) if h.type.dtype is DType.F32]
    if not items:
        return
    weights = sum(nbytes(h.weights) for h in items)
    evidence = [Figure("products in f32", len(items)), Figure("f32 weights of them", weights, "bytes")]
    if subject.tf32:
        text = "products are computed in TF32, and weights are read as f32"
    else:
        text = "products are computed in f32 without tensor cores: the plan was built without TF32"
        how = Wording("build(model, tf32=True)", flags="miniinfer build without --no-tf32")
        advice = Advice("let tensor cores compute f32 products, rounded to 11 bits", how)
        yield Remark("TF32 off", tuple(h.node.name for h in items), text, tuple(evidence), advice, "gpu")
        text = "weights are read as f32"
    advice = Advice(
        "build it in f16 or bf16: half the bytes, and twice the rate of tensor cores",
        Wording("build(model, precision='f16')", flags="miniinfer build --fp16 or --bf16"),
    )
    yield Remark("f32 weights", tuple(h.node.name for h in items), text, tuple(evidence), advice, "gpu")


def open_dimensions(subject: Subject) -> Iterator[Remark]:
    """Named sizes that keep passes from what they could do, and sizes that only data decide."""
    graph = subject.graph
    names = tuple(dict.fromkeys(n for v in graph.inputs for n in _names(v)))
    if subject.fixed_nodes is not None and subject.fixed_nodes < len(graph):
        fewer = len(graph) - subject.fixed_nodes
        text = f"at fixed sizes the passes leave {fewer} nodes fewer; open are {', '.join(names)}"
        evidence = (Figure("nodes", len(graph)), Figure("nodes at fixed sizes", subject.fixed_nodes))
        advice = Advice("fix what is always of one size", _FIX_SIZES)
        yield Remark("open dimension", names, text, evidence, advice)
    late = [n for n in graph if any(d.startswith("?") for v in n.outputs for d in _names(v))]
    heads = [n for n in late if not any(d.startswith("?") for v in n.inputs if v is not None for d in _names(v))]
    if heads:
        told = tuple(n.name for n in heads)
        text = f"sizes behind {few([f'{n.op} {n.name!r}' for n in heads])} are known only when data have decided them"
        advice = Advice("keep a fixed size, with a mask, where the model allows it", "change the model")
        yield Remark("open dimension", told, text, (Figure("nodes behind them", len(late)),), advice)


def idle_bindings(subject: Subject) -> Iterator[Remark]:
    """Inputs that nobody reads, and outputs that nothing computes."""
    graph = subject.graph
    for value in graph.inputs:
        if not value.users and not graph.is_output(value):
            evidence = (Figure("copied an inference", nbytes(subject.types.get(value, value.type)), "bytes"),)
            advice = Advice("leave it out of the model", "take it off the model's inputs")
            yield Remark("unused input", (value.name,), f"nothing reads the input {value.name}", evidence, advice)
    seen: dict[Value, str] = {}
    for name, value in zip(graph.output_names, graph.outputs, strict=True):
        why = ""
        if value.constant is not None:
            why = "is a constant"
        elif value.producer is None:
            why = f"is the input {value.name}, as it comes"
        elif value in seen:
            why = f"is the output {seen[value]} once more"
        seen.setdefault(value, name)
        if why:
            evidence = (Figure("copied an inference", nbytes(subject.types.get(value, value.type)), "bytes"),)
            advice = Advice("leave it out of the model", "take it off the model's outputs")
            yield Remark("unused output", (name,), f"the output {name} {why}", evidence, advice)


RULES: tuple[Callable[[Subject], Iterator[Remark]], ...] = (
    *(left_out_passes, host_steps, fusion_blocked, layout_copies, odd_channels, padding_waste, f32_weights),
    *(open_dimensions, idle_bindings),
)


def _odd(subject: Subject, wanted: Callable[[Heavy], bool]) -> Iterator[tuple[list[Heavy], int, float]]:
    """Products of odd channels that count and are wanted, by element type; their multiple; their part of all operations."""
    products = list(heavy_nodes(subject.graph, subject.types))
    total = sum(h.flops for h in products)
    odd = [h for h in products if _is_odd(h) and h.flops >= _COUNTS * total and wanted(h)]
    for dtype in dict.fromkeys(h.type.dtype for h in odd):
        items = [h for h in odd if h.type.dtype is dtype]
        yield items, items[0].align, sum(h.flops for h in items) / total if total else 0.0


def _is_odd(product: Heavy) -> bool:
    """A row or a column alone is no matter of tensor cores, and what the caller gives is as it is."""
    channels = [product.channels_out] if product.given else [product.channels_in, product.channels_out]
    depthwise = product.groups > 1 and product.channels_in == 1
    return not depthwise and all(n > 1 for n in channels) and any(n % product.align for n in channels)


def _copies(subject: Subject, op: str) -> tuple[tuple[str, ...], tuple[Figure, ...]]:
    """Nodes of an operation that only copies, which move enough to count, and what they move."""
    moved = _moved(subject)
    total = sum(moved.values())
    nodes = [n for n in subject.graph if n.is_op(op) and moved[n] > _COUNTS * total]
    part = sum(moved[n] for n in nodes)
    share = 100 * part / total if total else 0.0
    return tuple(n.name for n in nodes), (Figure("moved by them", part, "bytes"), Figure("of all that nodes move", share, "%"))


def _moved(subject: Subject) -> dict[Node, int]:
    """Bytes that each node reads and writes at the optimal sizes, weights among them."""
    types = subject.types
    return {n: sum(nbytes(types.get(v, v.type)) for v in (*n.inputs, *n.outputs) if v is not None) for n in subject.graph}


def _names(value: Value) -> list[str]:
    kind = value.type
    return [n for d in kind.shape or () for n in sorted(names_in(d))] if isinstance(kind, TensorType) else []


def _several(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _numbers(sizes: Sequence[Any]) -> str:
    return ", ".join(map(str, sizes[:6])) + (" ..." if len(sizes) > 6 else "")


def few(names: Sequence[str]) -> str:
    """The first three names, and how many more there are."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
