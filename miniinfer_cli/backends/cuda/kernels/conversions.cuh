// Element types under 16 bits, and conversions between any two types as the CPU's references make them.
#pragma once
#include "types.cuh"

// ---- floats of 8 and 4 bits -----------------------------------------------------------------------------------------
// A magnitude with M bits of mantissa and an exponent's bias of BIAS, shifted into place, is an f32 of a wrong bias: one
// exact product puts that right, subnormal numbers included.
template <int M, int BIAS> MI_DEVICE float small_to_f32(u32 code) {
  return __int_as_float((int)(code << (23 - M))) * __int_as_float((254 - BIAS) << 23);
}

// The code of |x| rounded to the nearest, ties to even; more than the largest where it overflows, and for NaN.
template <int M, int BIAS> MI_DEVICE u32 f32_to_small(float x) {
  u32 bits = (u32)__float_as_int(x) & 0x7fffffffu;
  if (bits < (u32)(128 - BIAS) << 23) {  // subnormal: an addition rounds at the right bit
    float unit = __int_as_float((151 - BIAS - M) << 23);
    return (u32)__float_as_int(__int_as_float((int)bits) + unit) - (u32)__float_as_int(unit);
  }
  bits += (1u << (22 - M)) - 1u + ((bits >> (23 - M)) & 1u);
  return (bits >> (23 - M)) - ((u32)(127 - BIAS) << M);
}

MI_DEVICE float with_sign(float magnitude, u32 negative) {
  return __int_as_float((int)((u32)__float_as_int(magnitude) | negative << 31));
}
MI_DEVICE u32 sign_of(float x) { return (u32)__float_as_int(x) >> 31; }

MI_DEVICE float widen(f8e4m3fn x) {
  u32 m = x.bits & 0x7fu;
  return with_sign(m == 0x7fu ? mi_nan() : small_to_f32<3, 7>(m), x.bits >> 7);
}
MI_DEVICE float widen(f8e5m2 x) {
  u32 m = x.bits & 0x7fu;
  return with_sign(m >= 0x7cu ? (m == 0x7cu ? mi_infinity() : mi_nan()) : small_to_f32<2, 15>(m), x.bits >> 7);
}
MI_DEVICE float widen(f8e4m3fnuz x) {
  return x.bits == 0x80u ? mi_nan() : with_sign(small_to_f32<3, 8>(x.bits & 0x7fu), x.bits >> 7);
}
MI_DEVICE float widen(f8e5m2fnuz x) {
  return x.bits == 0x80u ? mi_nan() : with_sign(small_to_f32<2, 16>(x.bits & 0x7fu), x.bits >> 7);
}
MI_DEVICE float widen(f4e2m1 x) { return with_sign(small_to_f32<1, 1>(x.bits & 7u), x.bits >> 3 & 1u); }
MI_DEVICE float widen(f8e8m0 x) {
  return x.bits == 255 ? mi_nan() : __int_as_float(x.bits == 0 ? 0x00400000 : (int)x.bits << 23);
}

// The two types that processors convert to from compute capability 8.9 on; they bound what overflows, which is not asked here.
#if !defined(MI_EMULATED) && __CUDA_ARCH__ >= 890
MI_DEVICE u32 bounded_f8e4m3fn(float x) {
  u16 r;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(r) : "f"(0.0f), "f"(x));
  return r & 0xffu;
}
MI_DEVICE u32 bounded_f8e5m2(float x) {
  u16 r;
  asm("cvt.rn.satfinite.e5m2x2.f32 %0, %1, %2;" : "=h"(r) : "f"(0.0f), "f"(x));
  return r & 0xffu;
}
#else
MI_DEVICE u32 bounded_f8e4m3fn(float x) { return f32_to_small<3, 7>(x) | sign_of(x) << 7; }
MI_DEVICE u32 bounded_f8e5m2(float x) { return f32_to_small<2, 15>(x) | sign_of(x) << 7; }
#endif
MI_DEVICE u8 f32_to_f8e4m3fn(float x) {  // 464 is half way to the number that NaN stands in the place of
  return (u8)(fabsf(x) <= 464.0f ? bounded_f8e4m3fn(x) : 0x7fu | sign_of(x) << 7);
}
MI_DEVICE u8 f32_to_f8e5m2(float x) {  // 61440 is half way to 65536, which has the place of infinity
  return (u8)(fabsf(x) < 61440.0f ? bounded_f8e5m2(x) : (x != x ? 0x7eu : 0x7cu) | sign_of(x) << 7);
}
MI_DEVICE u8 small_without_infinity(u32 m, float x) {  // the fnuz types: one zero, one NaN
  return (u8)(m > 0x7fu ? 0x80u : m == 0u ? 0u : m | sign_of(x) << 7);
}
MI_DEVICE u8 f32_to_f8e4m3fnuz(float x) { return small_without_infinity(f32_to_small<3, 8>(x), x); }
MI_DEVICE u8 f32_to_f8e5m2fnuz(float x) { return small_without_infinity(f32_to_small<2, 16>(x), x); }
MI_DEVICE u8 f32_to_f4e2m1(float x) {  // no NaN: ml_dtypes makes -0 of it
  u32 m = f32_to_small<1, 1>(x);
  return (u8)(x != x ? 8u : (m > 7u ? 7u : m) | sign_of(x) << 3);
}

enum Rounding { ROUND_UP, ROUND_DOWN, ROUND_NEAREST };

// |x| as a power of two; NaN, and without ``saturate`` what is out of range, gives NaN.
MI_DEVICE f8e8m0 to_f8e8m0(double x, Rounding rounding, bool saturate) {
  u64 bits = (u64)__double_as_longlong(x) & 0x7fffffffffffffffull, fraction = bits & 0xfffffffffffffull;
  int power = (int)(bits >> 52) - 1023;
  f8e8m0 r;
  if (power == 1024) {
    power = 128;
  } else if (bits == 0) {
    power = -128;
  } else {
    power += rounding == ROUND_UP ? fraction != 0 : rounding == ROUND_NEAREST ? (int)(fraction >> 51) : 0;
  }
  bool invalid = bits > 0x7ff0000000000000ull || (!saturate && (power > 127 || power < -127));
  r.bits = invalid ? 255 : (u8)((power > 127 ? 127 : power < -127 ? -127 : power) + 127);
  return r;
}

// ---- the types computed in ------------------------------------------------------------------------------------------
#define MI_SMALL_FLOAT(name)                                                              \
  template <> struct Computed<name> { typedef float type; };                              \
  template <> struct Narrow<name> {                                                       \
    template <class C> static MI_DEVICE name from(C x) { name r; r.bits = f32_to_##name((float)x); return r; } \
  }
MI_SMALL_FLOAT(f8e4m3fn);
MI_SMALL_FLOAT(f8e4m3fnuz);
MI_SMALL_FLOAT(f8e5m2);
MI_SMALL_FLOAT(f8e5m2fnuz);
MI_SMALL_FLOAT(f4e2m1);
#undef MI_SMALL_FLOAT
template <> struct Computed<f8e8m0> { typedef float type; };
template <> struct Narrow<f8e8m0> {
  template <class C> static MI_DEVICE f8e8m0 from(C x) { return to_f8e8m0((double)x, ROUND_NEAREST, true); }
};

// Integers under 8 bits are computed in i32; of what leaves the range the low bits stay. Of a byte that comes in, the low
// bits count, too: arrays that were not made by ml_dtypes need not be sign-extended.
#define MI_SMALL_INTEGER(name, byte, low_bits_of_x)                                              \
  template <> struct Computed<name> { typedef i32 type; };                                       \
  template <> struct Narrow<name> {                                                              \
    template <class C> static MI_DEVICE name from(C x) { name r; r.bits = (byte)(low_bits_of_x); return r; } \
  };                                                                                             \
  MI_DEVICE i32 widen(name y) { const i32 x = y.bits; return low_bits_of_x; }
MI_SMALL_INTEGER(i4, i8, (i32)((u32)x << 28) >> 28)
MI_SMALL_INTEGER(i2, i8, (i32)((u32)x << 30) >> 30)
MI_SMALL_INTEGER(u4, u8, (i32)((u32)x & 15u))
MI_SMALL_INTEGER(u2, u8, (i32)((u32)x & 3u))
#undef MI_SMALL_INTEGER

// ---- conversions ----------------------------------------------------------------------------------------------------
// convert<T>(x) for T and x of computed types. Floats go to integers toward zero; out of range, as x86 processors do it
// (the least i32 or i64, and the low bits of that for narrower types), for the CPU's results are those.
template <class F> MI_DEVICE i32 truncate_i32(F x) {
  return x > (F)-2147483904.0 && x < (F)2147483648.0 ? (i32)x : (i32)0x80000000;
}
template <class F> MI_DEVICE i64 truncate_i64(F x) {
  return x >= (F)-9223372036854775808.0 && x < (F)9223372036854775808.0 ? (i64)x : (i64)0x8000000000000000ull;
}
template <class F> MI_DEVICE u64 truncate_u64(F x) {
  const F half = (F)9223372036854775808.0;
  return x >= half ? (u64)truncate_i64(x - half) ^ 0x8000000000000000ull : (u64)truncate_i64(x);
}
template <class T> struct Truncate { template <class F> static MI_DEVICE T from(F x) { return (T)truncate_i32(x); } };
template <> struct Truncate<u32> { template <class F> static MI_DEVICE u32 from(F x) { return (u32)truncate_i64(x); } };
template <> struct Truncate<i64> { template <class F> static MI_DEVICE i64 from(F x) { return truncate_i64(x); } };
template <> struct Truncate<u64> { template <class F> static MI_DEVICE u64 from(F x) { return truncate_u64(x); } };
template <> struct Truncate<float> { template <class F> static MI_DEVICE float from(F x) { return (float)x; } };
template <> struct Truncate<double> { template <class F> static MI_DEVICE double from(F x) { return (double)x; } };
template <> struct Truncate<bool> { template <class F> static MI_DEVICE bool from(F x) { return x != (F)0; } };
template <class T, class C> MI_DEVICE T convert(C x) { return (T)x; }
template <class T> MI_DEVICE T convert(float x) { return Truncate<T>::from(x); }
template <class T> MI_DEVICE T convert(double x) { return Truncate<T>::from(x); }

// The same bits under another type of the same size.
template <class T, class S> MI_DEVICE T bit_cast(S x) {
  static_assert(sizeof(T) == sizeof(S), "the types differ in size");
  return *reinterpret_cast<T*>(&x);
}
