"""CachedAttention of one new token for each slot: by a kernel over parts of the cache and one that sums up, or by clusters."""

import math
from dataclasses import replace
from functools import partial

import numpy as np

from miniinfer_cli.backends.choosing import Estimate
from miniinfer_cli.backends.cuda.contract.launch_attributes import LaunchAttributes
from miniinfer_cli.backends.cuda.contract.site import Site, lowers
from miniinfer_cli.backends.cuda.contract.steps import NULL, Argument, Copy, Kernel, Launch, Lowered, Operand, inputs, outputs
from miniinfer_cli.backends.cuda.contract.strides import broadcast_strides
from miniinfer_cli.backends.cuda.contract.tactic import Tactic, tactic_of
from miniinfer_cli.backends.cuda.contract.types import c_type, element_nbytes
from miniinfer_cli.backends.cuda.contract.viewing import reads_strided
from miniinfer_cli.backends.cuda.launching.grids import launch_over
from miniinfer_cli.backends.cuda.tactics.attention.attention_heuristic import ATTENTION, AttentionHeuristic
from miniinfer_cli.backends.cuda.tactics.attention.attention_sm90 import ARCH
from miniinfer_cli.backends.cuda.tactics.products.few_tokens import needs_arch
from miniinfer_cli.ir import DType
from miniinfer_cli.ops import OURS

KEY = "parts of the cache"
IN_CLUSTER = "a cluster for each head of keys"
_PART = 64  # rows of the cache that a block has
_LARGEST_SIZE = 256
_LARGEST_GROUP = 16
_CLUSTER = 8  # blocks, and ...
_CLUSTER_WARPS = 8  # ... warps of each
_CLUSTER_GROUP = 8  # heads of queries at most
_CLUSTER_SIZES = (64, 128)
_TYPES = (DType.F16, DType.BF16, DType.F32)
_Q, _K, _V, _PAST_KEY, _PAST_VALUE, _AT, _HELD, _COS, _SIN, _IDS = range(10)


@reads_strided("CachedAttention", domain=OURS)
def reads_new_heads(site: Site, number: int) -> bool:
    """What is new, where each head's elements lie side by side."""
    return number in (_Q, _K, _V) and site.strides(number)[-1] == 1


@lowers("CachedAttention", domain=OURS)
def lower_cached_attention(site: Site) -> tuple[Tactic, ...] | None:
    """None for more tokens than one, and for heads that the kernel does not reach."""
    return cached_tactics(site) or None


def cached_tactics(site: Site, table: AttentionHeuristic = ATTENTION) -> tuple[Tactic, ...]:
    """What the site is offered; nothing where the kernel does not reach."""
    q, past, past_value = site.shape(_Q), site.shape(_PAST_KEY), site.shape(_PAST_VALUE)
    dtype, cache = site.dtype(), site.dtype(_COS)
    batch, heads, new, size = q
    kv_heads, capacity, v_size = past[1], past[2], past_value[3]
    group = heads // max(kv_heads, 1)
    alike = {site.dtype(i) for i in (_Q, _K, _V, _PAST_KEY, _PAST_VALUE)} == {dtype}
    if (
        new != 1
        or not alike
        or dtype not in _TYPES
        or cache not in _TYPES
        or site.attr("nan_rows", "hidden") not in ("hidden", "keep")
    ):
        return ()
    if (
        0 in (batch, heads, capacity, v_size)
        or group > _LARGEST_GROUP
        or size % (32 // element_nbytes(dtype))
        or v_size % 2
        or max(size, v_size) > _LARGEST_SIZE
    ):
        return ()
    if site.shape(_COS)[-1] * 2 != size or batch * kv_heads * capacity >= 1 << 31:
        return ()
    in_parts = tactic_of(KEY, partial(_made, site), _estimate(site))
    if group > _CLUSTER_GROUP or size not in _CLUSTER_SIZES or v_size != size:
        return (in_parts,)
    made, needs = partial(_made_in_cluster, site), partial(needs_arch, table.cluster_arch)
    in_cluster = replace(tactic_of(IN_CLUSTER, made, _estimate(site)), needs=needs)
    is_favourite = site.target.arch == table.cluster_arch and capacity <= table.cluster_rows
    return (in_cluster, in_parts) if is_favourite else (in_parts, in_cluster)


def _estimate(site: Site) -> Estimate:
    """Of a cache that is full."""
    shapes = [math.prod(site.shape(i)) for i in (_PAST_KEY, _PAST_VALUE)]
    new = math.prod(site.shape(_Q)) * 2 + math.prod(site.shape(_K)) * 2 + math.prod(site.shape(_V)) * 2
    group = site.shape(_Q)[1] // site.shape(_PAST_KEY)[1]
    return Estimate(2 * group * sum(shapes), (sum(shapes) + new) * element_nbytes(site.dtype()))


def _cluster_nbytes(group: int, size: int, nbytes: int) -> int:
    """Bytes of shared memory of a block of a cluster, as its kernel lays them out."""
    pitch = size + 4
    floats = group * size + _CLUSTER_WARPS * (17 * 8 + group * pitch) + _CLUSTER * -(-group // _CLUSTER) * pitch
    return 4 * floats + 2 * size * nbytes + 16  # a barrier, and up to a multiple of 16 bytes


def _made_in_cluster(site: Site) -> Lowered:
    batch, heads, _, size = site.shape(_Q)
    kv_heads = site.shape(_PAST_KEY)[1]
    group, nbytes = heads // kv_heads, element_nbytes(site.dtype())
    defines = tuple(d for d in _defines(site) if d[0] not in ("MI_VALUE", "MI_KEYS"))
    defines += (("MI_PARTS", str(_CLUSTER)), ("MI_CAPPED", str(int(site.attr("softcap", 0.0) != 0))))
    kernel = Kernel("cached_in_cluster", "sm90/cached_attention.cu", defines, arch=ARCH)
    attend = Launch(
        kernel,
        (batch * kv_heads * _CLUSTER,),
        (32 * _CLUSTER_WARPS,),
        _arguments(site, Operand.output(0)),
        _cluster_nbytes(group, size, nbytes),
        LaunchAttributes(cluster=(_CLUSTER, 1, 1)),
    )
    return Lowered((*_start(site), attend), in_place={1: (_PAST_KEY,), 2: (_PAST_VALUE,)}, tactic=IN_CLUSTER)


def _made(site: Site) -> Lowered:
    batch, heads, *_ = site.shape(_Q)
    kv_heads, capacity, v_size = site.shape(_PAST_KEY)[1], site.shape(_PAST_KEY)[2], site.shape(_PAST_VALUE)[3]
    group, matrices, parts = heads // kv_heads, batch * kv_heads, -(-capacity // _PART)
    sums = Operand.scratch(0)
    defines = _defines(site)
    kernel = Kernel("cached_attention", "cached_attention.cu", defines)
    attend = Launch(kernel, (matrices, parts), (128,), _arguments(site, sums))
    lines = matrices * group
    combine = launch_over(
        Kernel("combine_cached", "cached_attention.cu", defines),
        lines * v_size,
        (sums, Operand.output(0), np.int32(parts), np.int64(lines)),
        site.target.multiprocessors,
    )
    scratch = (parts * lines * (v_size + 2) * 4,)
    return Lowered((*_start(site), attend, combine), scratch, in_place={1: (_PAST_KEY,), 2: (_PAST_VALUE,)}, tactic=KEY)


def _defines(site: Site) -> tuple[tuple[str, str], ...]:
    size, v_size = site.shape(_Q)[3], site.shape(_PAST_VALUE)[3]
    return (
        ("MI_T", c_type(site.dtype())),
        ("MI_CACHE", c_type(site.dtype(_COS))),
        ("MI_SIZE", str(size)),
        ("MI_VALUE", str(v_size)),
        ("MI_GROUP", str(site.shape(_Q)[1] // site.shape(_PAST_KEY)[1])),
        ("MI_KEYS", str(_PART)),
        ("MI_INTERLEAVED", str(int(bool(site.attr("interleaved", 0))))),
    )


def _arguments(site: Site, to: Operand) -> tuple[Argument, ...]:
    """What both kernels take; ``to`` is where sums or results go."""
    (_, kv_heads, capacity, _), size = site.shape(_PAST_KEY), site.shape(_Q)[3]
    picked = site.has(_IDS)
    places = site.shape(_IDS) if picked else site.shape(_COS)[:2]
    lie = np.array([[s[0], s[1]] for s in (site.strides(i) for i in (_Q, _K, _V))], np.int64).T.reshape(-1)
    scale = site.attr("scale")
    return (
        *(*inputs(_Q, _K, _V), *outputs(1, 2), to, *inputs(_AT, _HELD, _COS, _SIN)),
        *(site.operand(_IDS) if picked else NULL, np.int64(site.shape(_COS)[0] if picked else 0)),
        *(np.int64(broadcast_strides(places, places)[0]), lie),
        *(np.float32(1 / math.sqrt(size) if scale is None else scale), np.float32(site.attr("softcap", 0.0))),
        *(np.int32(site.attr("left_window_size", -1)), np.int32(kv_heads), np.int32(capacity)),
    )


def _start(site: Site) -> tuple[Copy[Operand], ...]:
    """The caches where they are not written in place."""
    nbytes = element_nbytes(site.dtype())
    return tuple(
        Copy(to, come, math.prod(site.shape(i)) * nbytes)
        for to, come, i in zip(outputs(1, 2), inputs(_PAST_KEY, _PAST_VALUE), (_PAST_KEY, _PAST_VALUE), strict=True)
    )
