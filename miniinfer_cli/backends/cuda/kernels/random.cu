// Random numbers by counter: Philox 4x32 with 10 rounds (Salmon and others 2011, "Parallel random numbers: as easy as 1, 2, 3").
#include "arithmetic.cuh"

struct Words { u32 d[4]; };

MI_DEVICE Words philox(u64 key, u64 counter, u32 stream) {
  Words c = {{(u32)counter, (u32)(counter >> 32), stream, 0u}};
  u32 k0 = (u32)key, k1 = (u32)(key >> 32);
#pragma unroll
  for (int round = 0; round < 10; round++) {
    u64 a = (u64)0xd2511f53u * c.d[0], b = (u64)0xcd9e8d57u * c.d[2];
    c = Words{{(u32)(b >> 32) ^ c.d[1] ^ k0, (u32)b, (u32)(a >> 32) ^ c.d[3] ^ k1, (u32)a}};
    k0 += 0x9e3779b9u;
    k1 += 0xbb67ae85u;
  }
  return c;
}

// Where no seed is given, each launch has a key of its own: the clock.
MI_DEVICE u64 key_of(u64 seed, int seeded) {
  if (seeded) return seed;
#ifdef MI_EMULATED
  return seed ^ (u64)rand();
#else
  u64 now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  return seed ^ now;
#endif
}

// [0, 1) with all bits that the type holds, from the words n and n + 1 (f64) or n alone (f32).
template <class F> struct Unit;
template <> struct Unit<float> {
  static const int PER_BLOCK = 4;
  static MI_DEVICE float of(const Words& w, int n) { return (float)(w.d[n] >> 8) * (1.0f / 16777216.0f); }
};
template <> struct Unit<double> {
  static const int PER_BLOCK = 2;
  static MI_DEVICE double of(const Words& w, int n) {
    return ((double)(w.d[2 * n] >> 5) * 67108864.0 + (double)(w.d[2 * n + 1] >> 6)) * (1.0 / 9007199254740992.0);
  }
};

// Two independent normal numbers from two uniform ones (Box and Muller); 1 - u is never 0.
template <class F> MI_DEVICE void normal_pair(F& a, F& b) {
  F radius = math::sqrt((F)-2 * math::log((F)1 - a)), angle = (F)6.283185307179586 * b;
  a = radius * math::cos(angle);
  b = radius * math::sin(angle);
}

#ifdef MI_NORMAL
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
#endif

// The uniform number of an element: as drawn before, or drawn here.
MI_DEVICE double uniform_of(const double* drawn, u64 i, u64 key, u32 stream) {
  return drawn ? drawn[i] : Unit<double>::of(philox(key, i >> 1, stream), (int)(i & 1));
}

#ifdef MI_BERNOULLI
// y = 1 with probability x, else 0.
extern "C" __global__ void bernoulli(const MI_X* x, MI_Y* y, const double* drawn, index_t count, u64 seed, int seeded, u32 stream) {
  const u64 key = key_of(seed, seeded);
  for (index_t i = mi_first(); i < count; i += mi_step())
    y[i] = narrow<MI_Y>((computed<MI_Y>)(uniform_of(drawn, (u64)i, key, stream) < (double)widen(x[i])));
}
#endif

#ifdef MI_RATIO
// In training a share of ``ratio`` is set to 0 and the rest scaled up; else y = x. ratio, training and mask may be null.
extern "C" __global__ void dropout(const MI_X* x, const MI_RATIO* ratio, const bool* training, MI_X* y, bool* mask,
                                   const double* drawn, index_t count, u64 seed, int seeded, u32 stream) {
  typedef computed<MI_X> F;
  const double share = ratio ? (double)widen(ratio[0]) : 0.5;
  const bool active = training && training[0] && share != 0.0;
  const F scale = (F)(1.0 / (1.0 - share));
  const u64 key = key_of(seed, seeded);
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    bool kept = !active || uniform_of(drawn, (u64)i, key, stream) >= share;
    y[i] = active ? narrow<MI_X>(kept ? widen(x[i]) * scale : (F)0 * widen(x[i])) : x[i];
    if (mask) mask[i] = kept;
  }
}
#endif

#ifdef MI_CLASSES
// y = ``samples`` classes of each row of x, which has the logarithms of their weights. A block takes a row.
extern "C" __global__ void multinomial(const MI_X* x, MI_Y* y, const double* drawn, index_t classes, index_t samples, u64 seed,
                                       int seeded, u32 stream) {
  __shared__ double ends[MI_CLASSES];  // up to the end of each thread's run of classes
  __shared__ double top;
  const MI_X* row = x + (index_t)blockIdx.x * classes;
  const index_t run = (classes + blockDim.x - 1) / blockDim.x;
  const index_t first = run * (index_t)threadIdx.x, last = first + run < classes ? first + run : classes;
  double most = -(double)mi_infinity();
  for (index_t c = first; c < last; c++) most = math::maximum(most, (double)widen(row[c]));
  ends[threadIdx.x] = most;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (unsigned t = 1; t < blockDim.x; t++) most = math::maximum(most, ends[t]);
    top = most;
  }
  __syncthreads();
  double sum = 0.0;
  for (index_t c = first; c < last; c++) sum += exp((double)widen(row[c]) - top);
  ends[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x == 0)
    for (unsigned t = 1; t < blockDim.x; t++) ends[t] += ends[t - 1];
  __syncthreads();
  const u64 key = key_of(seed, seeded);
  for (index_t s = (index_t)threadIdx.x; s < samples; s += (index_t)blockDim.x) {
    const u64 at = (u64)blockIdx.x * (u64)samples + (u64)s;
    const double wanted = uniform_of(drawn, at, key, stream) * ends[blockDim.x - 1];
    int part = 0;
    while (part < (int)blockDim.x - 1 && ends[part] <= wanted) part++;
    index_t c = run * (index_t)part;
    double end = part ? ends[part - 1] : 0.0;
    for (; c < classes - 1; c++) {
      end += exp((double)widen(row[c]) - top);
      if (end > wanted) break;
    }
    y[at] = (MI_Y)(c < classes ? c : classes - 1);
  }
}
#endif
