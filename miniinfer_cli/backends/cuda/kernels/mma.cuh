// Products of small matrices by the tensor cores of sm_80 and later, f32 sums: 16 rows by 8 columns a warp.
//
// A lane (group g = lane / 4, place t = lane % 4) holds words of 32 bits. a: rows g, g + 8 of the first half of k, then of the
// second; b: column g of either half. A word of halves is two neighbours of k (2t and 2t + 1), one of TF32 is element t.
// c: row g, columns 2t and 2t + 1, then the same of row g + 8.
#pragma once
#include "types.cuh"

MI_DEVICE u32 word_of(float low, float high, f16*) { return f32_to_f16(low).bits | (u32)f32_to_f16(high).bits << 16; }
MI_DEVICE u32 word_of(float low, float high, bf16*) { return f32_to_bf16(low).bits | (u32)f32_to_bf16(high).bits << 16; }

// Bits of a word of TF32: the rest is ignored, as if it were 0.
#define MI_TF32_MASK 0xffffe000u

// What rounds to nearest once the last 13 bits are cut off, give or take a fifth of a unit: one product, which leaves numbers
// of 11 bits, infinity and NaN what they are. Adding half a unit would make another number of some NaN.
MI_DEVICE u32 tf32_of(u32 word) { return __float_as_uint(__uint_as_float(word) * (1.0f + 0.7f / 2048)); }

// The part of a number that its TF32 leaves. What is not finite has none.
MI_DEVICE u32 tf32_rest(u32 word) {
  float x = __uint_as_float(word);
  return fabsf(x) < mi_infinity() ? tf32_of(__float_as_uint(x - __uint_as_float(word & MI_TF32_MASK))) : 0;
}

// 2^x, within two units of the last place; 0 where the result is below the normal numbers.
#ifdef MI_EMULATED
MI_DEVICE float quick_exp2(float x) { return exp2f(x); }
#else
MI_DEVICE float quick_exp2(float x) { float r; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x)); return r; }
#endif

#ifdef MI_EMULATED
MI_DEVICE float element_of(u32 word, int half, f16*) { f16 x; x.bits = (u16)(word >> 16 * half); return widen(x); }
MI_DEVICE float element_of(u32 word, int half, bf16*) { bf16 x; x.bits = (u16)(word >> 16 * half); return widen(x); }
MI_DEVICE float element_of(u32 word, int half, f32*) { return __uint_as_float(word & MI_TF32_MASK); }

template <class T> __noinline__ void mma(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2], T* type) {
  __shared__ u32 left[32][32][4], right[32][32][2];
  constexpr int PER_WORD = 4 / sizeof(T);
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; i++) left[warp][lane][i] = a[i];
  for (int i = 0; i < 2; i++) right[warp][lane][i] = b[i];
  __syncwarp();
  for (int e = 0; e < 4; e++) {
    int row = g + e / 2 * 8, column = 2 * t + e % 2;
    for (int k = 0; k < 8 * PER_WORD; k++) {
      int place = k / PER_WORD % 4, later = k / (4 * PER_WORD), half = k % PER_WORD;
      float x = element_of(left[warp][row % 8 * 4 + place][row / 8 + 2 * later], half, type);
      c[e] += x * element_of(right[warp][column * 4 + place][later], half, type);
    }
  }
  __syncwarp();
}

// Four matrices of 8 x 8 halves, rows along k, turned: b of columns 0 to 7 and of 8 to 15 from 16 rows at `from`.
MI_DEVICE void load_turned(u32 (&b)[4], const unsigned char* from, int stride) {
  int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; i++)
    for (int half = 0; half < 2; half++) {
      const unsigned char* p = from + (i % 2 * 8 + 2 * t + half) * stride + (i / 2 * 8 + g) * 2;
      u32 bits = *reinterpret_cast<const u16*>(p);
      b[i] = half ? b[i] | bits << 16 : bits;
    }
}
MI_DEVICE void copy_async(void* to, const void* from, bool there) {
  for (int i = 0; i < 16; i++) ((u8*)to)[i] = there ? ((const u8*)from)[i] : 0;
}
MI_DEVICE void close_copies() {}
template <int OPEN> MI_DEVICE void await_copies() {}
#else
#define MI_MMA(type, shape, name)                                                                             \
  MI_DEVICE void mma(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2], type*) {                            \
    asm("mma.sync.aligned." shape ".row.col.f32." name "." name                                               \
        ".f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                          \
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                                      \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                                  \
  }
MI_MMA(f16, "m16n8k16", "f16")
MI_MMA(bf16, "m16n8k16", "bf16")
MI_MMA(f32, "m16n8k8", "tf32")
#undef MI_MMA

MI_DEVICE void load_turned(u32 (&b)[4], const unsigned char* from, int stride) {
  int lane = threadIdx.x % 32;
  u32 at = (u32)__cvta_generic_to_shared(from + lane % 16 * stride + lane / 16 * 16);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3]) : "r"(at) : "memory");
}
// 16 bytes on their way into shared memory, zeros where there are none.
MI_DEVICE void copy_async(void* to, const void* from, bool there) {
  u32 at = (u32)__cvta_generic_to_shared(to);
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(at), "l"(from), "r"(there ? 16 : 0) : "memory");
}
// Closes a group of copies; await_copies waits until at most OPEN groups are still on their way.
MI_DEVICE void close_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int OPEN> MI_DEVICE void await_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(OPEN) : "memory"); }
#endif

// c += a b over words as they lie in memory. EXACT: f32 as two TF32 numbers each, of which only the product of the small
// parts is left out.
template <bool EXACT, class T> MI_DEVICE void multiply_add(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2], T* type) {
  mma(c, a, b, type);
}
template <bool EXACT> MI_DEVICE void multiply_add(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2], f32* type) {
  u32 main_a[4], main_b[2], rest_a[4], rest_b[2];
#pragma unroll
  for (int i = 0; i < 4; i++) main_a[i] = EXACT ? a[i] : tf32_of(a[i]);
#pragma unroll
  for (int i = 0; i < 2; i++) main_b[i] = EXACT ? b[i] : tf32_of(b[i]);
  if (EXACT) {
#pragma unroll
    for (int i = 0; i < 4; i++) rest_a[i] = tf32_rest(a[i]);
#pragma unroll
    for (int i = 0; i < 2; i++) rest_b[i] = tf32_rest(b[i]);
    mma(c, rest_a, main_b, type);
    mma(c, main_a, rest_b, type);
  }
  mma(c, main_a, main_b, type);
}
