// Products of small matrices of bytes by the tensor cores of sm_80 and later, sums of 32 bits: 16 rows by 8 columns a warp.
//
// A lane (group g = lane / 4, place t = lane % 4) holds words of four bytes along k: see mma.cuh, with four in the place of two.
#pragma once
#include "mma.cuh"

#ifdef MI_EMULATED
MI_DEVICE int byte_of(u32 word, int number, const i8*) { return (i8)(word >> 8 * number); }
MI_DEVICE int byte_of(u32 word, int number, const u8*) { return (u8)(word >> 8 * number); }

// c += a b; the bytes of a are of type T, those of b signed.
template <class T> __noinline__ void integer_mma(int (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, const T* type) {
  __shared__ u32 left[32][32][4], right[32][32][2];
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; i++) left[warp][lane][i] = a[i];
  right[warp][lane][0] = b0;
  right[warp][lane][1] = b1;
  __syncwarp();
  for (int e = 0; e < 4; e++) {
    int row = g + e / 2 * 8, column = 2 * t + e % 2;
    for (int k = 0; k < 32; k++) {
      int place = k / 4 % 4, later = k / 16;
      int x = byte_of(left[warp][row % 8 * 4 + place][row / 8 + 2 * later], k % 4, type);
      c[e] += x * byte_of(right[warp][column * 4 + place][later], k % 4, (const i8*)nullptr);
    }
  }
  __syncwarp();
}

// 16 rows of 32 bytes at `from`: rows 0 to 7 of the first 16 bytes, rows 8 to 15 of these, then the same of the last 16.
MI_DEVICE void load_rows(u32 (&words)[4], const u8* from, int stride) {
  int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
  for (int i = 0; i < 4; i++) words[i] = *reinterpret_cast<const u32*>(from + (g + i % 2 * 8) * stride + i / 2 * 16 + t * 4);
}
#else
#define MI_INTEGER_MMA(type, name)                                                                              \
  MI_DEVICE void integer_mma(int (&c)[4], const u32 (&a)[4], u32 b0, u32 b1, const type*) {                     \
    asm("mma.sync.aligned.m16n8k32.row.col.s32." name ".s8.s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};" \
        : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])                                                        \
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                                        \
  }
MI_INTEGER_MMA(i8, "s8")
MI_INTEGER_MMA(u8, "u8")
#undef MI_INTEGER_MMA

MI_DEVICE void load_rows(u32 (&words)[4], const u8* from, int stride) {
  int lane = threadIdx.x % 32;
  u32 at = (u32)__cvta_generic_to_shared(from + lane % 16 * stride + lane / 16 * 16);
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3]) : "r"(at) : "memory");
}
#endif
