// Element types and what every kernel needs: conversions to and from the type computed in, index types, structs of sizes.
// Read by NVRTC with no other header, so that a kernel compiles in milliseconds.
#pragma once

typedef signed char i8;
typedef short i16;
typedef int i32;
typedef long long i64;
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef float f32;
typedef double f64;

// Narrow floats are bits; arithmetic on them is done in f32. Types under 8 bits take a byte each on the device.
struct __align__(2) f16 { u16 bits; };
struct __align__(2) bf16 { u16 bits; };
struct f8e4m3fn { u8 bits; };
struct f8e4m3fnuz { u8 bits; };
struct f8e5m2 { u8 bits; };
struct f8e5m2fnuz { u8 bits; };
struct f8e8m0 { u8 bits; };
struct f4e2m1 { u8 bits; };
struct i4 { i8 bits; };  // the low bits of the byte count, here and below
struct i2 { i8 bits; };
struct u4 { u8 bits; };
struct u2 { u8 bits; };

#define MI_DEVICE __device__ __forceinline__

// Indices are int where every offset fits, i64 otherwise: -DMI_INDEX.
#ifndef MI_INDEX
#define MI_INDEX int
#endif
typedef MI_INDEX index_t;

// Sizes and strides passed by value.
template <int N> struct Ints { int d[N]; };
template <int N> struct Longs { long long d[N]; };
template <int N> struct Indices { index_t d[N]; };

// The first element of this thread in a one-dimensional grid, and the step to its next.
MI_DEVICE index_t mi_first() { return (index_t)blockIdx.x * (index_t)blockDim.x + (index_t)threadIdx.x; }
MI_DEVICE index_t mi_step() { return (index_t)gridDim.x * (index_t)blockDim.x; }

// Dynamic shared memory as an array: MI_SHARED(float, rows);
#ifndef MI_EMULATED
#define MI_SHARED(type, name)                                \
  extern __shared__ __align__(16) unsigned char mi_shared[]; \
  type* name = reinterpret_cast<type*>(mi_shared)
#endif

MI_DEVICE float mi_infinity() { return __int_as_float(0x7f800000); }
MI_DEVICE float mi_nan() { return __int_as_float(0x7fc00000); }

// ---- half and bfloat16 ----------------------------------------------------------------------------------------------
#ifdef MI_EMULATED
MI_DEVICE float f16_to_f32(f16 x) { return emulated_half_to_float(x.bits); }
MI_DEVICE f16 f32_to_f16(float x) { f16 r; r.bits = emulated_float_to_half(x); return r; }
MI_DEVICE f16 f64_to_f16(double x) { f16 r; r.bits = emulated_double_to_half(x); return r; }
#else
MI_DEVICE float f16_to_f32(f16 x) { float r; asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x.bits)); return r; }
MI_DEVICE f16 f32_to_f16(float x) { f16 r; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r.bits) : "f"(x)); return r; }
MI_DEVICE f16 f64_to_f16(double x) { f16 r; asm("cvt.rn.f16.f64 %0, %1;" : "=h"(r.bits) : "d"(x)); return r; }
#endif
MI_DEVICE float bf16_to_f32(bf16 x) { return __int_as_float((int)((u32)x.bits << 16)); }
MI_DEVICE bf16 f32_to_bf16(float x) {
  u32 b = (u32)__float_as_int(x);
  bf16 r;
  r.bits = (b & 0x7fffffffu) > 0x7f800000u ? (u16)((b >> 16) | 0x40) : (u16)((b + 0x7fffu + ((b >> 16) & 1u)) >> 16);
  return r;
}

// ---- the type computed in -------------------------------------------------------------------------------------------
// widen(x) is x in the type that arithmetic is done in; narrow<T>(x) rounds back. Integers and bool compute as themselves.
template <class T> struct Computed { typedef T type; };
template <> struct Computed<f16> { typedef float type; };
template <> struct Computed<bf16> { typedef float type; };
template <class T> using computed = typename Computed<T>::type;

template <class T> MI_DEVICE T widen(T x) { return x; }
MI_DEVICE float widen(f16 x) { return f16_to_f32(x); }
MI_DEVICE float widen(bf16 x) { return bf16_to_f32(x); }

template <class T> struct Narrow { template <class C> static MI_DEVICE T from(C x) { return (T)x; } };
template <> struct Narrow<f16> {
  static MI_DEVICE f16 from(float x) { return f32_to_f16(x); }
  static MI_DEVICE f16 from(double x) { return f64_to_f16(x); }
};
template <> struct Narrow<bf16> {
  static MI_DEVICE bf16 from(float x) { return f32_to_bf16(x); }
  static MI_DEVICE bf16 from(double x) { return f32_to_bf16((float)x); }
};
template <class T, class C> MI_DEVICE T narrow(C x) { return Narrow<T>::from(x); }

// N elements moved at once; alignment of N * sizeof(T), at most 16 bytes.
template <class T, int N> struct __align__(sizeof(T) * N > 16 ? 16 : sizeof(T) * N) Pack { T d[N]; };
