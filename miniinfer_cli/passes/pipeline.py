"""The passes in their order, with the reasons for it, and ``optimize``, which runs them on a graph."""

from collections.abc import Callable, Sequence

from miniinfer_cli.ir import Graph
from miniinfer_cli.passes.absorb_attention_layout import absorb_attention_layout
from miniinfer_cli.passes.absorb_transposes import absorb_transposes
from miniinfer_cli.passes.assign_layouts import assign_layouts
from miniinfer_cli.passes.cancel_reshapes import cancel_reshapes
from miniinfer_cli.passes.cancel_transposes import cancel_transposes
from miniinfer_cli.passes.collect_appends import collect_appends
from miniinfer_cli.passes.compose_movements import compose_movements
from miniinfer_cli.passes.driver import Pass, Phase, Report, expect_passes, run_phases
from miniinfer_cli.passes.eliminate_common_subexpressions import eliminate_common_subexpressions
from miniinfer_cli.passes.fold_affine import fold_affine
from miniinfer_cli.passes.fold_batch_norm import fold_batch_norm
from miniinfer_cli.passes.fold_constants import fold_constants
from miniinfer_cli.passes.fuse_conv import fuse_conv
from miniinfer_cli.passes.fuse_matmul import fuse_matmul
from miniinfer_cli.passes.fuse_pointwise import fuse_pointwise
from miniinfer_cli.passes.inline_branches import inline_branches
from miniinfer_cli.passes.look_up_rows import look_up_rows
from miniinfer_cli.passes.merge_projections import merge_projections
from miniinfer_cli.passes.place_channels import place_channels
from miniinfer_cli.passes.precision.drop_inner_quantization import drop_inner_quantization
from miniinfer_cli.passes.precision.fuse_quantized import fuse_quantized
from miniinfer_cli.passes.precision.narrow_floats import narrow_floats
from miniinfer_cli.passes.precision.raise_quantization import raise_quantization
from miniinfer_cli.passes.precision.sink_dequantization import sink_dequantization
from miniinfer_cli.passes.precision.split_quantized_products import split_quantized_products
from miniinfer_cli.passes.raise_lookups import raise_lookups
from miniinfer_cli.passes.raise_selections import raise_selections
from miniinfer_cli.passes.recognize_activations import recognize_activations
from miniinfer_cli.passes.recognize_attention import recognize_attention
from miniinfer_cli.passes.recognize_causal_masks import recognize_causal_masks
from miniinfer_cli.passes.recognize_normalization import recognize_normalization
from miniinfer_cli.passes.recognize_rotary_embedding import recognize_rotary_embedding
from miniinfer_cli.passes.remove_dead_nodes import remove_dead_nodes
from miniinfer_cli.passes.remove_identities import remove_identities
from miniinfer_cli.passes.replace_cast_like import replace_cast_like
from miniinfer_cli.passes.replace_einsum import replace_einsum
from miniinfer_cli.passes.replace_full_gathers import replace_full_gathers
from miniinfer_cli.passes.simplify_shape_operands import simplify_shape_operands
from miniinfer_cli.passes.sink_movements import sink_movements
from miniinfer_cli.passes.sink_transposes import sink_transposes
from miniinfer_cli.passes.split_gemm import split_gemm
from miniinfer_cli.passes.split_packed import split_packed
from miniinfer_cli.passes.trace_shapes import trace_shapes
from miniinfer_cli.passes.trim_captures import trim_captures

# Levels: 0 what is needed to run at all, 1 cleaning and folding, 2 recognition, layouts and fusion (the default), 3 what
# takes long to search for as well; no pass of this list does, and plugins may.
_DEAD = Pass(remove_dead_nodes, 0)

# What keeps a graph small; every phase that rewrites much ends with it.
_CLEANING = (
    _DEAD,
    Pass(fold_constants, 1),
    Pass(eliminate_common_subexpressions, 1),
    Pass(remove_identities, 1),
    Pass(trace_shapes, 1),
    Pass(simplify_shape_operands, 1),
    Pass(cancel_reshapes, 1),
    Pass(cancel_transposes, 1),
)

# What moves data without computing: less of it, and further down, where it often meets its own reverse.
_MOVING = (Pass(split_packed, 1), Pass(compose_movements, 1), Pass(sink_movements, 1))

_QUANTIZED = (Pass(sink_dequantization, 2), Pass(raise_quantization, 2))

PHASES: tuple[Phase, ...] = (
    # Fewer nodes and fewer forms first: everything below searches what is left.
    Phase(
        "simplify",
        (
            Pass(inline_branches, 1),
            Pass(trim_captures, 1),
            *_CLEANING,
            Pass(replace_cast_like, 1),
            Pass(replace_einsum, 1),
            Pass(replace_full_gathers, 1),
            Pass(split_gemm, 1),
            Pass(split_quantized_products, 2),
            Pass(fold_batch_norm, 1),
            Pass(fold_affine, 1),
            # Only when Gemms are split: what a fully connected layer reads is then seen through its Reshapes.
            *_MOVING,
        ),
    ),
    # What frameworks take apart becomes one node again, as long as it is in primitive pieces. Attention is looked for when
    # what surrounds it is whole, and its operands are joined when it is found, and when its pieces read them no more. Loops
    # are looked at once constants are folded: whether what they append is always of one shape may hang on these. Selections move
    # up past what was recognised; what two of them select alike is one behind the next cleaning, and moves further.
    Phase(
        "recognize",
        (
            Pass(collect_appends, 1),
            Pass(drop_inner_quantization, 2),
            Pass(recognize_normalization, 2),
            Pass(recognize_activations, 2),
            Pass(recognize_rotary_embedding, 2),
            Pass(recognize_attention, 2),
            Pass(recognize_causal_masks, 2),
            _DEAD,
            Pass(absorb_attention_layout, 2),
            Pass(merge_projections, 2),
            Pass(raise_selections, 2),
            Pass(raise_lookups, 2),
            *_MOVING,
            *_CLEANING,
        ),
    ),
    # Pieces that make one node, and scales that go into weights, do so in f32: what is left is rounded once. Layouts and regions
    # come behind, so that they are those of a model that was exported in 16 bits. Level 0: only who asks for it has it.
    Phase("narrow", (Pass(narrow_floats, 0),)),
    Phase("clean up narrowed", _CLEANING),
    # What is quantized is moved as integers; a layout's Transposes are such moves, too.
    Phase("move quantization", (*_QUANTIZED, _DEAD)),
    # Layouts are chosen while everything is primitive: a region would have to be looked into.
    # Channels lie where they are to before: a shuffle that is gone needs no layout, and weights are yet as models have them.
    Phase("choose layouts", (Pass(place_channels, 2), Pass(assign_layouts, 2))),
    Phase(
        "clean up layouts",
        (
            *_CLEANING,
            Pass(sink_transposes, 2),
            *_MOVING,
            *_QUANTIZED,
            Pass(absorb_transposes, 2),
            # An attention over the pixels of an image can now be read channels-last.
            Pass(absorb_attention_layout, 2),
        ),
    ),
    # Nothing moves any more, and nothing is a region yet.
    Phase("look up rows", (Pass(look_up_rows, 2),)),
    # Convolutions and products take what follows them first, those of integers what is in front of them, too; what is left
    # between them fuses among itself.
    Phase("fuse", (Pass(fuse_quantized, 2), Pass(fuse_conv, 2), Pass(fuse_matmul, 2), Pass(fuse_pointwise, 2), _DEAD)),
)

FUSING = tuple(p.name for p in PHASES[-1].passes)
"""The passes that make regions. What they leave out is the rounding of results within a region, as far as it is one kernel."""
_NARROWING = next(i for i, phase in enumerate(PHASES) if phase.name == "narrow")


def optimize(
    graph: Graph,
    level: int = 2,
    disabled: Sequence[str] = (),
    plugins: Sequence[Pass] = (),
    *,
    check: bool = False,
) -> Report:
    """Rewrites ``graph`` in place into one that computes the same numbers faster, and reports what was done.

    ``level`` is 0 to 3; ``disabled`` are names of passes to leave out; ``plugins`` run with the first phase, after its own
    passes; ``check`` verifies the graph after every pass. Raises UsageError for an unknown name, PassError for our bugs.
    """
    return _run(graph, PHASES, level, disabled, plugins, check=check)


def optimize_around(
    graph: Graph, between: Callable[[Graph], None], level: int = 2, disabled: Sequence[str] = (), *, check: bool = False
) -> Report:
    """``optimize``, with ``between`` called on the graph where ``optimize_in_f32`` ends and ``optimize_narrowed`` begins."""
    expect_passes(PHASES, disabled)
    first = _run(graph, PHASES[:_NARROWING], level, disabled, check=check)
    between(graph)
    return first.and_then(_run(graph, PHASES[_NARROWING:], level, disabled, check=check))


def optimize_in_f32(graph: Graph, level: int = 2, disabled: Sequence[str] = ()) -> Report:
    """The first part of ``optimize``: all that happens before f32 is narrowed. ``optimize_narrowed`` is the rest."""
    return _run(graph, PHASES[:_NARROWING], level, disabled)


def optimize_narrowed(graph: Graph, level: int = 2, disabled: Sequence[str] = ()) -> Report:
    """The second part of ``optimize``, for a graph that has had the first: so a choice of nodes that keep f32 is soon tried."""
    return _run(graph, PHASES[_NARROWING:], level, disabled)


def _run(
    graph: Graph,
    phases: Sequence[Phase],
    level: int,
    disabled: Sequence[str],
    plugins: Sequence[Pass] = (),
    *,
    check: bool = False,
) -> Report:
    if phases is not PHASES:
        here = {p.name for phase in phases for p in phase.passes}
        disabled = [name for name in disabled if name in here]
    first, *others = phases
    return run_phases(graph, [Phase(first.name, (*first.passes, *plugins)), *others], level=level, disabled=disabled, check=check)
