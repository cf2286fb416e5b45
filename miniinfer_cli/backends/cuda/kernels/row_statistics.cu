// Mean and 1 / sqrt(variance + epsilon) of rows, for those who ask a normalization for them.
#include "arithmetic.cuh"
#include "turn.cuh"

// statistics: mean and variance, null for those of nothing but zeros. means and inverses may be null.
extern "C" __global__ void store_statistics(const Pack<MI_F, 2>* statistics, MI_STASH* means, MI_STASH* inverses, index_t count,
                                            double epsilon) {
  mi_take_turn();
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    MI_F mean = statistics ? statistics[i].d[0] : (MI_F)0, variance = statistics ? statistics[i].d[1] : (MI_F)0;
    if (means) means[i] = narrow<MI_STASH>(mean);
    if (inverses) inverses[i] = narrow<MI_STASH>((MI_F)1 / math::sqrt(variance + (MI_F)epsilon));
  }
}
