// The core of what only moves elements: a loop with several loads in flight, and offsets over merged axes.
#pragma once
#include "division.cuh"

const int MI_FLIGHT = 4;  // elements that a thread reads before it writes the first

// write(i, read(i)) for i = first, first + step ... below count. read is also called at count - 1, by threads past the end.
template <class T, class Read, class Write>
MI_DEVICE void move_from(index_t first, index_t step, index_t count, Read read, Write write) {
  for (; first < count; first += MI_FLIGHT * step) {
    T held[MI_FLIGHT];
#pragma unroll
    for (int j = 0; j < MI_FLIGHT; j++) {
      index_t i = first + j * step;
      held[j] = read(i < count ? i : count - 1);
    }
#pragma unroll
    for (int j = 0; j < MI_FLIGHT; j++) {
      index_t i = first + j * step;
      if (i < count) write(i, held[j]);
    }
  }
}

// The same for every i below count, by the whole grid.
template <class T, class Read, class Write> MI_DEVICE void move_all(index_t count, Read read, Write write) {
  move_from<T>(mi_first(), mi_step(), count, read, write);
}

// Where element i of a row-major space of these sizes lies under other strides.
template <int R>
MI_DEVICE index_t offset_of(index_t i, const Indices<R>& sizes, const Dividers<R>& by, const Indices<R>& strides) {
  index_t offset = 0;
#pragma unroll
  for (int d = R - 1; d > 0; d--) {
    index_t rest = divide(i, sizes.d[d], by, d);
    offset += (i - rest * sizes.d[d]) * strides.d[d];
    i = rest;
  }
  return offset + i * strides.d[0];
}
