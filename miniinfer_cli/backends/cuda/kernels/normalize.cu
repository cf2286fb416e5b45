// Rows brought to one scale: LayerNormalization and its kin with the row in registers.
//
// Statistics are computed in MI_F, the scale and the bias applied in MI_W. MI_CENTRE: the mean is taken off first.
#include "row_moments.cuh"
#include "turn.cuh"

#ifndef MI_PACKS
#define MI_PACKS 1
#endif
#ifndef MI_CENTRE
#define MI_CENTRE 1
#endif
#ifndef MI_STASH
#define MI_STASH MI_F
#endif
// The scale and the bias are on their way while the row is summed, where they take few registers.
#define MI_EARLY (MI_PACKS * MI_N * sizeof(MI_SCALE) <= 64)

// A row of packs * MI_N elements, MI_PACKS * MI_N of them a thread, by each group of blockDim.x threads. y may be x.
// MI_BY_CHANNEL: one scale and bias for every `inner` packs, of channel row % groups * (packs / inner) + pack / inner;
// otherwise one for each element of a row. bias, means and inverses may be null.
extern "C" __global__ void __launch_bounds__(512) normalize_rows(const MI_T* x, MI_Y* y, const MI_SCALE* scale, const MI_BIAS* bias,
                                                                 MI_STASH* means, MI_STASH* inverses, index_t rows, int packs,
                                                                 double epsilon, index_t groups, int inner) {
  mi_take_turn();
  index_t row = (index_t)blockIdx.x * blockDim.y + threadIdx.y;
  index_t start = row * ((index_t)packs * MI_N);
  several<MI_T, MI_N> loaded[MI_PACKS];
#pragma unroll
  for (int p = 0; p < MI_PACKS; p++) {
    int c = threadIdx.x + p * blockDim.x;
    if (row < rows && c < packs) loaded[p] = load_pack<MI_T, MI_N>(x + start + (index_t)c * MI_N);
  }
#if !MI_BY_CHANNEL
  several<MI_SCALE, MI_N> gain[MI_PACKS];
  several<MI_BIAS, MI_N> shift[MI_PACKS];
  auto load_affine = [&](int p, int c) {
    gain[p] = load_pack<MI_SCALE, MI_N>(scale + c * MI_N);
    if (bias) shift[p] = load_pack<MI_BIAS, MI_N>(bias + c * MI_N);
  };
  if (MI_EARLY) {
#pragma unroll
    for (int p = 0; p < MI_PACKS; p++) {
      int c = threadIdx.x + p * blockDim.x;
      if (c < packs) load_affine(p, c);
    }
  }
#endif
  MI_F v[MI_PACKS][MI_N], mean;
#pragma unroll
  for (int p = 0; p < MI_PACKS; p++) {
    bool inside = row < rows && (int)(threadIdx.x + p * blockDim.x) < packs;
#pragma unroll
    for (int k = 0; k < MI_N; k++) v[p][k] = inside ? (MI_F)widen(loaded[p].d[k]) : (MI_F)0;
  }
  MI_F inverse = centre_row<MI_CENTRE>(v, packs, (MI_F)epsilon, mean);
  if (row >= rows) return;
  if (threadIdx.x == 0 && means) means[row] = narrow<MI_STASH>(mean);
  if (threadIdx.x == 0 && inverses) inverses[row] = narrow<MI_STASH>(inverse);
#if MI_BY_CHANNEL
  index_t channel = row % groups * (packs / inner);
#endif
#pragma unroll
  for (int p = 0; p < MI_PACKS; p++) {
    int c = threadIdx.x + p * blockDim.x;
    if (c >= packs) continue;
    several<MI_Y, MI_N> out;
#if MI_BY_CHANNEL
    index_t at = channel + c / inner;
    MI_W by = (MI_W)widen(scale[at]), plus = bias ? (MI_W)widen(bias[at]) : (MI_W)0;
#pragma unroll
    for (int k = 0; k < MI_N; k++) out.d[k] = narrow<MI_Y>((MI_W)(v[p][k] * inverse) * by + plus);
#else
    if (!MI_EARLY) load_affine(p, c);
#pragma unroll
    for (int k = 0; k < MI_N; k++) {
      MI_W scaled = (MI_W)(v[p][k] * inverse) * (MI_W)widen(gain[p].d[k]);
      out.d[k] = narrow<MI_Y>(bias ? scaled + (MI_W)widen(shift[p].d[k]) : scaled);
    }
#endif
    store_pack<MI_Y, MI_N>(y + start + (index_t)c * MI_N, out);
  }
}
