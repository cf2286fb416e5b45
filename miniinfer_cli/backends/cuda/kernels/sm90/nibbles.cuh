// Weights of 4 bits as halves, eight to a word, and numbers of f32 as three of bf16: what matrix instructions of halves multiply.
#pragma once
#include "types.cuh"

// A number of 4 bits in the lowest of these bits is so many more than NIBBLE_BASE, exactly.
template <class T> struct Nibbles;
template <> struct Nibbles<f16> { static constexpr u32 BITS = 0x64006400u; };   // 1024
template <> struct Nibbles<bf16> { static constexpr u32 BITS = 0x43004300u; };  // 128

// Two halves less two others.
#ifdef MI_EMULATED
template <class T> MI_DEVICE u32 less(u32 x, u32 y, T*) {
  u32 word = 0;
  for (int half = 0; half < 2; half++) {
    T a, b;
    a.bits = (u16)(x >> 16 * half);
    b.bits = (u16)(y >> 16 * half);
    word |= (u32)narrow<T>(widen(a) - widen(b)).bits << 16 * half;
  }
  return word;
}
MI_DEVICE u32 chosen_bytes(u32 x, u32 y, u32 which) {
  u64 both = (u64)y << 32 | x;
  u32 word = 0;
  for (int i = 0; i < 4; i++) word |= (u32)(u8)(both >> 8 * (which >> 4 * i & 7)) << 8 * i;
  return word;
}
#else
MI_DEVICE u32 less(u32 x, u32 y, f16*) { u32 r; asm("sub.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(x), "r"(y)); return r; }
MI_DEVICE u32 less(u32 x, u32 y, bf16*) { u32 r; asm("sub.rn.bf16x2 %0, %1, %2;" : "=r"(r) : "r"(x), "r"(y)); return r; }
MI_DEVICE u32 chosen_bytes(u32 x, u32 y, u32 which) { return __byte_perm(x, y, which); }
#endif

// The lower halves of two words, and the upper ones.
MI_DEVICE u32 lower_halves(u32 x, u32 y) { return chosen_bytes(x, y, 0x5410); }
MI_DEVICE u32 upper_halves(u32 x, u32 y) { return chosen_bytes(x, y, 0x7632); }

// Eight numbers of a word, those of bits 4i and 4i + 16 in word i, less what `even` (i = 0, 2) and `odd` (1, 3) have more than they.
template <class T> MI_DEVICE void spread(u32 (&to)[4], u32 word, u32 even, u32 odd) {
#pragma unroll
  for (int i = 0; i < 4; i++) to[i] = less((word >> 4 * i & 0x000f000fu) | Nibbles<T>::BITS, i % 2 ? odd : even, (T*)nullptr);
}

// x as a sum of three numbers of 8 bits each: exactly, but for bits below the smallest of bf16. What is not finite is in the first.
MI_DEVICE void three_of(float x, u16 (&parts)[3]) {
  u32 bits = __float_as_uint(x);
  bool finite = (bits & 0x7f800000u) != 0x7f800000u;
  parts[0] = (u16)(bits >> 16 | (!finite && (bits & 0x007fffffu) ? 0x40u : 0u));
  float rest = finite ? x - __uint_as_float(bits & 0xffff0000u) : 0.0f;
  u32 second = __float_as_uint(rest) & 0xffff0000u;
  parts[1] = (u16)(second >> 16);
  parts[2] = (u16)(__float_as_uint(rest - __uint_as_float(second)) >> 16);
}
