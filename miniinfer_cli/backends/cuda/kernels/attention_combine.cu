// What `attention` of attention.cu left of parts of the keys, as one.
#define MI_MASK 0
#define MI_MASK_T u8
#include "attention.cuh"

// The sums of all parts of the keys: y from what `attention` left in partial. rows: of all batches and heads.
extern "C" __global__ void attention_combine(
    const float* partial, MI_T* y, Strides strides, int parts, i64 rows, int queries, int heads, int v_size) {
  const float* about = partial + parts * rows * v_size;
  for (i64 i = mi_first(); i < rows * v_size; i += (i64)gridDim.x * blockDim.x) {
    i64 row = i / v_size;
    float highest = -mi_infinity();
    for (int p = 0; p < parts; p++) highest = fmaxf(highest, about[(p * rows + row) * 2]);
    float base = highest == -mi_infinity() ? 0.0f : highest, total = 0, sum = 0;
    for (int p = 0; p < parts; p++) {
      float weight = expf(about[(p * rows + row) * 2] - base);
      total += weight * about[(p * rows + row) * 2 + 1];
      sum += weight * partial[(p * rows + row) * v_size + i % v_size];
    }
    // Rows of one batch and head of keys follow each other as group * queries, so heads do too.
    i64 query = row % queries, head = row / queries % heads, batch = row / queries / heads;
    y[y_row(strides, batch, head, query) + i % v_size] = narrow<MI_T>(total == 0.0f && MI_NAN_ROWS != MI_NAN_KEEP ? 0.0f : sum / total);
  }
}
