// Two halves in a word, of types f16 and bf16, or one f32.
#pragma once
#include "conversions.cuh"

// The larger of each; NaN where one of them is.
#ifdef MI_EMULATED
template <class T> MI_DEVICE u32 larger(u32 a, u32 b) {
  u32 found = 0;
  for (int i = 0; i < 32; i += 16) {
    T x{(u16)(a >> i)}, y{(u16)(b >> i)};
    float p = widen(x), q = widen(y);
    found |= (u32)(q > p || q != q ? y : x).bits << i;
  }
  return found;
}
template <> MI_DEVICE u32 larger<f32>(u32 a, u32 b) {
  float x = __uint_as_float(a), y = __uint_as_float(b);
  return y > x || y != y ? b : a;
}
#else
template <class T> MI_DEVICE u32 larger(u32 a, u32 b);
template <> MI_DEVICE u32 larger<f32>(u32 a, u32 b) {
  float found;
  asm("max.NaN.f32 %0, %1, %2;" : "=f"(found) : "f"(__uint_as_float(a)), "f"(__uint_as_float(b)));
  return __float_as_uint(found);
}
template <> MI_DEVICE u32 larger<f16>(u32 a, u32 b) {
  u32 found;
  asm("max.NaN.f16x2 %0, %1, %2;" : "=r"(found) : "r"(a), "r"(b));
  return found;
}
template <> MI_DEVICE u32 larger<bf16>(u32 a, u32 b) {
  u32 found;
  asm("max.NaN.bf16x2 %0, %1, %2;" : "=r"(found) : "r"(a), "r"(b));
  return found;
}
#endif
