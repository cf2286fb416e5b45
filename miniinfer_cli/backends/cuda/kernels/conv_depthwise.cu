// Depthwise ConvNHWC, one output channel for each of the input's: MI_T, MI_ACTIVATION.
// A thread makes MI_ROWS x MI_WIDTH outputs along the last two spatial axes for MI_VEC channels. MI_KERNEL and MI_STRIDE are the
// kernel and stride of the last axis where its dilation is 1 and the thread can hold a row of weights; MI_KERNEL is 0 elsewhere,
// and MI_ROWS and MI_WIDTH 1. MI_TAPS_FIRST: weights are [taps, C], else [C, taps]. MI_BEFORE: the activation of what is read, which
// is rounded as its own kernel would; pixels beyond the image stay zeros. MI_QUICK: 1 where functions need be as good as halves are.
//
// Neighbouring threads have ``slice`` packs of channels beside each other, then go down the rows, so that what one row of outputs
// reads is in the multiprocessor's cache for the next.
#include "division.cuh"
#if MI_QUICK
#include "quick.cuh"
#endif
#include "epilogue.cuh"
#include "convolution.cuh"
#include "turn.cuh"

typedef computed<MI_T> real;
typedef Pack<MI_T, MI_VEC> pack_t;

MI_DEVICE void load(const MI_T* from, real* to) {
  pack_t pack = *reinterpret_cast<const pack_t*>(from);
#pragma unroll
  for (int i = 0; i < MI_VEC; i++) to[i] = widen(pack.d[i]);
}

// The activation of pixels as they are read.
MI_DEVICE pack_t activated(pack_t pack) {
#if MI_ACTIVATES
#pragma unroll
  for (int i = 0; i < MI_VEC; i++) pack.d[i] = narrow<MI_T>(epilogue::MI_BEFORE(widen(pack.d[i])));
#endif
  return pack;
}

MI_DEVICE void load_weights(const MI_T* w, int tap, int taps, index_t c, index_t channels, real* to) {
#if MI_TAPS_FIRST
  load(w + tap * channels + c, to);
#else
#pragma unroll
  for (int i = 0; i < MI_VEC; i++) to[i] = widen(w[(c + i) * taps + tap]);
#endif
}

extern "C" __global__ void conv_depthwise(const MI_T* x, const MI_T* w, const MI_T* bias, const MI_T* z, MI_T* y, ConvSizes s,
                                          Dividers<5> by, int slice, index_t count) {
  mi_take_turn();
  index_t i = mi_first();
  if (i >= count) return;
  index_t channels = s.group;
  int slices = s.group / MI_VEC / slice, rows = (s.y[1] + MI_ROWS - 1) / MI_ROWS, tiles = (s.y[2] + MI_WIDTH - 1) / MI_WIDTH;
  index_t rest = divide(i, (index_t)slice, by, 0);
  index_t c = i - rest * slice;
  i = divide(rest, (index_t)rows, by, 1);
  int oh = (int)(rest - i * rows) * MI_ROWS;
  rest = divide(i, (index_t)slices, by, 2);
  c = (c + (i - rest * slices) * slice) * MI_VEC;
  i = divide(rest, (index_t)tiles, by, 3);
  int ow = (int)(rest - i * tiles) * MI_WIDTH;
  index_t image = divide(i, (index_t)s.y[0], by, 4);
  int od = (int)(i - image * s.y[0]);
  int taps = s.kernel[0] * s.kernel[1] * s.kernel[2], left = ow * s.strides[2] - s.begin[2];
  real total[MI_ROWS][MI_WIDTH][MI_VEC];
#pragma unroll
  for (int r = 0; r < MI_ROWS; r++)
#pragma unroll
    for (int j = 0; j < MI_WIDTH; j++)
#pragma unroll
      for (int k = 0; k < MI_VEC; k++) total[r][j][k] = real(0);
  for (int kz = 0; kz < s.kernel[0]; kz++) {
    int iz = od * s.strides[0] - s.begin[0] + kz * s.dilations[0];
    if ((unsigned)iz >= (unsigned)s.x[0]) continue;
    const MI_T* plane = x + (image * s.x[0] + iz) * s.x[1] * s.x[2] * channels + c;
#if MI_KERNEL
    int top = oh * s.strides[1] - s.begin[1], read = (MI_ROWS - 1) * s.strides[1] + (s.kernel[1] - 1) * s.dilations[1] + 1;
    for (int row = 0; row < read; row++) {
      int iy = top + row;
      if ((unsigned)iy >= (unsigned)s.x[1]) continue;
      constexpr int COLUMNS = (MI_WIDTH - 1) * MI_STRIDE + MI_KERNEL;
      const MI_T* from = plane + (index_t)iy * s.x[2] * channels;
      pack_t held[COLUMNS];
#pragma unroll
      for (int column = 0; column < COLUMNS; column++) {
        int ix = left + column;
        if ((unsigned)ix < (unsigned)s.x[2]) held[column] = *reinterpret_cast<const pack_t*>(from + ix * channels);
        else held[column] = pack_t{};
      }
#pragma unroll
      for (int column = 0; MI_ACTIVATES && column < COLUMNS; column++)
        if ((unsigned)(left + column) < (unsigned)s.x[2]) held[column] = activated(held[column]);
#pragma unroll
      for (int r = 0; r < MI_ROWS; r++) {
        int ky = row - r * s.strides[1];
        if (s.dilations[1] > 1) {
          if (ky % s.dilations[1]) continue;
          ky /= s.dilations[1];
        }
        if ((unsigned)ky >= (unsigned)s.kernel[1]) continue;
        int tap = (kz * s.kernel[1] + ky) * MI_KERNEL;
        real weights[MI_KERNEL][MI_VEC];
#pragma unroll
        for (int t = 0; t < MI_KERNEL; t++) load_weights(w, tap + t, taps, c, channels, weights[t]);
#pragma unroll
        for (int column = 0; column < COLUMNS; column++) {
          real value[MI_VEC];
#pragma unroll
          for (int k = 0; k < MI_VEC; k++) value[k] = widen(held[column].d[k]);
#pragma unroll
          for (int j = 0; j < MI_WIDTH; j++) {
            if (column < j * MI_STRIDE || column >= j * MI_STRIDE + MI_KERNEL) continue;
#pragma unroll
            for (int k = 0; k < MI_VEC; k++) total[r][j][k] += value[k] * weights[column - j * MI_STRIDE][k];
          }
        }
      }
    }
#else
    for (int ky = 0; ky < s.kernel[1]; ky++) {
      int iy = oh * s.strides[1] - s.begin[1] + ky * s.dilations[1];
      if ((unsigned)iy >= (unsigned)s.x[1]) continue;
      int tap = (kz * s.kernel[1] + ky) * s.kernel[2];
      for (int kx = 0; kx < s.kernel[2]; kx++) {
        int ix = left + kx * s.dilations[2];
        if ((unsigned)ix >= (unsigned)s.x[2]) continue;
        real value[MI_VEC], weights[MI_VEC];
        pack_t pack = activated(*reinterpret_cast<const pack_t*>(plane + ((index_t)iy * s.x[2] + ix) * channels));
#pragma unroll
        for (int k = 0; k < MI_VEC; k++) value[k] = widen(pack.d[k]);
        load_weights(w, tap + kx, taps, c, channels, weights);
#pragma unroll
        for (int k = 0; k < MI_VEC; k++) total[0][0][k] += value[k] * weights[k];
      }
    }
#endif
  }
  real offset[MI_VEC];
#pragma unroll
  for (int k = 0; k < MI_VEC; k++) offset[k] = bias ? widen(bias[c + k]) : real(0);
#pragma unroll
  for (int r = 0; r < MI_ROWS; r++) {
    if (oh + r >= s.y[1]) break;
#pragma unroll
    for (int j = 0; j < MI_WIDTH; j++) {
      if (ow + j >= s.y[2]) break;
      index_t to = (((image * s.y[0] + od) * s.y[1] + oh + r) * s.y[2] + ow + j) * channels + c;
      real residual[MI_VEC] = {};
      if (z) load(z + to, residual);
      pack_t pack;
#pragma unroll
      for (int k = 0; k < MI_VEC; k++) pack.d[k] = narrow<MI_T>(epilogue::MI_ACTIVATION(total[r][j][k] + offset[k] + residual[k]));
      *reinterpret_cast<pack_t*>(y + to) = pack;
    }
  }
}
