// The loss of each target: minus the logarithm of its class's probability, times the weight of the class.
#include "arithmetic.cuh"
#include "packs.cuh"

// x is [count / inner, classes, inner], targets [count / inner, inner]. sums: maximum and log of the sum of exponentials for
// each target, null when x holds logarithms already. weights may be null. A target that is ignored, or no class, counts 0.
// MI_EACH: the losses in MI_T, otherwise pairs of loss and weight.
extern "C" __global__ void loss_terms(const MI_T* x, const MI_TARGET* targets, const MI_WEIGHT* weights, const Pack<MI_F, 2>* sums,
#if MI_EACH
                                      MI_T* y,
#else
                                      Pack<MI_F, 2>* y,
#endif
                                      index_t count, index_t classes, index_t inner, int ignores, i64 ignored) {
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    i64 target = (i64)targets[i];
    MI_F loss = (MI_F)0, weight = (MI_F)0;
    bool counts = !(ignores && target == ignored);
    if (target < 0) target += classes;
    if (counts && target >= 0 && target < classes) {
      index_t outer = i / inner;
      MI_F log = (MI_F)widen(x[(outer * classes + (index_t)target) * inner + (i - outer * inner)]);
      if (sums) log = (log - sums[i].d[0]) - sums[i].d[1];
      weight = weights ? (MI_F)widen(weights[target]) : (MI_F)1;
      loss = -log * weight;
    }
#if MI_EACH
    y[i] = narrow<MI_T>(loss);
#else
    y[i] = {loss, weight};
#endif
  }
}
