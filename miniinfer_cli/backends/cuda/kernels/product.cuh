// What follows a sum of products in every matrix kernel: alpha, C, bias, activation, and where it all lies.
#pragma once
#include "types.cuh"

#ifndef MI_ACC
#define MI_ACC float
#endif
typedef MI_ACC acc_t;

// What alpha and beta are: whole numbers are scaled in f64, as numpy does.
template <class T> struct Factor { typedef double type; };
template <> struct Factor<float> { typedef float type; };
typedef Factor<acc_t>::type factor_t;

// d[z, i, j] for i < m, j < n: where its matrices lie, and what is added to a sum before it is written.
// at: rows and columns of d, c, bias, then of the zero points of a and of b. batch: sizes of four axes, then their strides for
// a, b, d, c, then for the zero points.
struct Batches {
  long long sizes[4], strides[6][4];
};
struct Places {
  long long d_row, d_column, c_row, c_column, bias_row, bias_column, a_zero_row, b_zero_column;
};
enum { MI_OF_A, MI_OF_B, MI_OF_D, MI_OF_C, MI_OF_A_ZERO, MI_OF_B_ZERO };

MI_DEVICE long long mi_batch_offset(const Batches& batches, long long z, int which) {
  long long offset = 0;
#pragma unroll
  for (int axis = 3; axis >= 0; axis--) {
    long long size = batches.sizes[axis];
    if (size > 1) {
      offset += z % size * batches.strides[which][axis];
      z /= size;
    }
  }
  return offset;
}
MI_DEVICE long long mi_batch_count(const Batches& batches) {
  return batches.sizes[0] * batches.sizes[1] * batches.sizes[2] * batches.sizes[3];
}

template <class T> MI_DEVICE T mi_scale(T x, double by) { return (T)((double)x * by); }
MI_DEVICE float mi_scale(float x, float by) { return x * by; }
MI_DEVICE double mi_scale(double x, double by) { return x * by; }

// One copy for all its callers, of which unrolled loops have many: most of the time of a compilation would be spent on it.
static __device__ __noinline__ float mi_gelu_tanh(float x) {
  return 0.5f * x * (1.0f + tanhf(0.7978845608028654f * (x + 0.044715f * x * x * x)));
}
template <class T> MI_DEVICE T mi_activate(T x, int activation) {
  if (activation == 1) return x < (T)0 ? (T)0 : x;
  return activation == 2 ? (T)mi_gelu_tanh((float)x) : x;
}

// One element's way out. c and bias point at their matrix of this batch and may be null.
MI_DEVICE acc_t mi_finish(
    acc_t sum, const MI_D* c, const MI_D* bias, const Places& at, long long i, long long j, factor_t alpha, factor_t beta, int activation) {
  if (alpha != (factor_t)1) sum = mi_scale(sum, alpha);
  if (c) {
    acc_t addend = (acc_t)widen(c[i * at.c_row + j * at.c_column]);
    sum += beta == (factor_t)1 ? addend : mi_scale(addend, beta);
  }
  if (bias) sum += (acc_t)widen(bias[i * at.bias_row + j * at.bias_column]);
  return mi_activate(sum, activation);
}

// a * b + c, where whole numbers wrap around.
MI_DEVICE float mi_multiply_add(float a, float b, float c) { return fmaf(a, b, c); }
MI_DEVICE double mi_multiply_add(double a, double b, double c) { return fma(a, b, c); }
MI_DEVICE int mi_multiply_add(int a, int b, int c) { return (int)((u32)a * (u32)b + (u32)c); }
MI_DEVICE u32 mi_multiply_add(u32 a, u32 b, u32 c) { return a * b + c; }
MI_DEVICE i64 mi_multiply_add(i64 a, i64 b, i64 c) { return (i64)((u64)a * (u64)b + (u64)c); }
MI_DEVICE u64 mi_multiply_add(u64 a, u64 b, u64 c) { return a * b + c; }
