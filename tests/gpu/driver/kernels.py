"""Kernels for the tests of the driver, and how these use them."""

import numpy as np

from miniinfer_cli.backends.cuda.contract.parameters import pack_parameters
from miniinfer_cli.backends.cuda.driver.module import Module
from miniinfer_cli.backends.cuda.driver.stream import Stream

KERNELS = """
struct Sizes { int d[3]; };

extern "C" __global__ void mix(float* out, signed char a, double b, Sizes sizes, short c, long long d, float e) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < sizes.d[0]) out[i] = a + b + sizes.d[1] * i + sizes.d[2] + c + d + e;
}

extern "C" __global__ void add_one(int* x) { x[threadIdx.x + blockIdx.x * blockDim.x] += 1; }

extern "C" __global__ void place(int* out) {
  int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  int i = block * blockDim.x * blockDim.y * blockDim.z + thread;
  out[i] = 1000 * block + thread;
}

extern "C" __global__ void reverse(int* x, int n) {
  extern __shared__ int kept[];
  for (int i = threadIdx.x; i < n; i += blockDim.x) kept[i] = x[i];
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += blockDim.x) x[i] = kept[n - 1 - i];
}

extern "C" __global__ void spin(unsigned long long ns) {
  unsigned long long start, now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
  do { asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now)); } while (now - start < ns);
}
"""


def spin(module: Module, stream: Stream, milliseconds: float) -> None:
    stream.launch(module.function("spin"), (1,), (1,), 0, pack_parameters([np.uint64(milliseconds * 1e6)]))


def read(stream: Stream, address: int, count: int, dtype: type[np.generic]) -> np.ndarray:
    target = np.empty(count, dtype)
    stream.copy_to_host(target.ctypes.data, address, target.nbytes)
    stream.synchronize()
    return target
