// Softmax (MI_LOG: its logarithm) of columns.
#include "reduce.cuh"
#include "turn.cuh"

typedef Real<computed<MI_T>>::type F;

// Along the middle axis of [outer, length, inner]; threads as in reduce_columns. Reads x twice. y may be x.
extern "C" __global__ void softmax_columns(const MI_T* x, MI_T* y, index_t columns, index_t length, index_t inner) {
  mi_take_turn();
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
