// Elements normalized by statistics that a reduction left: of MI_N neighbours at once, over MI_RANK merged axes.
#include "arithmetic.cuh"
#include "packs.cuh"
#include "turn.cuh"

#if MI_HOW == 0  // (x - mean) / sqrt(variance + epsilon)
typedef Pack<MI_F, 2> Statistic;
MI_DEVICE Statistic prepared(Statistic s, MI_F epsilon) { return {s.d[0], (MI_F)1 / math::sqrt(s.d[1] + epsilon)}; }
MI_DEVICE MI_F normalized(MI_F x, Statistic s) { return (x - s.d[0]) * s.d[1]; }
#elif MI_HOW == 1  // (x - mean) / (deviation + epsilon)
typedef Pack<MI_F, 2> Statistic;
MI_DEVICE Statistic prepared(Statistic s, MI_F epsilon) { return {s.d[0], math::sqrt(s.d[1]) + epsilon}; }
MI_DEVICE MI_F normalized(MI_F x, Statistic s) { return (x - s.d[0]) / s.d[1]; }
#elif MI_HOW == 2  // x / norm, where that is not 0
typedef MI_F Statistic;
MI_DEVICE Statistic prepared(Statistic s, MI_F) { return s == (MI_F)0 ? (MI_F)1 : s; }
MI_DEVICE MI_F normalized(MI_F x, Statistic s) { return x / s; }
#elif MI_HOW == 3  // exp(x - maximum - log of the sum)
typedef Pack<MI_F, 2> Statistic;
MI_DEVICE Statistic prepared(Statistic s, MI_F) { return s; }
MI_DEVICE MI_F normalized(MI_F x, Statistic s) { return math::exp((x - s.d[0]) - s.d[1]); }
#else  // the logarithm of that
typedef Pack<MI_F, 2> Statistic;
MI_DEVICE Statistic prepared(Statistic s, MI_F) { return s; }
MI_DEVICE MI_F normalized(MI_F x, Statistic s) { return (x - s.d[0]) - s.d[1]; }
#endif

// count is in elements, strides too; the last axis is a multiple of MI_N. scale and bias may be null.
extern "C" __global__ void normalize_by(const MI_T* x, MI_Y* y, const Statistic* statistics, const MI_SCALE* scale, const MI_BIAS* bias,
                                        index_t count, double epsilon, Indices<MI_RANK> sizes, Indices<MI_RANK> by_statistic,
                                        Indices<MI_RANK> by_scale, Indices<MI_RANK> by_bias) {
  mi_take_turn();
  const int last = MI_RANK - 1;
  for (index_t e = mi_first() * MI_N; e < count; e += mi_step() * MI_N) {
    several<MI_T, MI_N> pack = load_pack<MI_T, MI_N>(x + e);
    index_t rest = e, s = 0, a = 0, b = 0;
#pragma unroll
    for (int d = MI_RANK - 1; d >= 0; d--) {
      index_t above = d ? rest / sizes.d[d] : 0, i = rest - above * sizes.d[d];
      rest = above;
      s += i * by_statistic.d[d];
      a += i * by_scale.d[d];
      b += i * by_bias.d[d];
    }
    several<MI_Y, MI_N> out;
    Statistic statistic = prepared(statistics[s], (MI_F)epsilon);
#pragma unroll
    for (int k = 0; k < MI_N; k++) {
      if (k && by_statistic.d[last]) statistic = prepared(statistics[s + k * by_statistic.d[last]], (MI_F)epsilon);
      MI_W v = (MI_W)normalized((MI_F)widen(pack.d[k]), statistic);
      if (scale) v *= (MI_W)widen(scale[a + k * by_scale.d[last]]);
      if (bias) v += (MI_W)widen(bias[b + k * by_bias.d[last]]);
      out.d[k] = narrow<MI_Y>(v);
    }
    store_pack<MI_Y, MI_N>(y + e, out);
  }
}
