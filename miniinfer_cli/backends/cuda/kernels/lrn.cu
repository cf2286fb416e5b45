// LRN: each element divided by a power of what its neighbouring channels hold.
#include "arithmetic.cuh"
#include "packs.cuh"

// x and y are [.., channels, inner], inner a multiple of MI_N; the window is `before` channels, the own one, `after` channels.
extern "C" __global__ void lrn(const MI_T* x, MI_T* y, index_t count, index_t channels, index_t inner, int before, int after, double alpha,
                               double beta, double bias) {
  for (index_t e = mi_first() * MI_N; e < count; e += mi_step() * MI_N) {
    index_t channel = e / inner % channels;
    index_t first = channel < before ? 0 : channel - before;
    index_t last = channels - 1 - channel < after ? channels - 1 : channel + after;
    MI_F total[MI_N] = {};
    for (index_t c = first; c <= last; c++) {
      several<MI_T, MI_N> pack = load_pack<MI_T, MI_N>(x + e + (c - channel) * inner);
#pragma unroll
      for (int k = 0; k < MI_N; k++) total[k] += (MI_F)widen(pack.d[k]) * (MI_F)widen(pack.d[k]);
    }
    several<MI_T, MI_N> out = load_pack<MI_T, MI_N>(x + e);
#pragma unroll
    for (int k = 0; k < MI_N; k++) {
      MI_F divisor = math::power(total[k] * (MI_F)alpha + (MI_F)bias, (MI_F)beta);
      out.d[k] = narrow<MI_T>((MI_F)widen(out.d[k]) / divisor);
    }
    store_pack<MI_T, MI_N>(y + e, out);
  }
}
