// Hardmax, behind a reduction that left where the maximum is.
#include "types.cuh"

// One where the position along the middle axis of [outer, length, inner] is `at`'s, zero elsewhere.
extern "C" __global__ void hardmax(const int* at, MI_T* y, index_t count, index_t length, index_t inner, MI_T one) {
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    index_t above = i / inner, outer = above / length;
    y[i] = above - outer * length == (index_t)at[outer * inner + (i - above * inner)] ? one : MI_T{};
  }
}
