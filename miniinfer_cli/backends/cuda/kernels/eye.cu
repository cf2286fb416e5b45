// EyeLike.
#include "types.cuh"

// `one` on diagonal k of a matrix, zero elsewhere.
extern "C" __global__ void eye(MI_T* __restrict__ y, index_t count, index_t columns, i64 k, MI_T one) {
  for (index_t i = mi_first(); i < count; i += mi_step()) y[i] = i % columns - i / columns == k ? one : MI_T{};
}
