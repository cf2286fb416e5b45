"""Plans of cuDNN by engine and knobs, as records have them: out of the names that the library gives them."""

import hashlib
import re

from miniinfer_cli.backends.cuda.contract.problems import Problem, Variant

_ENGINE, _KNOBS, _PLAN, _PROBLEM = "engine", "knobs", "plan", "problem"
# cudnnBackendKnobType_t: a plan's name has the library's numbers, which a record must not depend on.
_KNOB_NAMES = (
    *("SPLIT_K", "SWIZZLE", "TILE_SIZE", "USE_TEX", "EDGE", "KBLOCK", "LDGA", "LDGB", "CHUNK_K", "SPLIT_H", "WINO_TILE"),
    *("MULTIPLY", "SPLIT_K_BUF", "TILEK", "STAGES", "REDUCTION_MODE", "CTA_SPLIT_K_MODE", "SPLIT_K_SLC", "IDX_MODE", "SLICED"),
    *("SPLIT_RS", "SINGLEBUFFER", "LDGC", "SPECFILT", "KERNEL_CFG", "WORKSPACE", "TILE_CGA", "TILE_CGA_M", "TILE_CGA_N"),
    *("BLOCK_SIZE", "OCCUPANCY", "ARRAY_SIZE_PER_THREAD", "NUM_C_PER_BLOCK", "SPLIT_COLS", "TILE_ROWS", "TILE_COLS"),
    *("LOAD_SIZE", "CTA_COUNT", "STREAM_K", "SPLIT_P_SLC", "TILE_M", "TILE_N", "WARP_SPEC_CFG"),
)


def variant_of(name: str) -> Variant:
    """Engine and knobs out of the name of a plan, which lists the knobs by the library's numbers, in any order."""
    engine = re.search(r"eng(\d+)", name)
    knobs = sorted((_knob_name(int(k)), int(v)) for k, v in re.findall(r"_k(\d+)=(-?\d+)", name))
    return Variant(((_ENGINE, int(engine[1]) if engine else 0), (_KNOBS, tuple(knobs))))


def with_plan(variant: Variant, problem: Problem, plan: bytes) -> Variant:
    """The variant with the plan that the library serialized for the problem: for another one it would compute something else."""
    return Variant((*variant.items, (_PLAN, plan), (_PROBLEM, _digest(problem))))


def plan_in(variant: Variant, problem: Problem) -> bytes | None:
    """The serialized plan in a variant; None where there is none for just this problem."""
    plan = variant.opaque.get(_PLAN)
    return plan if isinstance(plan, bytes) and variant.opaque.get(_PROBLEM) == _digest(problem) else None


def without_plan(variant: Variant) -> Variant:
    """Engine and knobs alone."""
    return Variant(tuple(item for item in variant.items if item[0] not in (_PLAN, _PROBLEM)))


def _digest(problem: Problem) -> str:
    return hashlib.sha256(repr(problem).encode()).hexdigest()[:32]


def _knob_name(number: int) -> str:
    return _KNOB_NAMES[number] if number < len(_KNOB_NAMES) else f"KNOB_{number}"
