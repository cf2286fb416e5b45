"""The range of an integer type, as saturating.cuh takes it."""

from miniinfer_cli.ir import DType


def saturation_limits(dtype: DType) -> tuple[float, float]:
    """The least value of an integer type and the first beyond its largest, both exact; zeros for other types."""
    if not dtype.is_integer:
        return 0.0, 0.0
    bits = dtype.bits
    return (0.0, 2.0**bits) if dtype.value[0] == "u" else (-(2.0 ** (bits - 1)), 2.0 ** (bits - 1))
