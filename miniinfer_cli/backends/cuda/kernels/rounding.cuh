// Floats between two bounds as numbers of 8 bits. MI_ROUNDS: 1 where MI_Y is i8 or u8, 2 where it is f8e4m3fn, else 0.
#pragma once
#include "conversions.cuh"

// x between two numbers; NaN stays what it is. Without a branch.
#ifdef MI_EMULATED
MI_DEVICE float held(float x, float low, float high) { return x > high ? high : x < low ? low : x; }
#else
MI_DEVICE float held(float x, float low, float high) {
  float r;
  asm("{\n\t.reg .f32 t;\n\tmax.NaN.f32 t, %1, %2;\n\tmin.NaN.f32 %0, t, %3;\n}" : "=f"(r) : "f"(x), "f"(low), "f"(high));
  return r;
}
#endif

// x in steps of the result's scale, without the zero point, as the result.
#if MI_ROUNDS == 1
MI_DEVICE MI_Y in_bytes(float x, float low, float high, float zero) {
  // A float of so many units has no digits behind the point: the addition rounds, to even, and leaves the integer in the low bits.
  x = fminf(fmaxf(x, low), high) + 12582912.0f;
  return (MI_Y)(__float_as_int(x) + (int)zero);
}
#elif MI_ROUNDS == 2
MI_DEVICE MI_Y in_bytes(float x, float low, float high, float) { return narrow<MI_Y>(held(x, low, high)); }
#endif
