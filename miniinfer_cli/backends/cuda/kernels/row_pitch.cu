// Rows moved between two pitches, where those of one side begin at no multiple of 16 bytes. What is written is walked in vectors
// of 16 bytes; what is misaligned is read as the words that it lies in, which the first cache gives to neighbours as well.
// MI_T is an unsigned type of an element's size.
#include "division.cuh"
#include "turn.cuh"

const int MI_PER_VECTOR = 16 / sizeof(MI_T), MI_FLIGHT = 4;

typedef Pack<u32, 4> Vector;
union Elements { Vector vector; MI_T d[MI_PER_VECTOR]; };

// The elements from x on, which lies at a multiple of their size. Up to one word behind them is read, too.
MI_DEVICE Elements read_vector(const MI_T* x) {
  const u64 address = (u64)x;
  const u32* words = reinterpret_cast<const u32*>(address & ~(u64)3);
  const u32 bits = (u32)(address & 3) * 8;
  Elements r;
#pragma unroll
  for (int i = 0; i < 4; i++) r.vector.d[i] = words[i];
  if (bits) {
    const u32 last = words[4];
#pragma unroll
    for (int i = 0; i < 4; i++) r.vector.d[i] = (u32)(((u64)(i < 3 ? r.vector.d[i + 1] : last) << 32 | r.vector.d[i]) >> bits);
  }
  return r;
}

// write(i, read(i)) for all i below count, by the whole grid.
template <class Read, class Write> MI_DEVICE void move_vectors(index_t count, Read read, Write write) {
  const index_t step = mi_step();
  for (index_t first = mi_first(); first < count; first += MI_FLIGHT * step) {
    Elements held[MI_FLIGHT];
#pragma unroll
    for (int u = 0; u < MI_FLIGHT; u++)
      if (first + u * step < count) held[u] = read(first + u * step);
#pragma unroll
    for (int u = 0; u < MI_FLIGHT; u++)
      if (first + u * step < count) write(first + u * step, held[u]);
  }
}

// The dense y has rows of n elements, those of x begin ``pitch`` apart and at multiples of 16 bytes; ``total`` elements in all.
extern "C" __global__ void pack_rows(const MI_T* x, MI_T* y, index_t vectors, index_t total, index_t n, Dividers<1> by,
                                     long long pitch) {
  mi_take_turn();
  move_vectors(
      vectors,
      [&](index_t i) {
        index_t first = i * MI_PER_VECTOR, row = divide(first, n, by), column = first - row * n;
        const MI_T* from = x + row * pitch + column;
        if (column + MI_PER_VECTOR < n) return read_vector(from);
        Elements r = {};
        if (n >= 2 * MI_PER_VECTOR && first + 2 * MI_PER_VECTOR < total) {  // the end of a row, and the next one's beginning
          const int split = (int)(n - column);
          r = read_vector(from);
          const Elements next = read_vector(from + pitch - n);
#pragma unroll
          for (int v = 0; v < MI_PER_VECTOR; v++)
            if (v >= split) r.d[v] = next.d[v];
          return r;
        }
#pragma unroll
        for (int v = 0; v < MI_PER_VECTOR; v++) {
          if (first + v < total) r.d[v] = x[row * pitch + column];
          if (++column == n) column = 0, row++;
        }
        return r;
      },
      [&](index_t i, Elements value) {
        index_t first = i * MI_PER_VECTOR;
        if (first + MI_PER_VECTOR <= total) {
          *reinterpret_cast<Vector*>(y + first) = value.vector;
        } else {
#pragma unroll
          for (int v = 0; v < MI_PER_VECTOR; v++)
            if (first + v < total) y[first + v] = value.d[v];
        }
      });
}

// Dense matrices of y, each of ``height`` rows of ``width`` vectors: the first ``rows`` have n elements from x, whose rows begin
// ``pitch`` apart and its matrices ``stride``; the rest are zeros.
extern "C" __global__ void pad_rows(const MI_T* x, MI_T* y, index_t vectors, index_t width, index_t height, Dividers<2> by,
                                    index_t rows, index_t n, long long pitch, long long stride) {
  mi_take_turn();
  move_vectors(
      vectors,
      [&](index_t i) {
        index_t place = divide(i, width, by, 0), column = (i - place * width) * MI_PER_VECTOR;
        index_t z = divide(place, height, by, 1), row = place - z * height;
        const MI_T* from = x + z * stride + row * pitch + column;
        Elements r = {};
        if (row >= rows || column >= n) return r;
        const bool whole = column + MI_PER_VECTOR < n;
        if (whole || (row + 1 < rows && n >= 2 * MI_PER_VECTOR)) {
          r = read_vector(from);
          if (whole) return r;
#pragma unroll
          for (int v = 0; v < MI_PER_VECTOR; v++)
            if (column + v >= n) r.d[v] = 0;
          return r;
        }
#pragma unroll
        for (int v = 0; v < MI_PER_VECTOR; v++)
          if (column + v < n) r.d[v] = from[v];
        return r;
      },
      [&](index_t i, Elements value) { reinterpret_cast<Vector*>(y)[i] = value.vector; });
}
