// Softmax (MI_LOG: its logarithm) of rows held in registers.
#include "group.cuh"
#include "reduce.cuh"
#include "turn.cuh"

typedef Real<computed<MI_T>>::type F;

// A row of packs * MI_N elements, MI_PACKS * MI_N of them a thread, by each group of blockDim.x threads. y may be x.
extern "C" __global__ void __launch_bounds__(512) softmax_rows(const MI_T* x, MI_T* y, index_t rows, int packs) {
  mi_take_turn();
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
