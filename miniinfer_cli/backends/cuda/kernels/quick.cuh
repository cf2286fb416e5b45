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

// x times the part of the normal distribution below x. The part beyond |x| is two to the power of a polynomial, which was fitted
// so that the result is right within 1.4e-5, and within a seventh of the distance between two neighbours in f16.
MI_DEVICE float gelu(float x) {
  float u = fminf(fabsf(x), 60000.0f), p = u * -3.296667e-04f + 5.91336377e-03f;
  p = p * u - 4.85162176e-02f;
  p = p * u - 0.463754296f;
  p = p * u - 1.14934742f;
  p = p * u - 1.0001173f;
  return maximum_or_nan(x, 0.0f) - u * two_to(p);
}
MI_DEVICE float sigmoid(float x) { return one_over(1.0f + two_to(x * -1.44269504f)); }
MI_DEVICE float swish(float x, float alpha) { return x * sigmoid(x * alpha); }
MI_DEVICE float gelu_tanh(float x) { return x * one_over(1.0f + two_to((x * x * -0.102943240f - 2.30220819f) * x)); }

}  // namespace math
