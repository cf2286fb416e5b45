// Past and fresh keys one behind the other, and values likewise (grid.y = 1): [batch, heads, past + fresh, size].
// MI_T: what is moved at once; sizes and strides are in units of it.
#include "division.cuh"

struct Joined { index_t count, cells, total, heads, past, strides[3]; };

MI_DEVICE void join(const MI_T* past, const MI_T* fresh, MI_T* joined, const Joined& of, const Dividers<3>& by) {
  for (index_t i = mi_first(); i < of.count; i += mi_step()) {
    index_t row = divide(i, of.cells, by, 0), cell = i - row * of.cells;
    index_t matrix = divide(row, of.total, by, 1), key = row - matrix * of.total;
    if (key < of.past) {
      joined[i] = past[(matrix * of.past + key) * of.cells + cell];
      continue;
    }
    index_t batch = divide(matrix, of.heads, by, 2), head = matrix - batch * of.heads;
    joined[i] = fresh[batch * of.strides[0] + head * of.strides[1] + (key - of.past) * of.strides[2] + cell];
  }
}

extern "C" __global__ void join_past(
    const MI_T* past_keys, const MI_T* fresh_keys, MI_T* joined_keys, const MI_T* past_values, const MI_T* fresh_values,
    MI_T* joined_values, Joined keys, Joined values, Dividers<3> by_keys, Dividers<3> by_values) {
  if (blockIdx.y == 0)
    join(past_keys, fresh_keys, joined_keys, keys, by_keys);
  else
    join(past_values, fresh_values, joined_values, values, by_values);
}
