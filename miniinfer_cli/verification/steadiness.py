"""Whether a difference says anything: where a reference changes as much by what rounding does, nobody can tell who is right.

A detector that computes in bf16 keeps a box or drops it by the last bit of a score. The plan and the oracle round at different
places, so they may differ there with both being right; a plan that is wrong differs where the reference stands firm.
"""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from miniinfer_cli.ir import dtype_of
from miniinfer_cli.verification.comparison import OutputError, compare
from miniinfer_cli.verification.oracles import Oracle, OracleRefused

UNSTEADY = "too unsteady to compare"
"""What such an output is."""
_NUDGES = 6  # of the inputs, each by other signs
_LEAPS = 3  # times the nudge: floats that change by less follow the inputs, they do not leap


def unsteady(
    oracle: Oracle,
    feeds: Mapping[str, Any],
    expected: Mapping[str, Any],
    wrong: Collection[OutputError],
    tolerances: Mapping[str, float],
    seed: int,
) -> set[str]:
    """The outputs of ``wrong`` that differ by no more than twice what the reference leaps by for nudged inputs.

    The inputs are nudged by the tolerance, up or down by chance: sums over them change by less, as by rounding on the way.
    ``expected`` is what ``oracle`` gives for ``feeds``. An output computed from no floats is never among them.
    """
    found: set[str] = set()
    generator = np.random.default_rng(seed)
    step = max((tolerances[o.name] for o in wrong), default=0.0)
    for _ in range(_NUDGES if step else 0):
        try:
            nudged = oracle.run({name: _nudged(value, step, generator) for name, value in feeds.items()})
        except OracleRefused:
            continue
        for o in wrong:
            change = compare(o.name, nudged[o.name], expected[o.name], tolerances[o.name])
            if not change.ok and change.relative > _LEAPS * change.tolerance and 2 * change.relative >= o.relative:
                found.add(o.name)
    return found


def _nudged(value: Any, step: float, generator: np.random.Generator) -> Any:
    if not isinstance(value, np.ndarray) or value.dtype == object or not dtype_of(value).is_float:
        return value
    signs = generator.integers(0, 2, value.shape) * 2 - 1
    return (value.astype(np.float64) * (1 + step * signs)).astype(value.dtype)
