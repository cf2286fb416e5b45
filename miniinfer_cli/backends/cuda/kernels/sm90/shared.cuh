// Shared memory by the addresses that copies, barriers and matrix instructions take: 32 bits, of this block or of another of its cluster.
#pragma once
#include "types.cuh"

// Dynamic shared memory from a multiple of 1024 on, from which swizzles count: MI_TILES(room);
#ifdef MI_EMULATED
namespace emulation {
u32 shared_address(const void* p);
u32 map_address(u32 address, unsigned rank);
void load_from_block(void* to, u32 address, unsigned nbytes);
void store_to_block(u32 address, const void* from, unsigned nbytes);
void store_matrices(u32 address, const u32* words, unsigned count, bool turned);
}  // namespace emulation
#define MI_TILES(name) unsigned char* name = emulation::dynamic_shared()
MI_DEVICE u32 shared_address(const void* p) { return emulation::shared_address(p); }
MI_DEVICE u32 address_in_block(u32 address, u32 rank) { return emulation::map_address(address, rank); }
MI_DEVICE float4 load_from_block(u32 address) { float4 v; emulation::load_from_block(&v, address, 16); return v; }
MI_DEVICE void store_to_block(u32 address, float4 v) { emulation::store_to_block(address, &v, 16); }
template <int COUNT> MI_DEVICE void store_matrices(u32 row, const u32 (&words)[COUNT]) {
  emulation::store_matrices(row, words, COUNT, false);
}
template <int COUNT> MI_DEVICE void store_matrices_turned(u32 row, const u32 (&words)[COUNT]) {
  emulation::store_matrices(row, words, COUNT, true);
}
MI_DEVICE void fence_for_copies() {}
template <class T> MI_DEVICE u32 two_halves(float low, float high) {
  return (u32)narrow<T>(low).bits | (u32)narrow<T>(high).bits << 16;
}
#else
#define MI_TILES(name) extern __shared__ __align__(1024) unsigned char name[]
MI_DEVICE u32 shared_address(const void* p) { return (u32)__cvta_generic_to_shared(p); }

// The same place in the shared memory of the block of this rank in the cluster.
MI_DEVICE u32 address_in_block(u32 address, u32 rank) {
  u32 there;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(there) : "r"(address), "r"(rank));
  return there;
}
// 16 bytes of any block of the cluster, which must not have ended. What it wrote is seen behind a barrier of the cluster.
MI_DEVICE float4 load_from_block(u32 address) {
  float4 v;
  asm volatile("ld.shared::cluster.v4.f32 {%0, %1, %2, %3}, [%4];"
               : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "r"(address) : "memory");
  return v;
}
MI_DEVICE void store_to_block(u32 address, float4 v) {
  asm volatile("st.shared::cluster.v4.f32 [%0], {%1, %2, %3, %4};"
               ::"r"(address), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w) : "memory");
}

// Matrices of 8 x 8 elements of 16 bits: one, two or four. A lane has elements 2t and 2t + 1 (t = lane % 4) of row lane / 4 of
// each, and says where row lane % 8 of matrix lane / 8 lies: 16 bytes from a multiple of 16. Turned, it has them of a column.
#define MI_STORE_MATRICES(name, how)                                                                                        \
  MI_DEVICE void name(u32 row, const u32 (&w)[1]) {                                                                         \
    asm volatile("stmatrix.sync.aligned.m8n8.x1" how ".shared.b16 [%0], {%1};" ::"r"(row), "r"(w[0]) : "memory");           \
  }                                                                                                                         \
  MI_DEVICE void name(u32 row, const u32 (&w)[2]) {                                                                         \
    asm volatile("stmatrix.sync.aligned.m8n8.x2" how ".shared.b16 [%0], {%1, %2};" ::"r"(row), "r"(w[0]), "r"(w[1])         \
                 : "memory");                                                                                               \
  }                                                                                                                         \
  MI_DEVICE void name(u32 row, const u32 (&w)[4]) {                                                                         \
    asm volatile("stmatrix.sync.aligned.m8n8.x4" how ".shared.b16 [%0], {%1, %2, %3, %4};"                                  \
                 ::"r"(row), "r"(w[0]), "r"(w[1]), "r"(w[2]), "r"(w[3]) : "memory");                                        \
  }
MI_STORE_MATRICES(store_matrices, "")
MI_STORE_MATRICES(store_matrices_turned, ".trans")
#undef MI_STORE_MATRICES

// What this thread wrote to shared memory by ordinary stores is seen by copies and matrix instructions behind the next barrier.
MI_DEVICE void fence_for_copies() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Two neighbours, rounded to halves (T: f16, bf16) in one word.
template <class T> struct TwoHalves;
template <> struct TwoHalves<f16> {
  static MI_DEVICE u32 of(float low, float high) {
    u32 r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
  }
};
template <> struct TwoHalves<bf16> {
  static MI_DEVICE u32 of(float low, float high) {
    u32 r;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
  }
};
template <class T> MI_DEVICE u32 two_halves(float low, float high) { return TwoHalves<T>::of(low, high); }
#endif
