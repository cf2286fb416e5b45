// Range.
#include "types.cuh"

// start + i * step, computed in MI_S; the product and the sum are rounded each.
extern "C" __global__ void range(MI_T* __restrict__ y, index_t count, MI_S start, MI_S step) {
  for (index_t i = mi_first(); i < count; i += mi_step()) {
#ifdef MI_ROUNDED
    y[i] = narrow<MI_T>(__dadd_rn(__dmul_rn((double)i, step), start));
#else
    y[i] = (MI_T)((u64)i * (u64)step + (u64)start);
#endif
  }
}
