// Keys: unsigned integers that are ordered as the elements are. Equal elements (0 and -0, any two NaN) have equal keys, and
// NaN has the largest, which no other element has: sorting by keys gives numpy's order.
#pragma once
#include "conversions.cuh"

MI_DEVICE u32 ordered_key(float x) {
  u32 b = __float_as_uint(x);
  if (x != x) return 0xffffffffu;
  if (x == 0) b = 0;
  return b >> 31 ? ~b : b | 0x80000000u;
}
MI_DEVICE u64 ordered_key(double x) {
  u64 b = (u64)__double_as_longlong(x);
  if (x != x) return ~0ull;
  if (x == 0) b = 0;
  return b >> 63 ? ~b : b | (1ull << 63);
}
MI_DEVICE u32 ordered_key(bool x) { return x; }
MI_DEVICE u32 ordered_key(u8 x) { return x; }
MI_DEVICE u32 ordered_key(u16 x) { return x; }
MI_DEVICE u32 ordered_key(u32 x) { return x; }
MI_DEVICE u64 ordered_key(u64 x) { return x; }
MI_DEVICE u32 ordered_key(i8 x) { return (u32)(x + 128); }
MI_DEVICE u32 ordered_key(i16 x) { return (u32)(x + 32768); }
MI_DEVICE u32 ordered_key(i32 x) { return (u32)x ^ 0x80000000u; }
MI_DEVICE u64 ordered_key(i64 x) { return (u64)x ^ (1ull << 63); }

// Narrow types by the value that they are computed with.
#define MI_KEY_OF_VALUE(name) MI_DEVICE u32 ordered_key(name x) { return ordered_key(widen(x)); }
MI_KEY_OF_VALUE(f16)
MI_KEY_OF_VALUE(bf16)
MI_KEY_OF_VALUE(f8e4m3fn)
MI_KEY_OF_VALUE(f8e4m3fnuz)
MI_KEY_OF_VALUE(f8e5m2)
MI_KEY_OF_VALUE(f8e5m2fnuz)
MI_KEY_OF_VALUE(f8e8m0)
MI_KEY_OF_VALUE(f4e2m1)
MI_KEY_OF_VALUE(i4)
MI_KEY_OF_VALUE(i2)
MI_KEY_OF_VALUE(u4)
MI_KEY_OF_VALUE(u2)
#undef MI_KEY_OF_VALUE
