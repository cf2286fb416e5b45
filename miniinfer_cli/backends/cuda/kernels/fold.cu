// Images of few channels with squares of pixels folded into one, so that what a window reads of a row lies side by side.
#include "types.cuh"

// y[image][row][column][(down * step + across) * channels + c] is x[image][row * step + down - above][column * step + across - left][c],
// ``fill`` where that is outside of the image, and behind the last. Channels are last, elements bytes, and ``folded`` (of y) a
// multiple of 16, which a thread makes at one time.
struct Fold { int height, width, channels, rows, columns, folded, step, above, left, fill; };

extern "C" __global__ void fold_pixels(const u8* x, u8* y, index_t count, Fold f) {
  const int parts = f.folded / 16, line = f.step * f.channels;
  for (index_t e = mi_first(); e < count; e += mi_step()) {
    index_t place = e / parts, rest = place / f.columns;
    int at = (int)(e - place * parts) * 16, column = (int)(place - rest * f.columns);
    index_t image = rest / f.rows;
    int row = (int)(rest - image * f.rows) * f.step - f.above;
    int first = (column * f.step - f.left) * f.channels, end = f.width * f.channels;  // along a row of x
    int down = at / line, along = at - down * line;
    Pack<u8, 16> made;
#pragma unroll
    for (int i = 0; i < 16; i++) {
      int from = first + along, which = row + down;
      bool there = down < f.step && (u32)which < (u32)f.height && (u32)from < (u32)end;
      made.d[i] = there ? x[(image * f.height + which) * (index_t)end + from] : (u8)f.fill;
      if (++along == line) along = 0, down++;
    }
    reinterpret_cast<Pack<u8, 16>*>(y)[e] = made;
  }
}
