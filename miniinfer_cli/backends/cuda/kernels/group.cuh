// Threads side by side that hold one row together, and what they combine by shuffles and shared memory.
#pragma once
#include "arithmetic.cuh"
#include "packs.cuh"

template <class F> MI_DEVICE bool is_finite(F x) { return x - x == (F)0; }

// The value of the thread whose number differs by `by`, among `width` neighbours; any type, word by word.
template <class V> MI_DEVICE V shuffle_xor(V value, int by, int width) {
  union Words {
    V v;
    u32 w[(sizeof(V) + 3) / 4];
    MI_DEVICE Words() {}
  } words;
  words.v = value;
#pragma unroll
  for (int i = 0; i < (int)((sizeof(V) + 3) / 4); i++) words.w[i] = __shfl_xor_sync(0xffffffffu, words.w[i], by, width);
  return words.v;
}

// A group is blockDim.x threads: a power of two up to 32, blockDim.y groups a block; or a multiple of 32, the whole block.
// Every thread of the block must call this; each of the group gets the group's result.
template <class V, class F> MI_DEVICE V group_combine(V value, F combine) {
  int width = blockDim.x < 32 ? (int)blockDim.x : 32;
  for (int by = width >> 1; by > 0; by >>= 1) value = combine(value, shuffle_xor(value, by, width));
  if (blockDim.x > 32) {
    __shared__ __align__(16) unsigned char room[sizeof(V) * 32];
    V* parts = reinterpret_cast<V*>(room);
    int warp = threadIdx.x >> 5, warps = blockDim.x >> 5;
    __syncthreads();  // parts of an earlier call have been read
    if ((threadIdx.x & 31) == 0) parts[warp] = value;
    __syncthreads();
    value = parts[0];
    for (int i = 1; i < warps; i++) value = combine(value, parts[i]);
  }
  return value;
}

struct AddOf { template <class F> MI_DEVICE F operator()(F a, F b) const { return a + b; } };
struct MaxOf { template <class F> MI_DEVICE F operator()(F a, F b) const { return a > b ? a : b; } };
