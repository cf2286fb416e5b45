"""Adds compiled kernels for GPU architectures to a plan; takes no GPU."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from engine_format import Plan
from engine_format.signing import sign
from miniinfer_cli.backends.cuda.driver.nvrtc import OLDEST_ARCH, expect_arch
from miniinfer_cli.backends.cuda.loading.target_sections import compile_section
from miniinfer_cli.builder.building import CompileInto
from miniinfer_cli.devices.placement import MOST_BRANCHED, optimal_types
from miniinfer_cli.errors import UsageError
from miniinfer_cli.ir import Graph
from miniinfer_cli.planning.branches import BranchedGraphs
from miniinfer_cli.runtime.trust import read_key, user_key


def with_targets(plan: Plan, graph: Graph, archs: Sequence[int], key: bytes | None = None) -> Plan:
    """The plan with a section of compiled kernels for each architecture (90 for sm_90), signed with ``key`` where there is one.

    ``graph`` is the plan's. The kernels are those of the optimal sizes and of a ladder of others, for the branches that small
    inputs may choose. Raises KernelCompileError, ModelError when the optimal sizes do not go through the graph.
    """
    types = optimal_types(graph, {r.name: r for r in plan.ranges})
    graphs = list(BranchedGraphs(graph).possible(types, MOST_BRANCHED)) or [graph]
    for arch in archs:
        section = compile_section(graphs, types, arch)
        plan = plan.with_target(section if key is None else sign(section, key))
    return plan


def targets_for(archs: Sequence[str], sign_key: Path | None) -> CompileInto | None:
    """What gives a plan sections for these architectures (``sm_90``), signed by the key in a file, or by the user's own.

    None for no architectures. The user's key is made when it is first needed; where it cannot be made, nothing is signed.
    Raises UsageError for what is no architecture that can be compiled for, and for a file that is no key, DeviceError where there
    is no compiler.
    """
    numbers = [arch_of(a) for a in archs]
    for number in numbers:
        expect_arch(number)
    given = None if sign_key is None else read_key(sign_key)
    if not numbers:
        return None
    return partial(with_targets, archs=numbers, key=user_key(make=True) if given is None else given)


def targets_of(archs: Any, sign_key: Any) -> CompileInto | None:
    """Like ``targets_for``, with what a caller gave. Raises UsageError for values of another kind."""
    if isinstance(archs, str) or not isinstance(archs, Sequence) or not all(isinstance(a, str) for a in archs):
        raise UsageError(f"archs: expected a list of architectures, got {archs!r}", hint='give a list: archs=["sm_90"]')
    if sign_key is not None and not isinstance(sign_key, (str, os.PathLike)):
        raise UsageError(f"sign_key: expected a file or None, got {sign_key!r}")
    return targets_for(archs, None if sign_key is None else Path(sign_key))


def arch_of(text: str) -> int:
    """90 for ``sm_90``. Raises UsageError for what is no architecture that kernels are compiled for."""
    number = text.removeprefix("sm_")
    if not text.startswith("sm_") or not number.isdecimal() or int(number) < OLDEST_ARCH:
        told = f"architecture {text!r} is not of the form sm_90, or older than sm_{OLDEST_ARCH}"
        raise UsageError(told, hint="sm_80, sm_90, sm_100 ...")
    return int(number)
