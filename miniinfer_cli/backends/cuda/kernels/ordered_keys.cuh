// Keys: unsigned integers that are ordered as the elements are. Equal elements (0 and -0, any two NaN) have equal keys, and
// NaN has the largest, which no other element has: sorting by keys gives numpy's order.
#pragma once
#include "types.cuh"

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
MI_DEVICE u32 ordered_key(f16 x) { return ordered_key(widen(x)); }
MI_DEVICE u32 ordered_key(bf16 x) { return ordered_key(widen(x)); }
MI_DEVICE u32 ordered_key(bool x) { return x; }
MI_DEVICE u32 ordered_key(u8 x) { return x; }
MI_DEVICE u32 ordered_key(u16 x) { return x; }
MI_DEVICE u32 ordered_key(u32 x) { return x; }
MI_DEVICE u64 ordered_key(u64 x) { return x; }
MI_DEVICE u32 ordered_key(i8 x) { return (u32)(x + 128); }
MI_DEVICE u32 ordered_key(i16 x) { return (u32)(x + 32768); }
MI_DEVICE u32 ordered_key(i32 x) { return (u32)x ^ 0x80000000u; }
MI_DEVICE u64 ordered_key(i64 x) { return (u64)x ^ (1ull << 63); }
MI_DEVICE u32 ordered_key(i4 x) { return ordered_key(x.bits); }
MI_DEVICE u32 ordered_key(i2 x) { return ordered_key(x.bits); }
MI_DEVICE u32 ordered_key(u4 x) { return x.bits; }
MI_DEVICE u32 ordered_key(u2 x) { return x.bits; }

// Floats of a sign and magnitude in few bits: below the sign, bits are ordered as magnitudes are.
MI_DEVICE u32 signed_magnitude_key(u32 bits, u32 sign, bool is_nan) {
  u32 magnitude = bits & (sign - 1);
  return is_nan ? 0xffffffffu : bits & sign ? sign - magnitude : sign + magnitude;
}
MI_DEVICE u32 ordered_key(f8e4m3fn x) { return signed_magnitude_key(x.bits, 128, (x.bits & 127) == 127); }
MI_DEVICE u32 ordered_key(f8e5m2 x) { return signed_magnitude_key(x.bits, 128, (x.bits & 127) > 124); }
MI_DEVICE u32 ordered_key(f8e4m3fnuz x) { return signed_magnitude_key(x.bits, 128, x.bits == 128); }
MI_DEVICE u32 ordered_key(f8e5m2fnuz x) { return signed_magnitude_key(x.bits, 128, x.bits == 128); }
MI_DEVICE u32 ordered_key(f4e2m1 x) { return signed_magnitude_key(x.bits & 15, 8, false); }
MI_DEVICE u32 ordered_key(f8e8m0 x) { return x.bits == 255 ? 0xffffffffu : x.bits; }
