// Bernoulli.
#include "philox.cuh"

// y = 1 with probability x, else 0.
extern "C" __global__ void bernoulli(const MI_X* x, MI_Y* y, const double* drawn, index_t count, u64 seed, int seeded, u32 stream) {
  const u64 key = key_of(seed, seeded);
  for (index_t i = mi_first(); i < count; i += mi_step())
    y[i] = narrow<MI_Y>((computed<MI_Y>)(uniform_of(drawn, (u64)i, key, stream) < (double)widen(x[i])));
}
