// Images of few channels as a map that is im2col reads the windows of a stem: rows in pairs, within a border of zeros (stems.py).
// A thread makes one place: four channels of a row, then of the one below; what there is not of these is zeros. MI_T.
#include "division.cuh"
#include "packs.cuh"
#include "turn.cuh"

// ``strides``: elements of x from image to image, row to row, column to column and channel to channel.
extern "C" __global__ void paired_rows(const MI_T* x, MI_T* y, Longs<4> strides, int height, int width, int channels, int top,
                                       int left, int pairs, int columns, Dividers<2> by, index_t count) {
  mi_take_turn();
  index_t i = mi_first();
  if (i >= count) return;
  index_t line = divide(i, (index_t)columns, by, 0), image = divide(line, (index_t)pairs, by, 1);
  int column = (int)(i - line * columns) - left, row = (int)(line - image * pairs) * 2 - top;
  const MI_T* from = x + image * strides.d[0] + row * strides.d[1] + column * strides.d[2];
  several<MI_T, 4> two[2];
#pragma unroll
  for (int r = 0; r < 2; r++)
#pragma unroll
    for (int c = 0; c < 4; c++) {
      bool there = c < channels && row + r >= 0 && row + r < height && column >= 0 && column < width;
      two[r].d[c] = there ? from[r * strides.d[1] + c * strides.d[3]] : narrow<MI_T>(0.0f);
    }
#pragma unroll
  for (int r = 0; r < 2; r++) store_pack<MI_T, 4>(y + (long long)i * 8 + r * 4, two[r]);
}
