"""The kernels that ceilings are measured with."""

from miniinfer_cli.backends.cuda.contract.steps import Kernel

EMPTY = Kernel("empty", code='extern "C" __global__ void empty(int unused) {}\n')

# Values of +-1 with all their bits in use would be zeros to the power supply: a hash gives every operand bits of its own.
NOISE = Kernel(
    "noise",
    code="""
extern "C" __global__ void noise(u32* words, index_t count, u32 keep_even, u32 set_even, u32 keep_odd, u32 set_odd) {
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    u32 h = (u32)i * 2654435761u;
    h ^= h >> 15; h *= 2246822519u; h ^= h >> 13;
    words[i] = i & 1 ? (h & keep_odd) | set_odd : (h & keep_even) | set_even;
  }
}
""",
)

CHAINS, UNROLLED = 8, 16
"""Sums that a thread keeps at once, and how often a round adds to each."""


def multiply_adds(numbers: str) -> Kernel:
    """A kernel that multiplies and adds in registers (``float`` or ``double``): chains that depend on nothing but themselves."""
    return Kernel(
        f"multiply_adds_{numbers}",
        code=f"""
extern "C" __global__ void multiply_adds_{numbers}({numbers}* sums, int rounds) {{
  {numbers} sum[{CHAINS}], factor = ({numbers})0.999, term = ({numbers})(1 + (threadIdx.x & 31)) / 1024;
  for (int c = 0; c < {CHAINS}; c++) sum[c] = ({numbers})(c + 1);
  for (int r = 0; r < rounds; r++)
#pragma unroll
    for (int u = 0; u < {UNROLLED}; u++)
#pragma unroll
      for (int c = 0; c < {CHAINS}; c++) sum[c] = sum[c] * factor + term;
  {numbers} all = 0;
  for (int c = 0; c < {CHAINS}; c++) all += sum[c];
  if (all < 0) sums[0] = all;  // which nobody knows before
}}
""",
    )


# Each round a thread copies what another one copied in the round before, so that nothing comes from a cache nearer than the last.
COPY_AGAIN = Kernel(
    "copy_again",
    code="""
struct alignas(16) Piece { u32 words[4]; };
extern "C" __global__ void copy_again(Piece* a, Piece* b, index_t count, int rounds, index_t shift) {
  for (int r = 0; r < rounds; r++) {
    Piece *from = r & 1 ? b : a, *to = r & 1 ? a : b;
    index_t ahead = (index_t)r * shift % count;
    for (index_t i = mi_first(); i < count; i += mi_step()) {
      index_t at = i + ahead;
      if (at >= count) at -= count;
      to[at] = from[at];
    }
  }
}
""",
)
