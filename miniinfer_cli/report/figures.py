"""Figures as a reader wants them: three or four digits, and a unit."""


def time_of(ms: float) -> str:
    """A time given in milliseconds: ``3.21 µs``, ``0.327 ms``, ``1.25 s``."""
    if ms >= 1000:
        return f"{ms / 1000:.3g} s"
    return f"{ms * 1000:.3g} µs" if ms < 0.1 else f"{ms:.4g} ms" if ms >= 1 else f"{ms:.3g} ms"


def rate_of(value: float) -> str:
    """A number without a unit, with thousands apart: ``12 345``, ``321``, ``4.56``."""
    return f"{value:,.0f}".replace(",", "\N{NO-BREAK SPACE}") if value >= 1000 else f"{value:.4g}"


def size_of(nbytes: float) -> str:
    """Bytes, with a binary unit: ``97.5 MiB``."""
    for unit in ("B", "KiB", "MiB"):
        if nbytes < 1024:
            return f"{nbytes:.0f} B" if unit == "B" else f"{nbytes:.1f} {unit}"
        nbytes /= 1024
    return f"{nbytes:.2f} GiB"


def shortened(name: str, most: int) -> str:
    """A name of at most ``most`` characters: what is too long loses its middle, since names differ at their ends."""
    if len(name) <= most:
        return name
    tail = (most - 1) * 2 // 3
    return f"{name[: most - 1 - tail]}…{name[-tail:]}"
