// What CUDA C++ has and C++ has not, for the kernels of one translation unit. runtime.cpp runs them; device.py says what of a
// device this does not show.
//
// Read before every kernel, so it includes no header of C++'s library: those take longer than most kernels do.
#pragma once
#include <stddef.h>
#include <stdint.h>
#define _GLIBCXX_INCLUDE_NEXT_C_HEADERS  // libstdc++ has headers of these names, which include all of <cmath> and <cstdlib>
#include <math.h>
#include <stdlib.h>
#undef _GLIBCXX_INCLUDE_NEXT_C_HEADERS

#define MI_EMULATED 1
#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __shared__ static
#define __constant__ static
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __restrict__ __restrict
#define __grid_constant__
#define MI_SHARED(type, name) type* name = reinterpret_cast<type*>(emulation::dynamic_shared())

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
struct float2 { float x, y; };
struct float4 { float x, y, z, w; };
struct int2 { int x, y; };
struct int4 { int x, y, z, w; };
struct uint2 { unsigned x, y; };
struct uint4 { unsigned x, y, z, w; };
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }

extern uint3 threadIdx, blockIdx;
extern dim3 blockDim, gridDim;
static const int warpSize = 32;

namespace emulation {
struct Kernel {
  void (*body)(void** parameters);
  char *shared, *shared_end;  // its __shared__ variables, which are all that a library of one kernel holds
  bool synchronizes;          // threads of a block are fibers then, and plain calls one after the other otherwise
};
// Null, or what the kernel did that a device would not allow.
const char* run_grid(const Kernel& kernel, const unsigned* grid, const unsigned* block, unsigned shared_nbytes, void** parameters);
unsigned char* dynamic_shared();
void wait_for_block();
void wait_for_warp();
// What the lane ``source`` of this warp gave; ``own`` when there is none. Every lane of the warp calls it.
uint64_t exchange(uint64_t own, int source);
uint32_t vote(bool predicate);
unsigned lanes_in_warp();

template <size_t... I> struct Numbers { template <size_t N> using next = Numbers<I..., N>; };
template <size_t N> struct Below { typedef typename Below<N - 1>::type::template next<N - 1> type; };
template <> struct Below<0> { typedef Numbers<> type; };
template <class T> struct Value { typedef T type; };
template <class T> struct Value<T&> { typedef T type; };

template <class... A, size_t... I> static void apply(void (*f)(A...), void** p, Numbers<I...>) {
  f(*reinterpret_cast<typename Value<A>::type*>(p[I])...);
}
template <class... A> static void call(void (*f)(A...), void** p) { apply(f, p, typename Below<sizeof...(A)>::type{}); }

static inline unsigned linear() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
template <class T> static T shuffle(T value, int source, bool valid) {
  static_assert(sizeof(T) <= 8, "shuffles move 8 bytes at most");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(T));
  bits = exchange(bits, valid ? source : -1);
  __builtin_memcpy(&value, &bits, sizeof(T));
  return value;
}
}  // namespace emulation

// What the library of a kernel exports. The linker names the ends of the memory that starts as zeros.
extern "C" __attribute__((visibility("hidden"))) char __bss_start[], _end[];
#define MI_EXPORT(name, synchronizes)                                                                                         \
  static void mi_call(void** parameters) { emulation::call(name, parameters); }                                               \
  extern "C" __attribute__((visibility("default")))                                                                           \
  const char* mi_run(const unsigned* grid, const unsigned* block, unsigned shared_nbytes, void** parameters) {                \
    return emulation::run_grid({mi_call, __bss_start, _end, synchronizes}, grid, block, shared_nbytes, parameters);           \
  }

static inline void __syncthreads() { emulation::wait_for_block(); }
static inline void __syncwarp(unsigned = ~0u) { emulation::wait_for_warp(); }
static inline int __syncthreads_or(int p) {
  static int any; __syncthreads(); any = 0; __syncthreads(); if (p) any = 1; __syncthreads(); int r = any; __syncthreads(); return r;
}
static inline int __syncthreads_count(int p) {
  static int n; __syncthreads(); n = 0; __syncthreads(); if (p) n++; __syncthreads(); int r = n; __syncthreads(); return r;
}
template <class T> static T __shfl_sync(unsigned, T v, int lane, int width = 32) {
  int me = emulation::linear() % 32; return emulation::shuffle(v, (me & ~(width - 1)) + (lane & (width - 1)), true);
}
template <class T> static T __shfl_xor_sync(unsigned, T v, int mask, int width = 32) {
  int me = emulation::linear() % 32, source = me ^ mask; return emulation::shuffle(v, source, source / width == me / width);
}
template <class T> static T __shfl_down_sync(unsigned, T v, unsigned by, int width = 32) {
  int me = emulation::linear() % 32, source = me + (int)by; return emulation::shuffle(v, source, source / width == me / width);
}
template <class T> static T __shfl_up_sync(unsigned, T v, unsigned by, int width = 32) {
  int me = emulation::linear() % 32, source = me - (int)by; return emulation::shuffle(v, source, source >= (me & ~(width - 1)));
}
static inline unsigned __ballot_sync(unsigned, int p) { return emulation::vote(p); }
static inline int __any_sync(unsigned, int p) { return emulation::vote(p) != 0; }
static inline int __all_sync(unsigned, int p) {
  unsigned n = emulation::lanes_in_warp(); return emulation::vote(p) == (n == 32 ? ~0u : (1u << n) - 1);
}
static inline void __threadfence() {}
static inline void __threadfence_block() {}

template <class T, class U> static T atomicAdd(T* p, U v) { T old = *p; *p = old + (T)v; return old; }
template <class T, class U> static T atomicSub(T* p, U v) { T old = *p; *p = old - (T)v; return old; }
template <class T, class U> static T atomicMax(T* p, U v) { T old = *p; if ((T)v > old) *p = (T)v; return old; }
template <class T, class U> static T atomicMin(T* p, U v) { T old = *p; if ((T)v < old) *p = (T)v; return old; }
template <class T, class U> static T atomicExch(T* p, U v) { T old = *p; *p = (T)v; return old; }
template <class T, class U> static T atomicOr(T* p, U v) { T old = *p; *p = old | (T)v; return old; }
template <class T, class U> static T atomicAnd(T* p, U v) { T old = *p; *p = old & (T)v; return old; }
template <class T> static T atomicCAS(T* p, T expected, T v) { T old = *p; if (old == expected) *p = v; return old; }

template <class T> static T __ldg(const T* p) { return *p; }
static inline float __int_as_float(int x) { float r; __builtin_memcpy(&r, &x, 4); return r; }
static inline int __float_as_int(float x) { int r; __builtin_memcpy(&r, &x, 4); return r; }
static inline float __uint_as_float(unsigned x) { float r; __builtin_memcpy(&r, &x, 4); return r; }
static inline unsigned __float_as_uint(float x) { unsigned r; __builtin_memcpy(&r, &x, 4); return r; }
static inline long long __double_as_longlong(double x) { long long r; __builtin_memcpy(&r, &x, 8); return r; }
static inline double __longlong_as_double(long long x) { double r; __builtin_memcpy(&r, &x, 8); return r; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
#define __expf(x) expf(x)
#define __logf(x) logf(x)
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fsub_rn(float x, float y) { return x - y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return sqrtf(x); }
static inline float __fmaf_rn(float x, float y, float z) { return fmaf(x, y, z); }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline int __float2int_rn(float x) { return (int)nearbyintf(x); }
static inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; i++) c += (int)(signed char)(a >> 8 * i) * (int)(signed char)(b >> 8 * i);
  return c;
}
template <class A, class B> static inline auto min(A a, B b) -> decltype(a + b) { return a < b ? a : b; }
template <class A, class B> static inline auto max(A a, B b) -> decltype(a + b) { return a > b ? a : b; }

static inline float emulated_half_to_float(unsigned short bits) { _Float16 h; __builtin_memcpy(&h, &bits, 2); return (float)h; }
static inline unsigned short emulated_float_to_half(float x) { _Float16 h = (_Float16)x; unsigned short b; __builtin_memcpy(&b, &h, 2); return b; }
static inline unsigned short emulated_double_to_half(double x) { _Float16 h = (_Float16)x; unsigned short b; __builtin_memcpy(&b, &h, 2); return b; }
