// Tensors of random numbers, uniform or normal.
#include "philox.cuh"

// Two independent normal numbers from two uniform ones (Box and Muller); 1 - u is never 0.
template <class F> MI_DEVICE void normal_pair(F& a, F& b) {
  F radius = math::sqrt((F)-2 * math::log((F)1 - a)), angle = (F)6.283185307179586 * b;
  a = radius * math::cos(angle);
  b = radius * math::sin(angle);
}

// y = a + b * a normal number (MI_NORMAL 1), or a number from [a, b) (0).
extern "C" __global__ void draw(MI_Y* y, index_t count, double a, double b, u64 seed, int seeded, u32 stream) {
  typedef computed<MI_Y> F;
  const int N = Unit<F>::PER_BLOCK;
  const u64 key = key_of(seed, seeded);
  for (index_t i = mi_first() * N; i < count; i += mi_step() * N) {
    const Words words = philox(key, (u64)i, stream);
    F u[N];
#pragma unroll
    for (int e = 0; e < N; e++) u[e] = Unit<F>::of(words, e);
    if (MI_NORMAL) {
#pragma unroll
      for (int e = 0; e < N; e += 2) normal_pair(u[e], u[e + 1]);
    }
    Pack<MI_Y, N> r;
#pragma unroll
    for (int e = 0; e < N; e++) r.d[e] = narrow<MI_Y>(MI_NORMAL ? (F)a + (F)b * u[e] : (F)a + ((F)b - (F)a) * u[e]);
    if (count - i >= N) {
      *(Pack<MI_Y, N>*)(y + i) = r;
    } else {
      for (int e = 0; e < N && i + e < count; e++) y[i + e] = r.d[e];
    }
  }
}
