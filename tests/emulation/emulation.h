// What CUDA C++ has and C++ has not, for kernels of one translation unit run by one processor thread.
// Threads of a block are fibers where the kernel synchronizes, and plain calls one after the other where it does not.
#pragma once
#include <cmath>
#include <csetjmp>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <ucontext.h>
#include <utility>
#include <vector>

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
#define MI_SHARED(type, name) type* name = reinterpret_cast<type*>(emulation::dynamic_shared)

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

static uint3 threadIdx, blockIdx;
static dim3 blockDim, gridDim;
static const int warpSize = 32;

namespace emulation {
alignas(64) static unsigned char dynamic_shared[256 << 10];
enum State { READY, AT_BLOCK, AT_WARP, DONE };
struct Fiber { jmp_buf at; ucontext_t first; State state; bool started; uint3 index; std::vector<char> stack; };
static std::vector<Fiber> fibers;
static jmp_buf scheduler;
static ucontext_t scheduler_context;
static int current = -1;
static void (*body)(void**);
static void** parameters;
static uint64_t exchange[1024 / 32][32];
static uint32_t votes[1024 / 32][32];

static void leave(State state) {
  if (current < 0) { std::fprintf(stderr, "emulation: a kernel synchronizes that was taken for one that does not\n"); std::abort(); }
  Fiber& me = fibers[current];
  me.state = state;
  if (_setjmp(me.at) == 0) _longjmp(scheduler, 1);
}
static void enter() {
  body(parameters);
  fibers[current].state = DONE;
  _longjmp(scheduler, 1);
}
static void resume(int number) {
  current = number;
  Fiber& f = fibers[number];
  threadIdx = f.index;
  if (_setjmp(scheduler) == 0) {
    if (f.started) _longjmp(f.at, 1);
    f.started = true;
    setcontext(&f.first);
  }
  current = -1;
}
static void run_block_with_fibers(unsigned count) {
  if (fibers.size() < count) fibers.resize(count);
  for (unsigned i = 0; i < count; i++) {
    Fiber& f = fibers[i];
    if (f.stack.empty()) f.stack.resize(128 << 10);
    getcontext(&f.first);
    f.first.uc_stack.ss_sp = f.stack.data();
    f.first.uc_stack.ss_size = f.stack.size();
    f.first.uc_link = nullptr;
    makecontext(&f.first, enter, 0);
    f.started = false;
    f.state = READY;
    f.index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
  }
  for (;;) {
    bool moved = false, alive = false, all_at_block = true;
    for (unsigned i = 0; i < count; i++)
      if (fibers[i].state == READY) { resume(i); moved = true; }
    for (unsigned w = 0; w < count; w += 32) {
      bool waiting = false, all = true;
      for (unsigned i = w; i < w + 32 && i < count; i++) {
        if (fibers[i].state == AT_WARP) waiting = true;
        else if (fibers[i].state != DONE) all = false;
      }
      if (waiting && all)
        for (unsigned i = w; i < w + 32 && i < count; i++)
          if (fibers[i].state == AT_WARP) { fibers[i].state = READY; moved = true; }
    }
    for (unsigned i = 0; i < count; i++) {
      if (fibers[i].state != DONE) { alive = true; if (fibers[i].state != AT_BLOCK) all_at_block = false; }
    }
    if (!alive) return;
    if (all_at_block) { for (unsigned i = 0; i < count; i++) if (fibers[i].state == AT_BLOCK) fibers[i].state = READY; moved = true; }
    if (!moved) { std::fprintf(stderr, "emulation: threads wait at different barriers\n"); std::abort(); }
  }
}
template <class... A, size_t... I> static void apply(void (*f)(A...), void** p, std::index_sequence<I...>) {
  f(*reinterpret_cast<std::remove_reference_t<A>*>(p[I])...);
}
template <class... A> static void call(void (*f)(A...), void** p) { apply(f, p, std::index_sequence_for<A...>{}); }

static void run_grid(void (*kernel)(void**), void** p, const unsigned* grid, const unsigned* block, bool fibers_wanted) {
  body = kernel; parameters = p;
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  unsigned count = block[0] * block[1] * block[2];
  for (unsigned z = 0; z < grid[2]; z++) for (unsigned y = 0; y < grid[1]; y++) for (unsigned x = 0; x < grid[0]; x++) {
    blockIdx = {x, y, z};
    std::memset(dynamic_shared, 0xcd, sizeof dynamic_shared < 4096 ? sizeof dynamic_shared : 4096);
    if (fibers_wanted) run_block_with_fibers(count);
    else for (unsigned i = 0; i < count; i++) {
      threadIdx = {i % block[0], i / block[0] % block[1], i / block[0] / block[1]};
      kernel(p);
    }
  }
}
static inline unsigned linear() { return threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z); }
static inline unsigned lanes_in_warp(unsigned warp) {
  unsigned count = blockDim.x * blockDim.y * blockDim.z;
  return count - warp * 32 < 32 ? count - warp * 32 : 32;
}
template <class T> static T shuffle(T value, int source, bool valid) {
  static_assert(sizeof(T) <= 8, "shuffles move 8 bytes at most");
  unsigned me = linear(), warp = me / 32;
  std::memcpy(&exchange[warp][me % 32], &value, sizeof(T));
  leave(AT_WARP);
  T result = value;
  if (valid && source >= 0 && source < (int)lanes_in_warp(warp)) std::memcpy(&result, &exchange[warp][source], sizeof(T));
  leave(AT_WARP);
  return result;
}
static uint32_t vote(bool predicate) {
  unsigned me = linear(), warp = me / 32;
  votes[warp][me % 32] = predicate;
  leave(AT_WARP);
  uint32_t all = 0;
  for (unsigned i = 0; i < lanes_in_warp(warp); i++) all |= (votes[warp][i] ? 1u : 0u) << i;
  leave(AT_WARP);
  return all;
}
}  // namespace emulation

static inline void __syncthreads() { emulation::leave(emulation::AT_BLOCK); }
static inline void __syncwarp(unsigned = ~0u) { emulation::leave(emulation::AT_WARP); }
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
  unsigned n = emulation::lanes_in_warp(emulation::linear() / 32); return emulation::vote(p) == (n == 32 ? ~0u : (1u << n) - 1);
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
static inline float __int_as_float(int x) { float r; std::memcpy(&r, &x, 4); return r; }
static inline int __float_as_int(float x) { int r; std::memcpy(&r, &x, 4); return r; }
static inline float __uint_as_float(unsigned x) { float r; std::memcpy(&r, &x, 4); return r; }
static inline unsigned __float_as_uint(float x) { unsigned r; std::memcpy(&r, &x, 4); return r; }
static inline long long __double_as_longlong(double x) { long long r; std::memcpy(&r, &x, 8); return r; }
static inline double __longlong_as_double(long long x) { double r; std::memcpy(&r, &x, 8); return r; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
static inline int __clzll(long long x) { return x ? __builtin_clzll(x) : 64; }
static inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
static inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
#define __expf(x) expf(x)
#define __logf(x) logf(x)
static inline float __fdividef(float x, float y) { return x / y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fsub_rn(float x, float y) { return x - y; }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __frcp_rn(float x) { return 1.0f / x; }
static inline float __fsqrt_rn(float x) { return std::sqrt(x); }
static inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline int __float2int_rn(float x) { return (int)std::nearbyint(x); }
static inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; i++) c += (int)(signed char)(a >> 8 * i) * (int)(signed char)(b >> 8 * i);
  return c;
}
using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;
template <class A, class B> static inline auto min(A a, B b) -> decltype(a + b) { return a < b ? a : b; }
template <class A, class B> static inline auto max(A a, B b) -> decltype(a + b) { return a > b ? a : b; }

static inline float emulated_half_to_float(unsigned short bits) { _Float16 h; std::memcpy(&h, &bits, 2); return (float)h; }
static inline unsigned short emulated_float_to_half(float x) { _Float16 h = (_Float16)x; unsigned short b; std::memcpy(&b, &h, 2); return b; }
static inline unsigned short emulated_double_to_half(double x) { _Float16 h = (_Float16)x; unsigned short b; std::memcpy(&b, &h, 2); return b; }
