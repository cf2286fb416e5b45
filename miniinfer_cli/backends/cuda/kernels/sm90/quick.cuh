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
// so that the result is right within 8e-7, and within a hundredth of what rounding to f16 takes.
MI_DEVICE float gelu(float x) {
  float u = fminf(fabsf(x), 12.0f), p = u * 3.24524299e-05f - 7.48517516e-04f;
  p = p * u + 7.94272125e-03f;
  p = p * u - 5.30527718e-02f;
  p = p * u - 4.59169537e-01f;
  p = p * u - 1.15103698f;
  p = p * u - 1.00000763f;
  return maximum_or_nan(x, 0.0f) - u * two_to(p);
}
MI_DEVICE float sigmoid(float x) { return one_over(1.0f + two_to(x * -1.44269504f)); }
MI_DEVICE float swish(float x, float alpha) { return x * sigmoid(x * alpha); }
MI_DEVICE float gelu_tanh(float x) { return x * sigmoid((x * x * 0.0713548162f + 1.59576912f) * x); }

}  // namespace math
