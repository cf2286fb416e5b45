// Attention: zeros for probabilities that are NaN, put into what is done already.
#define MI_MASK 0
#define MI_MASK_T u8
#include "attention.cuh"

// What is NaN in y becomes what zeros for probabilities give: NaN again where it came from the values. rows: of all batches and
// heads of y; group: heads that share a head of values.
extern "C" __global__ void clear_nan(
    const MI_T* v, MI_T* y, Strides strides, i64 rows, int heads, int group, int queries, int keys, int v_size) {
  for (i64 i = mi_first(); i < rows * v_size; i += (i64)gridDim.x * blockDim.x) {
    i64 row = i / v_size, column = i % v_size, query = row % queries, head = row / queries % heads, batch = row / queries / heads;
    MI_T* at = y + y_row(strides, batch, head, query) + column;
    float x = widen(*at);
    if (x == x) continue;
    const MI_T* values = v + batch * strides.v[0] + head / group * strides.v[1] + column;
    *at = narrow<MI_T>(weighed_by_zero(values, strides.v[2], keys));
  }
}
