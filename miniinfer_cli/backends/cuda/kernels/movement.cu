// Concat and Split: dense parts side by side in the rows of a whole.
#include "copying.cuh"

const int MI_PARTS = 16;

#define MI_POINTERS(P)                                                                                                 \
  P *p0, P *p1, P *p2, P *p3, P *p4, P *p5, P *p6, P *p7, P *p8, P *p9, P *p10, P *p11, P *p12, P *p13, P *p14, P *p15
#define MI_LIST {p0, p1, p2, p3, p4, p5, p6, p7, p8, p9, p10, p11, p12, p13, p14, p15}

// What a block works on: blocks are dealt out to the parts, more of them to longer ones; `ends` are where each stops.
template <class P> struct Part {
  P* data;
  index_t first, step, count;  // of this thread; elements in all
  index_t width, start;        // elements in a row of the part, and before it in a row of the whole
  Dividers<1> by;

  MI_DEVICE index_t in_whole(index_t i, index_t row) const {
    index_t at = divide(i, width, by);
    return at * row + start + (i - at * width);
  }
};

template <class P>
MI_DEVICE Part<P> part_of(P* const (&parts)[MI_PARTS], const Ints<MI_PARTS>& ends, index_t rows,
                          const Indices<MI_PARTS>& widths, const Indices<MI_PARTS>& starts,
                          const Dividers<MI_PARTS>& by) {
  Part<P> part;
  int begin = 0, block = blockIdx.x;
#pragma unroll
  for (int k = 0; k < MI_PARTS; k++) {
    if (block >= begin && block < ends.d[k]) {
      part.data = parts[k];
      part.first = (index_t)(block - begin) * (index_t)blockDim.x + (index_t)threadIdx.x;
      part.step = (index_t)(ends.d[k] - begin) * (index_t)blockDim.x;
      part.count = rows * widths.d[k];
      part.start = starts.d[k];
      part.width = widths.d[k];
      part.by.multiplier[0] = by.multiplier[k];
      part.by.shift[0] = by.shift[k];
    }
    begin = ends.d[k];
  }
  return part;
}

// Rows of `row` elements of the whole are the parts' rows one behind the other.
extern "C" __global__ void join(MI_T* __restrict__ whole, MI_POINTERS(const MI_T), Ints<MI_PARTS> ends, index_t rows,
                                index_t row, Indices<MI_PARTS> widths, Indices<MI_PARTS> starts, Dividers<MI_PARTS> by) {
  const MI_T* const parts[MI_PARTS] = MI_LIST;
  auto part = part_of(parts, ends, rows, widths, starts, by);
  move_from<MI_T>(
      part.first, part.step, part.count, [&](index_t i) { return part.data[i]; },
      [&](index_t i, MI_T value) { whole[part.in_whole(i, row)] = value; });
}

// The same of parts whose rows lie so many elements apart.
extern "C" __global__ void join_apart(MI_T* __restrict__ whole, MI_POINTERS(const MI_T), Ints<MI_PARTS> ends, index_t rows,
                                      index_t row, Indices<MI_PARTS> widths, Indices<MI_PARTS> starts,
                                      Indices<MI_PARTS> pitches, Dividers<MI_PARTS> by) {
  const MI_T* const parts[MI_PARTS] = MI_LIST;
  auto part = part_of(parts, ends, rows, widths, starts, by);
  index_t pitch = 0;
#pragma unroll
  for (int k = MI_PARTS - 1; k >= 0; k--) {
    if (blockIdx.x < ends.d[k]) pitch = pitches.d[k];
  }
  move_from<MI_T>(
      part.first, part.step, part.count,
      [&](index_t i) {
        index_t at = divide(i, part.width, part.by);
        return part.data[at * pitch + (i - at * part.width)];
      },
      [&](index_t i, MI_T value) { whole[part.in_whole(i, row)] = value; });
}

// The way back.
extern "C" __global__ void cut(const MI_T* __restrict__ whole, MI_POINTERS(MI_T), Ints<MI_PARTS> ends, index_t rows, index_t row,
                               Indices<MI_PARTS> widths, Indices<MI_PARTS> starts, Dividers<MI_PARTS> by) {
  MI_T* const parts[MI_PARTS] = MI_LIST;
  auto part = part_of(parts, ends, rows, widths, starts, by);
  move_from<MI_T>(
      part.first, part.step, part.count, [&](index_t i) { return whole[part.in_whole(i, row)]; },
      [&](index_t i, MI_T value) { part.data[i] = value; });
}
