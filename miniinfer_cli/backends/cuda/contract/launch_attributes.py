"""What a launch may ask for beside its sizes, and the limits of both. Plain data, looked at with no device."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

CLUSTER_ARCH = 90
"""The first architecture (90 for sm_90) that has clusters and programmatic launches."""
MOST_CLUSTER = 8
"""Blocks of a cluster that every GPU with clusters takes."""
MOST_OVERLAPPING_SHARED = 110 << 10
"""Bytes of shared memory of a block above which a kernel and the next one do not fit on a multiprocessor together."""
_MOST_THREADS = 1024
_MOST_BLOCK = (1024, 1024, 64)
_MOST_GRID = ((1 << 31) - 1, 65535, 65535)


@dataclass(frozen=True, slots=True)
class LaunchAttributes:
    """What a launch asks for beside its sizes; made without arguments, nothing.

    ``cluster`` is how many blocks (x, y, z) form a cluster, which runs on neighbouring multiprocessors at one time.
    ``programmatic``: the kernel may begin before the one in front of it in the stream has ended, and waits for it by
    ``griddepcontrol.wait`` (``programmatic_edges.py`` has the rules). ``priority`` is that of its blocks, lower numbers first;
    None for the stream's.
    """

    cluster: tuple[int, ...] = (1, 1, 1)
    programmatic: bool = False
    priority: int | None = None


NO_ATTRIBUTES = LaunchAttributes()
"""An ordinary launch."""


@dataclass(frozen=True, slots=True)
class LaunchLimits:
    """What a device takes: its architecture, shared memory that a block may ask for, and the range of priorities."""

    arch: int
    shared_nbytes: int
    priorities: range


def launch_fault(
    grid: tuple[int, ...], block: tuple[int, ...], shared_nbytes: int, attributes: LaunchAttributes, limits: LaunchLimits
) -> str | None:
    """Why a device of these ``limits`` cannot do the launch; None when it can, as far as sizes tell.

    ``shared_nbytes`` is dynamic; what the kernel has besides, and its registers, only the loaded kernel knows.
    """
    for name, sizes, most in (("grid", grid, _MOST_GRID), ("block", block, _MOST_BLOCK)):
        if not 1 <= len(sizes) <= 3 or not all(1 <= n <= m for n, m in zip(sizes, most, strict=False)):
            return f"a {name} has up to three sizes, from 1 to {_by(most)}"
    if math.prod(block) > _MOST_THREADS:
        return f"a block has {_MOST_THREADS} threads at most, not {math.prod(block)}"
    if not 0 <= shared_nbytes <= limits.shared_nbytes:
        return f"a block has {limits.shared_nbytes} bytes of shared memory at most"
    return _attributes_fault(grid, attributes, limits)


def _attributes_fault(grid: tuple[int, ...], attributes: LaunchAttributes, limits: LaunchLimits) -> str | None:
    cluster, priority, priorities = attributes.cluster, attributes.priority, limits.priorities
    if not 1 <= len(cluster) <= 3 or not all(n >= 1 for n in cluster):
        return f"a cluster has up to three sizes, from 1 on, not {_by(cluster)}"
    if math.prod(cluster) > MOST_CLUSTER:
        return f"a cluster has {MOST_CLUSTER} blocks at most, not {_by(cluster)}"
    sizes = (*grid, 1, 1)
    if any(n % c for n, c in zip(sizes, cluster, strict=False)):
        return f"a grid of {_by(grid)} blocks does not divide into clusters of {_by(cluster)}"
    if limits.arch < CLUSTER_ARCH and (math.prod(cluster) > 1 or attributes.programmatic):
        return f"clusters and programmatic launches begin with sm_{CLUSTER_ARCH}, and this is sm_{limits.arch}"
    if priority is not None and priority not in priorities:
        return f"priorities are from {min(priorities)} to {max(priorities)} here, not {priority}"
    return None


def _by(sizes: Iterable[int]) -> str:
    return "x".join(map(str, sizes))
