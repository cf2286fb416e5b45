// Images of few channels with squares of pixels folded into one, so that what a window reads of a row lies side by side.
#include "types.cuh"

// y[image][row][column][(down * step + across) * channels + c] is x[image][row * step + down - above][column * step + across - left][c],
// ``fill`` where that is outside of the image, and behind the last. Elements are bytes, images lie in ``strides``, and ``folded`` (channels of y) is a
// multiple of 16, which a thread makes at one time.
struct Fold { int height, width, channels, rows, columns, folded, step, above, left, fill; };

extern "C" __global__ void fold_pixels(const u8* x, u8* y, Longs<4> strides, index_t count, Fold f) {
  const int parts = f.folded / 16, line = f.step * f.channels;
  for (index_t e = mi_first(); e < count; e += mi_step()) {
    index_t place = e / parts, rest = place / f.columns;
    int at = (int)(e - place * parts) * 16, column = (int)(place - rest * f.columns) * f.step - f.left;
    index_t image = rest / f.rows;
    int row = (int)(rest - image * f.rows) * f.step - f.above;
    int down = at / line, across = (at - down * line) / f.channels, channel = at - down * line - across * f.channels;
    const u8* from = x + image * strides.d[0];
    Pack<u8, 16> made;
#pragma unroll
    for (int i = 0; i < 16; i++) {
      int which = row + down, beside = column + across;
      bool there = down < f.step && (u32)which < (u32)f.height && (u32)beside < (u32)f.width;
      made.d[i] = there ? from[which * strides.d[1] + beside * strides.d[2] + channel * strides.d[3]] : (u8)f.fill;
      if (++channel < f.channels) continue;
      channel = 0;
      if (++across == f.step) across = 0, down++;
    }
    reinterpret_cast<Pack<u8, 16>*>(y)[e] = made;
  }
}
