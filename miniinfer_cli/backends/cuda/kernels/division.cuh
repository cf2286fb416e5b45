// Division of indices by sizes that are the same for a whole launch: a product and a shift. See division.py.
#pragma once
#include "types.cuh"

// What n / size takes for N sizes; made by dividers().
template <int N> struct Dividers { u32 multiplier[N]; u32 shift[N]; };

// n / size for n >= 0, where ``size`` is the d-th that ``by`` was made for; indices of 64 bits are divided as they are.
template <int N> MI_DEVICE int divide(int n, int size, const Dividers<N>& by, int d = 0) {
  return (int)(((u64)(u32)n * by.multiplier[d]) >> by.shift[d]);
}
template <int N> MI_DEVICE long long divide(long long n, long long size, const Dividers<N>& by, int d = 0) { return n / size; }
