"""Where everything lies in a plan file: the preamble, alignments, limits, versions, digests. docs/plan-format.md says why."""

import struct
from typing import Any

import xxhash

MAGIC = b"\x89MIPLAN\n"
FORMAT_VERSION = 2  # the newest; a plan is written in the oldest that can hold it
# The newest version of each operator set that this release can read. A domain that is not here is a plugin's.
OP_SETS = {"ai.onnx": 28, "ai.onnx.ml": 5, "miniinfer": 1}

PREAMBLE = struct.Struct("<8sIIQ16s")  # magic, format version, zero, header length, header digest
HEADER_LIMIT = 256 << 20
SECTION_ALIGNMENT = 4096  # of the weights in the file: direct I/O and mapping work on whole pages
ITEM_ALIGNMENT = 256  # of each tensor and kernel: what the device's allocator gives, and wide loads need
CHUNK_NBYTES = 4 << 20  # the weights that one digest stands for
DIGEST_NBYTES = 16

SIGNATURES = "signatures"  # the key of the target sections' signatures among the options
ORIGINS = "origins"  # and that of the nodes of the model that each node came from

MAX_INT = (1 << 63) - 1
MIN_INT = -(1 << 63)
MAX_RANK = 32  # of arrays in numpy 1
MAX_DEPTH = 32  # of graphs in graphs, types in types, lists in options
MAX_DIM_TEXT = 1024  # characters of a symbolic dimension


def align(offset: int, alignment: int) -> int:
    """The smallest multiple of ``alignment`` that is not below ``offset``."""
    return -(-offset // alignment) * alignment


def weights_start(header_nbytes: int) -> int:
    """Where the weights begin in a file whose header has this length."""
    return align(PREAMBLE.size + header_nbytes, SECTION_ALIGNMENT)


def chunk_count(weights_nbytes: int) -> int:
    """How many digests stand for this many bytes of weights."""
    return -(-weights_nbytes // CHUNK_NBYTES)


def digest(data: Any) -> bytes:
    """The xxh3-128 of any bytes, 16 bytes in canonical (big-endian) order."""
    return xxhash.xxh3_128_digest(data)
