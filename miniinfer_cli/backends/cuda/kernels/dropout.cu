// Dropout.
#include "philox.cuh"

// In training a share of ``ratio`` is set to 0 and the rest scaled up; else y = x. ratio, training and mask may be null.
extern "C" __global__ void dropout(const MI_X* x, const MI_RATIO* ratio, const bool* training, MI_X* y, bool* mask,
                                   const double* drawn, index_t count, u64 seed, int seeded, u32 stream) {
  typedef computed<MI_X> F;
  const double share = ratio ? (double)widen(ratio[0]) : 0.5;
  const bool active = training && training[0] && share != 0.0;
  const F scale = (F)(1.0 / (1.0 - share));
  const u64 key = key_of(seed, seeded);
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    bool kept = !active || uniform_of(drawn, (u64)i, key, stream) >= share;
    y[i] = active ? narrow<MI_X>(kept ? widen(x[i]) * scale : (F)0 * widen(x[i])) : x[i];
    if (mask) mask[i] = kept;
  }
}
