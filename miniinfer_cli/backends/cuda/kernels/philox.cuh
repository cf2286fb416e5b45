// Random numbers by counter: Philox 4x32 with 10 rounds (Salmon and others 2011, "Parallel random numbers: as easy as 1, 2, 3").
#pragma once
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

// The uniform number of an element: as drawn before, or drawn here.
MI_DEVICE double uniform_of(const double* drawn, u64 i, u64 key, u32 stream) {
  return drawn ? drawn[i] : Unit<double>::of(philox(key, i >> 1, stream), (int)(i & 1));
}
