// Depthwise ConvNHWC, one output channel for each of the input's: MI_T, MI_ACTIVATION.
// A thread makes MI_WIDTH outputs along the last spatial axis for MI_VEC channels. MI_KERNEL and MI_STRIDE are the kernel and
// stride of that axis where its dilation is 1 and the thread can hold a row of weights; MI_KERNEL is 0 elsewhere, and
// MI_WIDTH 1. MI_TAPS_FIRST: weights are [taps, C], else [C, taps].
#include "division.cuh"
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

MI_DEVICE void load_weights(const MI_T* w, int tap, int taps, index_t c, index_t channels, real* to) {
#if MI_TAPS_FIRST
  load(w + tap * channels + c, to);
#else
#pragma unroll
  for (int i = 0; i < MI_VEC; i++) to[i] = widen(w[(c + i) * taps + tap]);
#endif
}

extern "C" __global__ void conv_depthwise(const MI_T* x, const MI_T* w, const MI_T* bias, const MI_T* z, MI_T* y, ConvSizes s,
                                          Dividers<4> by, index_t count) {
  mi_take_turn();
  index_t i = mi_first();
  if (i >= count) return;
  index_t channels = s.group;
  int packs = s.group / MI_VEC, tiles = (s.y[2] + MI_WIDTH - 1) / MI_WIDTH;
  index_t rest = divide(i, (index_t)packs, by, 0);
  index_t c = (i - rest * packs) * MI_VEC;
  i = divide(rest, (index_t)tiles, by, 1);
  int ow = (int)(rest - i * tiles) * MI_WIDTH;
  rest = divide(i, (index_t)s.y[1], by, 2);
  int oh = (int)(i - rest * s.y[1]);
  index_t image = divide(rest, (index_t)s.y[0], by, 3);
  int od = (int)(rest - image * s.y[0]);
  int taps = s.kernel[0] * s.kernel[1] * s.kernel[2], left = ow * s.strides[2] - s.begin[2];
  real total[MI_WIDTH][MI_VEC];
#pragma unroll
  for (int j = 0; j < MI_WIDTH; j++)
#pragma unroll
    for (int k = 0; k < MI_VEC; k++) total[j][k] = real(0);
  for (int kz = 0; kz < s.kernel[0]; kz++) {
    int iz = od * s.strides[0] - s.begin[0] + kz * s.dilations[0];
    if ((unsigned)iz >= (unsigned)s.x[0]) continue;
    for (int ky = 0; ky < s.kernel[1]; ky++) {
      int iy = oh * s.strides[1] - s.begin[1] + ky * s.dilations[1];
      if ((unsigned)iy >= (unsigned)s.x[1]) continue;
      const MI_T* row = x + ((image * s.x[0] + iz) * s.x[1] + iy) * s.x[2] * channels + c;
      int tap = (kz * s.kernel[1] + ky) * s.kernel[2];
#if MI_KERNEL
      real weights[MI_KERNEL][MI_VEC];
#pragma unroll
      for (int t = 0; t < MI_KERNEL; t++) load_weights(w, tap + t, taps, c, channels, weights[t]);
#pragma unroll
      for (int column = 0; column < (MI_WIDTH - 1) * MI_STRIDE + MI_KERNEL; column++) {
        int ix = left + column;
        if ((unsigned)ix >= (unsigned)s.x[2]) continue;
        real value[MI_VEC];
        load(row + ix * channels, value);
#pragma unroll
        for (int j = 0; j < MI_WIDTH; j++) {
          if (column < j * MI_STRIDE || column >= j * MI_STRIDE + MI_KERNEL) continue;
#pragma unroll
          for (int k = 0; k < MI_VEC; k++) total[j][k] += value[k] * weights[column - j * MI_STRIDE][k];
        }
      }
#else
      for (int kx = 0; kx < s.kernel[2]; kx++) {
        int ix = left + kx * s.dilations[2];
        if ((unsigned)ix >= (unsigned)s.x[2]) continue;
        real value[MI_VEC], weights[MI_VEC];
        load(row + ix * channels, value);
        load_weights(w, tap + kx, taps, c, channels, weights);
#pragma unroll
        for (int k = 0; k < MI_VEC; k++) total[0][k] += value[k] * weights[k];
      }
#endif
    }
  }
  real offset[MI_VEC];
#pragma unroll
  for (int k = 0; k < MI_VEC; k++) offset[k] = bias ? widen(bias[c + k]) : real(0);
#pragma unroll
  for (int j = 0; j < MI_WIDTH; j++) {
    if (ow + j >= s.y[2]) break;
    index_t to = (((image * s.y[0] + od) * s.y[1] + oh) * s.y[2] + ow + j) * channels + c;
    real residual[MI_VEC] = {};
    if (z) load(z + to, residual);
    pack_t pack;
#pragma unroll
    for (int k = 0; k < MI_VEC; k++) pack.d[k] = narrow<MI_T>(epilogue::MI_ACTIVATION(total[j][k] + offset[k] + residual[k]));
    *reinterpret_cast<pack_t*>(y + to) = pack;
  }
}
