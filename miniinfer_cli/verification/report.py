"""What a verification found: at which sizes, by which oracle, and how far each output is off."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from miniinfer_cli.verification.comparison import EMPTY, OutputError


@dataclass(frozen=True, slots=True)
class SizeResult:
    """One set of sizes. ``passed_over``: why the oracle did not run the model there; ``failure``: why the plan did not.

    ``sizes``: of each open dimension by name. ``shapes``: of each tensor input. ``drawn``: the inputs with random values.
    ``integers``: the least and the greatest of the integers drawn. ``outputs`` is empty where nothing was compared.
    """

    sizes: Mapping[str, int]
    shapes: Mapping[str, tuple[int, ...]]
    drawn: tuple[str, ...]
    integers: tuple[int, int]
    outputs: tuple[OutputError, ...] = ()
    passed_over: str = ""
    failure: str = ""

    @property
    def tells(self) -> bool:
        """Whether the plan failed, or some output there is more than equal without showing anything."""
        return bool(self.failure) or any(not o.ok or not o.says_nothing for o in self.outputs)

    @property
    def label(self) -> str:
        """The sizes as text: ``batch=2, seq=3``."""
        return ", ".join(f"{name}={size}" for name, size in self.sizes.items()) or "fixed sizes"


@dataclass(frozen=True, slots=True)
class Verification:
    """A plan on ``device`` compared with ``oracle``, at ``sizes``.

    ``note``: why the oracle is not ONNX Runtime, where it is not. ``random``: the outputs that were left out, and the random
    operations that each goes back to. ``tf32``: the device rounds operands of products. ``may_be_optimization``: where
    something is wrong, whether a pass may be at fault; False where the unoptimized graph has the same fault, or no pass fired.
    """

    oracle: str
    device: str
    sizes: tuple[SizeResult, ...]
    note: str = ""
    random: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    tf32: bool = False
    may_be_optimization: bool = True

    @property
    def outputs(self) -> tuple[OutputError, ...]:
        """All that was compared, size by size."""
        return tuple(o for size in self.sizes for o in size.outputs)

    @property
    def compared(self) -> tuple[SizeResult, ...]:
        """The sizes at which outputs were compared."""
        return tuple(size for size in self.sizes if size.outputs)

    @property
    def failures(self) -> tuple[SizeResult, ...]:
        """The sizes at which the plan failed where the oracle did not."""
        return tuple(size for size in self.sizes if size.failure)

    @property
    def unverified(self) -> dict[str, str]:
        """The outputs that show nothing at any size, and why: not one finite number, no element ..."""
        telling = {o.name for o in self.outputs if not o.says_nothing}
        return {o.name: o.says_nothing for o in self.outputs if o.name not in telling}

    @property
    def nothing_to_compare(self) -> bool:
        """True when every output depends on random numbers."""
        return bool(self.random) and not self.sizes

    @property
    def ok(self) -> bool:
        """True when every output is within its tolerance, and at least one was verified, is empty, or is random."""
        if self.nothing_to_compare:
            return True
        sound = not self.failures and all(o.ok for o in self.outputs)
        return sound and any(o.says_nothing in ("", EMPTY) for o in self.outputs)
