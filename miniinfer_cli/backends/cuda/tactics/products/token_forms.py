"""Forms of the kernel for products of few tokens on sm_90: how it cuts a product, what a block takes, which are fastest."""

import itertools
import math
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import cache

from miniinfer_cli.backends.cuda.contract.launch_attributes import MOST_CLUSTER, MOST_OVERLAPPING_SHARED
from miniinfer_cli.backends.cuda.contract.types import element_nbytes
from miniinfer_cli.ir import DType

FEATURES = 64
"""Features of a tile."""
CHUNK_NBYTES = 128
"""Bytes of k that are loaded at once."""
MOST_TOKENS = 256
"""Tokens of a tile."""
MOST_SHARED = 226 << 10
"""Bytes of shared memory of a block."""
_ALL_SHARED = 228 << 10  # bytes of a multiprocessor
_APART_NBYTES = 2 << 10  # of a block's share, what is neither tiles nor parts
# Microseconds as fitted to 60 forms on an H200 (docs/kernels.md), between those with plain edges and those of links.
_WEIGHT_US_PER_NBYTE = 10.3e-6  # into a multiprocessor
_TOKEN_US_PER_NBYTE = 4.5e-6
_L2_US_PER_NBYTE = 0.08e-6  # of all blocks
_SENT_US_PER_NBYTE = 36e-6  # of parts that a block gets
_SPLIT_US = 0.25
_PART_US = 0.14
_SHARING_US = 0.7
_BESIDE_US = -0.05
_OVER_US = 0.4  # parts that lie over what is read
_SHORT_US = 1.7  # of a ring that holds nothing
_UNIT_US = 0.19  # of 128 packs that a warpgroup finishes
_GROUPS_US = 0.43
# Of the multiprocessors, those that clusters of so many blocks fill: they lie within groups of 16 or 18.
_FILLED = (1, 1, 0.886, 0.909, 0.833, 0.773, 0.8, 0.909)
_ONE_GROUP = 160  # tokens that one warpgroup multiplies as fast as two
_MOST_TILES = 17  # fewer of the tokens
_ATOM = 8  # tokens
_INTEGERS = (DType.I8, DType.U8)
_COLUMNS_OF_INTEGERS, _FEWEST_COLUMNS = 16, 24  # of matrix instructions: multiples, beyond the fewest
_ATOM_NBYTES = 2048
_PITCH = 4 * (FEATURES + 4)


class Over(IntEnum):
    """What parts of sums lie over, as the kernel's MI_OVER."""

    NOTHING = 0
    WEIGHTS = 1
    TOKENS = 2


@dataclass(frozen=True, slots=True)
class Form:
    """How the kernel cuts a product.

    ``tokens`` of a tile, ``split`` blocks along k, ``groups`` of warps along the tokens, ``stages`` of the ring of tokens,
    ``rows`` of 64 features of a block, and ``sharing``: how many neighbours along the features load tokens for each other.
    ``residents``: blocks that a multiprocessor may hold at one time, by the shared memory that they ask for; the blocks of a
    cluster lie on one together otherwise, while others stand idle.
    """

    tokens: int
    split: int
    groups: int
    stages: int
    rows: int = 1
    sharing: int = 1
    residents: int = 1

    @property
    def threads(self) -> int:
        """Of a block, without those that load."""
        return 128 * self.groups * self.rows

    def chunks_of_block(self, chunks: int) -> int:
        """Of a block, at most."""
        return -(-chunks // self.split)

    def share(self) -> int:
        """Atoms of 8 tokens that each warpgroup of a block finishes, at most."""
        return -(-(self.tokens // _ATOM // self.groups) // self.split)

    def parts_nbytes(self) -> int:
        """Bytes of the sums that a block gets of others."""
        return (self.split - 1) * self.groups * self.rows * self.share() * _ATOM_NBYTES

    def parts_lie_over(self, chunks: int) -> Over:
        """What these lie over that has been read when the last chunk is multiplied, where they have no other room.

        That is weights or tokens, whichever have been read sooner; tokens only where each has a place of its own.
        """
        parts, before = self.parts_nbytes(), chunks // self.split - 1
        if not parts or self._tiles_nbytes(chunks) + parts <= _ALL_SHARED // self.residents - _APART_NBYTES:
            return Over.NOTHING
        weights, tokens = (-(-parts // (n * CHUNK_NBYTES)) for n in (self.rows * FEATURES, self.tokens))
        if tokens < weights and tokens <= before and self.stages >= self.chunks_of_block(chunks):
            return Over.TOKENS
        return Over.WEIGHTS if weights <= before else Over.NOTHING

    def shared_nbytes(self, chunks: int) -> int:
        """Bytes of shared memory of a block."""
        held = self.chunks_of_block(chunks)
        parts = 0 if self.parts_lie_over(chunks) else self.parts_nbytes()
        needed = self._tiles_nbytes(chunks) + parts + 8 * (held + 2 * min(self.stages, held) + 1)
        needed = max(needed, self._results_nbytes())
        return max(needed, -(-_ALL_SHARED // (self.residents + 1) // 16) * 16 if self.split * self.sharing > 1 else 0)

    def keeps_barriers(self, chunks: int) -> bool:
        """Whether what lies behind the tiles is still there when results lie where tiles lay."""
        return self._results_nbytes() <= self._tiles_nbytes(chunks)

    def _results_nbytes(self) -> int:
        return self.groups * self.rows * self.share() * _ATOM * _PITCH

    def _tiles_nbytes(self, chunks: int) -> int:
        held = self.chunks_of_block(chunks)
        return (held * self.rows * FEATURES + min(self.stages, held) * self.tokens) * CHUNK_NBYTES

    def fault(self, chunks: int) -> str:
        """Why the kernel has no such form; nothing where it has."""
        if not 1 <= self.split <= chunks or self.split * self.sharing > MOST_CLUSTER:
            return f"{chunks} chunks of k in {self.split} parts, {self.sharing} share their tokens"
        if self.groups not in (1, 2) or self.rows not in (1, 2, 4) or self.groups * self.rows > 4:
            return f"{self.groups} warpgroups along the tokens, {self.rows} along the features"
        if self.tokens % (_ATOM * self.groups) or self.tokens % (_ATOM * self.sharing) or not 8 <= self.tokens <= MOST_TOKENS:
            return f"{self.tokens} tokens for {self.groups} warpgroups, which {self.sharing} blocks load"
        if self.stages < min(2, self.chunks_of_block(chunks)):
            return f"a ring of {self.stages}"
        if self.split > 1 and not self.keeps_barriers(chunks):
            return "the results of a block have no room"
        return ""


@dataclass(frozen=True, slots=True)
class TokenProduct:
    """``count`` tokens of ``k`` elements times ``features`` weights of as many, packed; rows of tokens and results are pitched.

    ``constant``: no kernel makes the weights. ``weights``: their type, where it is another than that of tokens.
    """

    count: int
    features: int
    k: int
    dtype: DType
    result: DType
    pitch: int
    result_pitch: int
    constant: bool = True
    weights: DType | None = None

    @property
    def chunks(self) -> int:
        """Of k."""
        return -(-self.k * element_nbytes(self.dtype) // CHUNK_NBYTES)


@cache
def forms_of(p: TokenProduct, multiprocessors: int, room: int = MOST_SHARED) -> tuple[Form, ...]:
    """Forms whose blocks have ``room`` bytes of shared memory, the fastest first by ``tokens_us``.

    Where a ring that holds all tokens keeps a second grid out, one that lets it in is among them, too. What was slower wherever
    it was measured is none of them: several rows, and tokens shared by blocks of parts of k, or through a ring that is too short.
    """
    found: dict[Form, None] = {}
    alone = [(split, 1, 1) for split in range(1, MOST_CLUSTER + 1)]
    ways = [*alone, (2, 1, 2), (3, 1, 2), (1, 2, 1), (1, 4, 1), (1, 8, 1)]
    fewest = -(-p.count // MOST_TOKENS)
    for tiles, (split, sharing, residents) in itertools.product(range(fewest, min(max(7, fewest + 3), _MOST_TILES)), ways):
        unit = _ATOM * sharing
        if p.dtype in _INTEGERS and p.count > _FEWEST_COLUMNS:
            unit = math.lcm(_COLUMNS_OF_INTEGERS, unit)
        tokens = -(-p.count // (tiles * unit)) * unit
        groups = 1
        if tokens > _ONE_GROUP:
            tokens, groups = min(-(-tokens // (2 * unit)) * 2 * unit, MOST_TOKENS), 2
        for most in (min(MOST_OVERLAPPING_SHARED, room), room):
            form = Form(tokens, split, groups, -(-p.chunks // split), 1, sharing, residents)
            while form.stages > 2 and form.shared_nbytes(p.chunks) > most:
                form = replace(form, stages=form.stages - 1)
            if sharing > 1 and form.stages < form.chunks_of_block(p.chunks):
                continue
            if not form.fault(p.chunks) and form.shared_nbytes(p.chunks) <= min(most, _ALL_SHARED // residents - _APART_NBYTES):
                found[form] = None
    return tuple(sorted(found, key=lambda form: tokens_us(p, form, multiprocessors)))


def tokens_us(p: TokenProduct, form: Form, multiprocessors: int) -> float:
    """Microseconds that a launch takes, about: what a multiprocessor gets, what all get through the L2 cache, what blocks send to
    each other, a ring that is too short, and what is finished; as often as clusters do not fit on the device at one time."""
    held, blocks, cluster = form.chunks_of_block(p.chunks), math.prod(grid_of(p, form)), form.split * form.sharing
    tokens, weights = (held * CHUNK_NBYTES * n for n in (form.tokens, FEATURES * form.rows))
    at_once = max(cluster, int(multiprocessors * _FILLED[cluster - 1]))
    through_l2 = blocks * (weights + tokens / form.sharing) * _L2_US_PER_NBYTE
    us = weights * _WEIGHT_US_PER_NBYTE + tokens * _TOKEN_US_PER_NBYTE + form.parts_nbytes() * _SENT_US_PER_NBYTE
    us += _SPLIT_US + _PART_US * form.split if form.split > 1 else 0
    us += _SHARING_US if form.sharing > 1 else 0
    us += (_BESIDE_US if form.residents > 1 else 0) + (_OVER_US if form.parts_lie_over(p.chunks) else 0)
    us += _GROUPS_US if form.groups > 1 else 0
    us += _SHORT_US * (held - min(form.stages, held)) / held
    us += _UNIT_US * -(-form.share() * _ATOM * FEATURES // 8 // 128)
    return -(-blocks // at_once) * us + through_l2


def grid_of(p: TokenProduct, form: Form) -> tuple[int, int, int]:
    """Blocks along features, k and tokens; along the features whole clusters, some of whose blocks may have nothing to do."""
    tiles = -(-p.features // (FEATURES * form.rows * form.sharing)) * form.sharing
    return tiles, form.split, -(-p.count // form.tokens)


def blocks_of(p: TokenProduct, form: Form) -> int:
    """How many blocks there are."""
    return math.prod(grid_of(p, form))
