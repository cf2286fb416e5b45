// Functions that finish sums of halves while matrix units work: fewer instructions than the general ones, and as good for halves.
#pragma once
#include "activations.cuh"

namespace math {

#ifdef MI_EMULATED
MI_DEVICE float one_over(float x) { return 1 / x; }
MI_DEVICE float two_to(float x) { return exp2f(x); }
MI_DEVICE float maximum_or_nan(float a, float b) { return a != a || a > b ? a : b; }
#else
MI_DEVICE float one_over(float x) { float r; asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x)); return r; }
MI_DEVICE float two_to(float x) { float r; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x)); return r; }
MI_DEVICE float maximum_or_nan(float a, float b) { float r; asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b)); return r; }
#endif

// x times the normal distribution's part below x, which is told from its tail beyond |x|: a polynomial of 1 / (1 + p |x|) times
// exp(-x x / 2), right within 3e-7 of |x| (Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26).
MI_DEVICE float gelu(float x) {
  float u = fminf(fabsf(x), 16.0f), t = one_over(u * 0.23164189f + 1.0f), w = u * 0.84932180f;
  float tail = t * 0.53070271f - 0.72657602f;
  tail = tail * t + 0.71070687f;
  tail = tail * t - 0.14224837f;
  tail = tail * t + 0.12741480f;
  return maximum_or_nan(x, 0.0f) - u * (tail * t * two_to(w * -w));
}

}  // namespace math
