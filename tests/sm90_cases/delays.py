"""Kernels for sm_90a whose warps are held up by chance wherever they arrive at a barrier, or wait for one."""

import re
from dataclasses import replace

from miniinfer_cli.backends.cuda.driver.kernel_cache import KernelSource

MOST_NS = 2000
"""Nanoseconds of a delay; one of four times there is one."""
_BARRIERS = "sm90/barriers.cuh"
_HELD_UP = (
    "arrive", "arrive_in_cluster", "give_back_in_cluster", "arrive_expecting", "await", "await_in_cluster", "meet", "come_to",
    "arrive_at_cluster", "await_cluster", "come_to_cluster",
)  # fmt: skip
# By the clock, so otherwise in each run; all lanes of a warp that come together are held up together.
_DELAY = f"""MI_DEVICE void hold_up() {{
  unsigned x, block = blockIdx.x + blockIdx.y * 211u + blockIdx.z * 1031u;
  asm volatile("mov.u32 %0, %%clock;" : "=r"(x));
  x = (x ^ (threadIdx.x / 32 * 0x9e3779b9u) ^ block * 0x7feb352du) * 0x85ebca6bu;
  x ^= x >> 15;
  if (x % 4 == 0) __nanosleep(x / 4 % {MOST_NS}u);
}}
"""


def with_delays(source: KernelSource) -> KernelSource:
    """The same kernel with delays. Raises ValueError where a function that is to be held up is not found."""
    emulated, device, real = source.headers[_BARRIERS].partition("#else\n")
    for name in _HELD_UP:
        real, count = re.subn(rf"^(MI_DEVICE void {name}\([^)]*\) {{)", r"\1 hold_up();", real, flags=re.MULTILINE)
        if count != 1:
            raise ValueError(f"{_BARRIERS}: {count} functions named {name}")
    return replace(source, headers={**source.headers, _BARRIERS: emulated + device + _DELAY + real})
