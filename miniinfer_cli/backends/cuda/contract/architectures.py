"""Which GPUs a kernel is for, and what it is compiled for there."""

import re

_FORM = re.compile(r"sm_(\d+)(a?)")


def is_for(wanted: str, arch: int) -> bool:
    """True when a kernel whose ``Kernel.arch`` is ``wanted`` runs on ``arch`` (90 for sm_90).

    Empty is any GPU, ``sm_90`` that and newer ones, ``sm_90a`` that alone. Raises ValueError for what is none of these.
    """
    if not wanted:
        return True
    number, exact = _parsed(wanted)
    return arch == number if exact else arch >= number


def compiler_options(wanted: str) -> tuple[str, ...]:
    """What the compiler is told beside the GPU's own architecture: instructions of ``sm_90a`` are in no other."""
    return (f"--gpu-architecture={wanted}",) if wanted and _parsed(wanted)[1] else ()


def _parsed(wanted: str) -> tuple[int, bool]:
    found = _FORM.fullmatch(wanted)
    if found is None:
        raise ValueError(f"{wanted!r} is neither a GPU architecture and newer ones (sm_90) nor one alone (sm_90a)")
    return int(found[1]), bool(found[2])
