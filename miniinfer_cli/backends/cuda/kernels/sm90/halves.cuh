// Words of two halves, and powers of two.
#pragma once
#include "types.cuh"

// low lies in the low bits. 2^x: within two units of the last place; 0 where the result is below the normal numbers.
#ifdef MI_EMULATED
MI_DEVICE u32 pair_of(float low, float high, f16*) { return f32_to_f16(low).bits | (u32)f32_to_f16(high).bits << 16; }
MI_DEVICE u32 pair_of(float low, float high, bf16*) { return f32_to_bf16(low).bits | (u32)f32_to_bf16(high).bits << 16; }
MI_DEVICE float power_of_two(float x) { return exp2f(x); }
#else
MI_DEVICE u32 pair_of(float low, float high, f16*) {
  u32 word;
  asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
MI_DEVICE u32 pair_of(float low, float high, bf16*) {
  u32 word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}
MI_DEVICE float power_of_two(float x) { float r; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x)); return r; }
#endif
