// Neighbours in a row that a thread finishes at one time.
#pragma once
#include "types.cuh"

template <class T, int N> struct Few { T d[N]; };

// So many bytes, a multiple of 4, between places that are whole vectors.
template <int NBYTES> MI_DEVICE void move(void* to, const void* from) {
  static_assert(NBYTES % 4 == 0, "whole words");
  if (NBYTES % 16 == 0) {
#pragma unroll
    for (int i = 0; i < NBYTES / 16; i++) reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
  } else if (NBYTES % 8 == 0) {
#pragma unroll
    for (int i = 0; i < NBYTES / 8; i++) reinterpret_cast<u64*>(to)[i] = reinterpret_cast<const u64*>(from)[i];
  } else {
#pragma unroll
    for (int i = 0; i < NBYTES / 4; i++) reinterpret_cast<u32*>(to)[i] = reinterpret_cast<const u32*>(from)[i];
  }
}

// Elements that lie side by side; and one element as often.
template <class T, int N> MI_DEVICE Few<T, N> neighbours(const T* from) {
  __align__(16) Few<T, N> v;
  move<sizeof(T) * N>(&v, from);
  return v;
}
template <class T, int N> MI_DEVICE Few<T, N> alike(T x) {
  Few<T, N> v;
#pragma unroll
  for (int i = 0; i < N; i++) v.d[i] = x;
  return v;
}
// Elements of an operand for one token; ``step``: 1 where each feature has its own, 0 where all have one.
template <int N, class T> MI_DEVICE Few<T, N> few(const T* x, long long row, long long token, int feature, int step) {
  return step ? neighbours<T, N>(x + token * row + feature) : alike<T, N>(x[token * row]);
}

// Makes the compiler finish elements before it asks where they go: else it does one after the other, each in a branch of its own.
#ifdef MI_EMULATED
template <class T, int N> MI_DEVICE void hold(Few<T, N>& v) {}
#else
template <class T, int N> MI_DEVICE void hold(Few<T, N>& v) {
#pragma unroll
  for (int i = 0; i < (int)(sizeof(v) / 4); i++) asm volatile("" : "+r"(reinterpret_cast<u32*>(&v)[i]));
}
#endif
