// Softmax (MI_LOG: its logarithm) of rows held in registers and of columns; one element of each row set (Hardmax).
#include "reduce.cuh"

typedef Real<computed<MI_T>>::type F;

#ifndef MI_PACKS
#define MI_PACKS 1
#endif

// A row of packs * MI_N elements, MI_PACKS * MI_N of them a thread, by each group of blockDim.x threads. y may be x.
extern "C" __global__ void __launch_bounds__(512) softmax_rows(const MI_T* x, MI_T* y, index_t rows, int packs) {
  index_t row = (index_t)blockIdx.x * blockDim.y + threadIdx.y;
  index_t start = row * ((index_t)packs * MI_N);
  several<MI_T, MI_N> loaded[MI_PACKS];
  F v[MI_PACKS][MI_N], highest = -(F)mi_infinity(), sum = (F)0;
#pragma unroll
  for (int p = 0; p < MI_PACKS; p++) {
    int c = threadIdx.x + p * blockDim.x;
    if (row < rows && c < packs) loaded[p] = load_pack<MI_T, MI_N>(x + start + (index_t)c * MI_N);
  }
#pragma unroll
  for (int p = 0; p < MI_PACKS; p++) {
    bool inside = row < rows && (int)(threadIdx.x + p * blockDim.x) < packs;
#pragma unroll
    for (int k = 0; k < MI_N; k++) {
      v[p][k] = inside ? (F)widen(loaded[p].d[k]) : -(F)mi_infinity();  // e to that adds nothing
      highest = v[p][k] > highest ? v[p][k] : highest;
    }
  }
  highest = group_combine(highest, MaxOf());
#pragma unroll
  for (int p = 0; p < MI_PACKS; p++)
#pragma unroll
    for (int k = 0; k < MI_N; k++) {
#if MI_LOG
      v[p][k] -= highest;
      sum += math::exp(v[p][k]);
#else
      v[p][k] = math::exp(v[p][k] - highest);
      sum += v[p][k];
#endif
    }
  sum = group_combine(sum, AddOf());
  F last = MI_LOG ? math::log(sum) : (F)1 / sum;
#pragma unroll
  for (int p = 0; p < MI_PACKS; p++) {
    int c = threadIdx.x + p * blockDim.x;
    if (row >= rows || c >= packs) continue;
    several<MI_T, MI_N> out;
#pragma unroll
    for (int k = 0; k < MI_N; k++) out.d[k] = narrow<MI_T>(MI_LOG ? v[p][k] - last : v[p][k] * last);
    store_pack<MI_T, MI_N>(y + start + (index_t)c * MI_N, out);
  }
}

// Along the middle axis of [outer, length, inner]; threads as in reduce_columns. Reads x twice. y may be x.
extern "C" __global__ void softmax_columns(const MI_T* x, MI_T* y, index_t columns, index_t length, index_t inner) {
  MI_SHARED(ExpSum<F>, parts);
  index_t column = (index_t)blockIdx.x * blockDim.x + threadIdx.x;
  bool inside = column < columns;
  index_t packs = inner / MI_N, outer = column / packs, i = (column - outer * packs) * MI_N;
  index_t start = outer * length * inner + i;
  ExpSum<F> part[MI_N];
#pragma unroll
  for (int k = 0; k < MI_N; k++) part[k] = {-(F)mi_infinity(), (F)0};
  if (inside) {
#pragma unroll 4
    for (index_t r = threadIdx.y; r < length; r += blockDim.y) {
      several<MI_T, MI_N> pack = load_pack<MI_T, MI_N>(x + start + r * inner);
#pragma unroll
      for (int k = 0; k < MI_N; k++) add_exp(part[k], (F)widen(pack.d[k]));
    }
  }
  int stride = blockDim.x * MI_N, mine = threadIdx.y * stride + threadIdx.x * MI_N;
  if (blockDim.y > 1) {
#pragma unroll
    for (int k = 0; k < MI_N; k++) parts[mine + k] = part[k];
    for (int half = blockDim.y >> 1; half > 0; half >>= 1) {
      __syncthreads();
      if ((int)threadIdx.y >= half) continue;
#pragma unroll
      for (int k = 0; k < MI_N; k++) parts[mine + k] = joined(parts[mine + k], parts[mine + half * stride + k]);
    }
    __syncthreads();
#pragma unroll
    for (int k = 0; k < MI_N; k++) part[k] = parts[threadIdx.x * MI_N + k];
  }
  if (!inside) return;
#pragma unroll
  for (int k = 0; k < MI_N; k++) {
    if (part[k].highest == (F)mi_infinity()) part[k].scaled = (F)mi_nan();  // infinity minus infinity
    part[k].scaled = MI_LOG ? math::log(part[k].scaled) : (F)1 / part[k].scaled;
  }
#pragma unroll 4
  for (index_t r = threadIdx.y; r < length; r += blockDim.y) {
    several<MI_T, MI_N> pack = load_pack<MI_T, MI_N>(x + start + r * inner);
#pragma unroll
    for (int k = 0; k < MI_N; k++) {
      F apart = (F)widen(pack.d[k]) - part[k].highest;
      pack.d[k] = narrow<MI_T>(MI_LOG ? apart - part[k].scaled : math::exp(apart) * part[k].scaled);
    }
    store_pack<MI_T, MI_N>(y + start + r * inner, pack);
  }
}

// One where the position along the middle axis of [outer, length, inner] is `at`'s, zero elsewhere.
extern "C" __global__ void one_hot(const int* at, MI_T* y, index_t count, index_t length, index_t inner, MI_T one) {
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    index_t above = i / inner, outer = above / length;
    y[i] = above - outer * length == (index_t)at[outer * inner + (i - above * inner)] ? one : MI_T{};
  }
}
