"""What a build may be told: the options, and whether they are of the kinds that they have to be."""

import operator
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from miniinfer_cli.builder.calibration.calibrate import Method
from miniinfer_cli.builder.precision import checked_precision
from miniinfer_cli.builder.quantizing import checked_integers
from miniinfer_cli.builder.states import checked_states
from miniinfer_cli.errors import UsageError
from miniinfer_cli.planning.ranges import Shapes


@dataclass(frozen=True, slots=True)
class BuildOptions:
    """What ``miniinfer build`` may be told, apart from where to read and write.

    ``shapes`` fixes named dimensions; ``min_shapes``, ``opt_shapes`` and ``max_shapes`` bound them; each maps input names
    to sizes. ``opt_level`` is 0 to 3. ``disable_passes`` names passes to leave out, ``mark_outputs`` nodes (or values) of
    the model whose results become outputs too, ``overridable`` inputs with an initializer that stay inputs, with that as
    their default, ``plugins`` modules to import first.
    ``start_at``: values of the model that become its inputs, each a name or ``NAME:TYPE``; what only led to them is left out.
    ``own_sizes``: each input has sizes of its own, also where the model calls two of them by one name.
    ``state``: pairs ``INPUT:OUTPUT`` of the model that a context keeps from one inference to the next, beginning with zeros.
    ``kv_cache``: rows of the caches of keys and values that a context keeps for each slot of the batch, in the place of inputs
    and outputs that grow (``past_key_values.0.key``, ``present.0.key`` ..., or the pairs of ``state``; docs/state.md).
    ``limits`` maps names of limits (docs/security.md) to values that replace the defaults.
    ``tf32``: a GPU may round the operands of f32 products to 11 bits, as its tensor cores take them.
    ``precision``: ``f16`` or ``bf16`` stores f32 in that, but for what keeps f32 by rule (docs/precision.md) and the nodes of the
    model, or operations, in ``keep_fp32``; products sum in f32. ``io_types``: element types of inputs and outputs by name (``*``:
    of all of f32); those keep their types without it.
    ``int8``: products with constant weights multiply 8-bit integers, but those of ``keep_float`` (nodes of the model, or
    operations); ``fp8``: they, products of two results and attention multiply 8-bit floats (E4M3). Their scales come from
    ``calibrate``, a folder of .npy or .npz files or an iterable of samples (arrays by input name, or the array of the only
    input), by ``calibration_method`` (``mse``, ``entropy``, ``minmax``, ``percentile``, ``percentile:99.9``), and from the file
    ``calibration_cache``, which takes what was found (docs/precision.md). ``smooth_quant``: 0 to 1, how much of the outliers of
    activations moves into weights, channel by channel (SmoothQuant).
    ``weight_only``: ``int8`` or ``int4`` stores the weights of matrix products alone so, with a scale for every ``group_size``
    rows of a column (32, 64 or 128; None: 128 for ``int4``, all of them for ``int8``).
    """

    shapes: Shapes = field(default_factory=dict)
    min_shapes: Shapes = field(default_factory=dict)
    opt_shapes: Shapes = field(default_factory=dict)
    max_shapes: Shapes = field(default_factory=dict)
    opt_level: int = 2
    disable_passes: Sequence[str] = ()
    mark_outputs: Sequence[str] = ()
    overridable: Sequence[str] = ()
    start_at: Sequence[str] = ()
    plugins: Sequence[str] = ()
    tf32: bool = True
    precision: str | None = None
    keep_fp32: Sequence[str] = ()
    io_types: Mapping[str, str] = field(default_factory=dict)
    int8: bool = False
    fp8: bool = False
    calibrate: Any = None
    calibration_method: str = Method().name
    calibration_cache: str | os.PathLike[str] | None = None
    keep_float: Sequence[str] = ()
    smooth_quant: float | None = None
    weight_only: str | None = None
    group_size: int | None = None
    own_sizes: bool = False
    state: Sequence[str] = ()
    kv_cache: int | None = None
    limits: Mapping[str, int] = field(default_factory=dict)


def checked(options: BuildOptions) -> BuildOptions:
    """The options with shapes as tuples of ints. Raises UsageError for values of another kind."""
    level = options.opt_level
    if isinstance(level, bool) or not isinstance(level, int):
        raise UsageError(f"opt_level: expected 0 to 3, got {level!r}")
    if not 0 <= level <= 3:
        raise UsageError(f"optimization level {level} is outside [0, 3]")
    for name in ("tf32", "own_sizes"):
        if not isinstance(getattr(options, name), bool):
            raise UsageError(f"{name}: expected True or False, got {getattr(options, name)!r}")
    checked_precision(options.precision, options.keep_fp32, options.io_types)
    checked_integers(options)
    checked_states(options.state, options.kv_cache)
    for name in ("disable_passes", "mark_outputs", "overridable", "plugins", "start_at"):
        words = getattr(options, name)
        if isinstance(words, str) or not all(isinstance(w, str) for w in words):
            raise UsageError(f"{name}: expected a list of names, got {words!r}", hint=f"give a list: {name}=[...]")
    return replace(
        options,
        shapes=_checked_shapes("shapes", options.shapes),
        min_shapes=_checked_shapes("min_shapes", options.min_shapes),
        opt_shapes=_checked_shapes("opt_shapes", options.opt_shapes),
        max_shapes=_checked_shapes("max_shapes", options.max_shapes),
    )


def _checked_shapes(option: str, shapes: Any) -> dict[str, tuple[int, ...]]:
    try:
        sizes = {name: tuple(operator.index(d) for d in shape) for name, shape in shapes.items()}
    except (AttributeError, TypeError):
        sizes = {"": (-1,)}
    if any(d < 0 for shape in sizes.values() for d in shape):
        hint = f'give the sizes by the name of the input: {option}={{"x": (1, 3, 224, 224)}}'
        raise UsageError(f"{option}: expected shapes by name, got {shapes!r}", hint=hint)
    return sizes
