"""How floating-point results become integers, as saturating.cuh takes it."""

from miniinfer_cli.ir import DType


def saturates(dtype: DType) -> bool:
    """True for the integers whose values are rounded and saturated; of narrower ones the references keep the low bits."""
    return dtype.is_integer and dtype.bits >= 8


def saturation_limits(dtype: DType) -> tuple[float, float]:
    """The least value of a type that saturates and the first beyond its largest, both exact; zeros for other types."""
    if not saturates(dtype):
        return 0.0, 0.0
    bits = dtype.bits
    return (0.0, 2.0**bits) if dtype.value[0] == "u" else (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1))
