"""What a build and an engine may take, so that no small file takes all memory, all disk or all time.

A ``Limit`` is refused by name, and the caller may set it: ``--limit NAME=VALUE``, ``build(limits=)``, ``load(limits=)``. A
``Bound`` is never the reason for a refusal of a model: what is beyond it is done in another way, or not followed.
docs/security.md has both tables; no model of the tests, the suite of ONNX or the samples comes near.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from miniinfer_cli.errors import ModelTooLarge, UsageError, nearest
from miniinfer_cli.wording import Wording

_MOST = 1 << 62  # of a value: every sum with sizes can still be counted in 64 bits


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit that a caller may set: its name, its default in ``unit``, and why there is one."""

    name: str
    default: int
    unit: str
    reason: str


@dataclass(frozen=True, slots=True)
class Bound:
    """A number that is fixed, in ``unit``, and what happens beyond it."""

    name: str
    value: int
    unit: str
    beyond: str


CONSTANT_BYTES = Limit(
    "constant_bytes", 64 << 20, "bytes",
    "what constants may take in the plan beyond what they take in the model: folded results, sparse tensors written out",
)  # fmt: skip
CONSTANT_GROWTH = Limit(
    "constant_growth", 4, "times the model's constants", "the same of large models: the larger of the two counts"
)
FOLD_STEPS = Limit(
    "fold_steps", 1 << 33, "steps",
    "a product, a convolution or an equation of small constants may compute for hours; a step takes about a nanosecond",
)  # fmt: skip
FUNCTION_NODES = Limit("function_nodes", 50_000, "nodes", "functions that call functions twice double at every step")
FUNCTION_DEPTH = Limit("function_depth", 64, "calls", "functions that call each other are read within each other")
INFERRED_NODES = Limit(
    "inferred_nodes", 300_000, "nodes",
    "the types of a sub-graph are inferred round by round, those of one inside it round by round in each of these",
)  # fmt: skip
IMAGE_PIXELS = Limit(
    "image_pixels", 1 << 26, "pixels", "a small file may hold a picture of any size: 64 Mi take 192 MiB in colour"
)

LIMITS = (CONSTANT_BYTES, CONSTANT_GROWTH, FOLD_STEPS, FUNCTION_NODES, FUNCTION_DEPTH, INFERRED_NODES, IMAGE_PIXELS)
"""All limits, in the order in which the documents list them."""

DIMENSION_ATOMS = Bound(
    "dimension_atoms", 64, "names and functions", "the size gets a name of its own: it is known when a program is made"
)
DIMENSION_DEPTH = Bound("dimension_depth", 24, "functions within each other", "the same; in a plan: refused")
DIMENSION_PRODUCT = Bound("dimension_product", 4096, "terms of a product", "the same; in a plan: refused")
RECIPE_STEPS = Bound(
    "recipe_steps",
    128,
    "steps for each element",
    "a constant is computed at once, not when the plan is written, or its node stays",
)
LOOP_ROUNDS = Bound("loop_rounds", 16, "rounds of inference", "nothing is told of the shapes that a Loop or a Scan carries")
KNOWN_CHARACTERS = Bound("known_characters", 1 << 16, "characters of strings", "the strings are computed in the run")
KNOWN_STEPS = Bound(
    "known_steps", 1 << 18, "steps", "what is computed of small constants to follow sizes is computed in folding, or in the run"
)
SUGGESTIONS = Bound("suggestions", 20, "names that nothing makes", "no name that is nearly the same is looked for")


class Limits:
    """The value of every limit: the defaults, but for those that were set by name."""

    def __init__(self, chosen: Mapping[str, int] | None = None) -> None:
        self._values = {limit.name: limit.default for limit in LIMITS} | dict(chosen or {})

    def of(self, limit: Limit) -> int:
        """The value of ``limit``."""
        return self._values[limit.name]

    def refusal(self, limit: Limit, what: str, got: int) -> ModelTooLarge:
        """The error for ``what``, of which ``got`` would be more than the limit."""
        value = self.of(limit)
        default = "" if value == limit.default else f" (the default is {limit.default})"
        return ModelTooLarge(
            f"{what}: {got} {limit.unit}, the limit {limit.name} is {value}{default}",
            hint=Wording(
                f"if you trust the file: limits={{{limit.name!r}: {got}}}",
                flags=f"if you trust the file: --limit {limit.name}={got}",
            ),
        )


def chosen_limits(chosen: Any) -> Limits:
    """The limits with those that ``chosen`` maps names to. Raises UsageError for an unknown name, and for no whole number."""
    if not isinstance(chosen, Mapping):
        raise UsageError(f"limits: expected numbers by name, got {type(chosen).__name__}", hint="give limits={'image_pixels': N}")
    names = [limit.name for limit in LIMITS]
    for name, value in chosen.items():
        if name not in names:
            close = nearest(str(name), names)
            raise UsageError(f"there is no limit {name!r}", hint=close or f"the limits are {', '.join(names)}")
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST:
            raise UsageError(f"limit {name}: expected a whole number from 0 to {_MOST}, got {value!r}")
    return Limits(chosen)


_NAMES = 20_000  # names that one is compared with
_LETTERS = 200  # of a name that is compared


def worth_comparing(names: Sequence[str]) -> list[str]:
    """Those of ``names`` among which one that is nearly the same as another is looked for: not too many, and not too long."""
    return [name for name in names[:_NAMES] if len(name) <= _LETTERS]


class Budget:
    """What one build has taken so far, and the limits of it. One object for a graph and all graphs inside it.

    ``grown``: the bytes that constants take beyond those of the model, as far as has been counted. ``steps``: what folding has
    computed so far. ``too_long``: the nodes that it did not compute for their steps, by name, with operation and steps.
    """

    def __init__(self, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.grown = 0
        self.model_nbytes: int | None = None
        self.steps = 0
        self.too_long: dict[str, tuple[str, int]] = {}

    @property
    def allowed(self) -> int:
        """The bytes that constants may take beyond those of the model."""
        growth = self.limits.of(CONSTANT_GROWTH) * (self.model_nbytes or 0)
        return max(self.limits.of(CONSTANT_BYTES), growth)

    def recount(self, nbytes: int, held: int) -> None:
        """Constants now take ``nbytes`` in a plan; what they ``held`` the first time is what the model has."""
        if self.model_nbytes is None:
            self.model_nbytes = held
        self.grown = nbytes - self.model_nbytes

    def has_room(self, nbytes: int) -> bool:
        """Whether constants may take so many bytes more."""
        return nbytes <= 0 or self.grown + nbytes <= self.allowed

    def spend(self, steps: int, node: str, op: str) -> bool:
        """Whether folding may compute this node, of so many steps; then they count."""
        if self.steps + steps > self.limits.of(FOLD_STEPS):
            self.too_long[node] = op, steps
            return False
        self.steps += steps
        return True

    def grow(self, nbytes: int) -> None:
        """Constants take ``nbytes`` more, or less."""
        self.grown += nbytes
