// BatchNormalization: a factor and a shift for each channel, computed in MI_F.
#include "arithmetic.cuh"
#include "packs.cuh"
#include "turn.cuh"

// x and y are [count / channels / inner, channels, inner]; inner is a multiple of MI_N. The mean and the variance of channel
// c stand at c * every. y may be x.
extern "C" __global__ void batch_normalize(const MI_T* x, MI_T* y, const MI_SCALE* scale, const MI_BIAS* bias, const MI_MEAN* mean,
                                           const MI_VARIANCE* variance, int every, index_t count, index_t channels, index_t inner,
                                           double epsilon) {
  mi_take_turn();
  for (index_t e = mi_first() * MI_N; e < count; e += mi_step() * MI_N) {
    several<MI_T, MI_N> pack = load_pack<MI_T, MI_N>(x + e);
    index_t c = e / inner % channels;
    MI_F factor = (MI_F)widen(scale[c]) / math::sqrt((MI_F)widen(variance[c * every]) + (MI_F)epsilon);
    MI_F shift = (MI_F)widen(bias[c]) - (MI_F)widen(mean[c * every]) * factor;
#pragma unroll
    for (int k = 0; k < MI_N; k++) pack.d[k] = narrow<MI_T>((MI_F)widen(pack.d[k]) * factor + shift);
    store_pack<MI_T, MI_N>(y + e, pack);
  }
}

// Running mean and variance drawn towards those of this batch; either result may be null.
extern "C" __global__ void update_running(const Pack<MI_F, 2>* now, const MI_RUNNING_MEAN* mean, const MI_RUNNING_VARIANCE* variance,
                                          MI_RUNNING_MEAN* new_mean, MI_RUNNING_VARIANCE* new_variance, index_t channels, double momentum) {
  mi_take_turn();
  MI_F keep = (MI_F)momentum, take = (MI_F)(1.0 - momentum);
  for (index_t c = mi_first(); c < channels; c += mi_step()) {
    if (new_mean) new_mean[c] = narrow<MI_RUNNING_MEAN>((MI_F)widen(mean[c]) * keep + now[c].d[0] * take);
    if (new_variance) new_variance[c] = narrow<MI_RUNNING_VARIANCE>((MI_F)widen(variance[c]) * keep + now[c].d[1] * take);
  }
}
