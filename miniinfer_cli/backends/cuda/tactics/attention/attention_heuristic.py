"""When which way of attention is the heuristic's favourite: the thresholds of the family in one table."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class AttentionHeuristic:
    """The order is: our kernel of whole warpgroups (on ``warpgroup_arch``, where ``warpgroup_rows``, ``warpgroup_keys`` and
    ``library_keys`` say so); cuDNN (where ``mask_pays``); our kernel of one pass (where ``attention_fused`` has a favourite);
    steps; other cuts of the first.

    Steps are product, softmax and product with the scores in memory.

    Where scores are handed out, only the last does that.
    """

    mask_pays: int = 512
    """Keys from which on cuDNN is worth the launches that its form of a mask takes; never where lengths are held of a cache."""
    row_warps: int = 4
    """Warps of a block of one pass that share out its rows, where there are so many and each multiprocessor has a block all the
    same; else they share out the keys."""
    two_blocks: int = 100 << 10
    """Bytes of shared memory that a block takes at most where it can, so that a multiprocessor has two."""
    part_keys: int = 128
    """Keys that are worth a part of their own ..."""
    part_blocks: int = 2
    """... of which there are so many that a multiprocessor has this many blocks ..."""
    most_parts: int = 64
    """... but no more than these."""
    other_parts: tuple[int, ...] = (1, 2, 4, 8)
    """Numbers of parts that are offered besides the favourite."""
    warpgroup_arch: int = 90
    """The architecture of the kernel of whole warpgroups ..."""
    warpgroup_rows: int = 33
    """... the queries from which on it is the favourite, those of all heads that share a head of keys ..."""
    warpgroup_keys: int = 512
    """... up to so many keys: more were not measured ..."""
    warpgroup_cuts: int = 8
    """... and how many cuts of it are offered at most."""
    library_keys: int = 128
    """Keys up to which cuDNN, where it needs no mask of its own, is as fast or faster ..."""
    library_tiles: int = 8
    """... when there are so many tiles of 64 queries to each multiprocessor."""
    cached_us: float = 4.0
    """Microseconds that four launches less save, where a token's heads are turned, written and attended to in two."""
    cluster_arch: int = 90
    """Where a cluster may attend to all rows of a head of keys, which is the favourite ..."""
    cluster_rows: int = 4096
    """... up to so many rows of the cache."""
    turned_us: float = 0.8
    """Microseconds that are saved where the kernel turns queries and keys itself ..."""
    turned_keys: int = 128
    """... up to so many keys, while there are no more tiles of 64 queries than multiprocessors: every block turns those that it
    sees. One side alone was not measured."""
    joined_step_us: float = 0.8
    """Microseconds that a launch less saves, where results leave as bytes ..."""
    joined_nbytes_per_us: float = 4e6
    """... besides the bytes that are neither written nor read again."""


ATTENTION = AttentionHeuristic()
