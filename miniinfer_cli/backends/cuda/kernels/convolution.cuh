// The geometry of convolutions, forward and transposed, and the two ways through it: tiles of a matrix product whose left
// operand is gathered from the input (implicit GEMM), and one output element a thread.
//
// A transposed convolution is cut into phases: output positions whose distance is a multiple of the stride. Within a phase
// it is a plain convolution of stride 1 over every so many taps, so both share all code behind conv_axis().
#pragma once
#include "types.cuh"

// Three spatial axes; shorter convolutions have axes of size 1 in front. Channels and features are those of one group.
struct ConvSizes { int batch, group, channels, features, x[3], y[3], kernel[3], strides[3], dilations[3], begin[3]; };
// In elements. Taps are numbered through all three axes.
struct ConvStrides { index_t x_image, x[3], x_channel, y_image, y[3], y_channel, w_group, w_feature, w_tap, w_channel; };

// Along one axis: output m of `count` is position start + m * step and reads base + m * stride + j * dilation of the input
// for its j-th tap of `taps`, which is tap first + j * tap_step of the kernel.
struct ConvAxis { int count, start, step, base, stride, dilation, taps, first, tap_step; };

template <bool TRANSPOSED> MI_DEVICE ConvAxis conv_axis(const ConvSizes& s, int axis, int phase) {
  int size = s.y[axis], kernel = s.kernel[axis], stride = s.strides[axis], dilation = s.dilations[axis], begin = s.begin[axis];
  if (!TRANSPOSED) return {size, 0, 1, -begin, stride, dilation, kernel, 0, 1};
  int divisor = stride, other = dilation;  // the greatest common divisor
  while (other) { int rest = divisor % other; divisor = other; other = rest; }
  int tap_step = stride / divisor, first = 0;
  while (first < tap_step && (phase + begin - (i64)first * dilation) % stride != 0) first++;
  bool reached = first < tap_step && first < kernel;
  int taps = reached ? (kernel - first + tap_step - 1) / tap_step : 0;
  int base = reached ? (int)((phase + begin - (i64)first * dilation) / stride) : 0;
  int count = phase < size ? (size - phase + stride - 1) / stride : 0;
  return {count, phase, stride, base, 1, -(dilation / divisor), taps, first, tap_step};
}

MI_DEVICE int conv_outside() { return -(1 << 30); }  // a position that no tap brings inside
MI_DEVICE bool conv_inside(int z, int y, int x, const ConvSizes& s) {
  return (unsigned)z < (unsigned)s.x[0] && (unsigned)y < (unsigned)s.x[1] && (unsigned)x < (unsigned)s.x[2];
}

struct ConvRow { int z, y, x; index_t from, to; };  // an output pixel: what its tap 0 reads, and where it is written
struct ConvTap { int z, y, x; index_t from, weight; };  // a tap and a channel, relative to a row

constexpr int CONV_TILE = 64;  // pixels and features of a tile
constexpr int CONV_DEPTH = 16;  // of a step
constexpr int CONV_THREADS = 256;

// One tile of pixels x features of a group and phase. VEC channels (and features) are loaded at once. PIXELS_FIRST: channels
// lie behind each other in planes (x and y NC..., w KC...), so that neighbouring threads take neighbouring pixels.
//
// Io: typedefs X, W, acc; x(offset), w(offset, feature) as acc, store(offset, feature, total), their forms for four, and the
// pointers px, pw that those load packs from.
template <bool TRANSPOSED, bool PIXELS_FIRST, int VEC, class Io>
MI_DEVICE void conv_tile(const Io& io, const ConvSizes& s, const ConvStrides& t, int pixel_tiles, int feature_tiles) {
  typedef typename Io::acc acc;
  __shared__ ConvAxis axes[3];
  __shared__ ConvRow rows[CONV_TILE];
  __shared__ ConvTap taps[2][CONV_DEPTH];
  __shared__ __align__(16) acc left[CONV_DEPTH][CONV_TILE + 4];
  __shared__ __align__(16) acc right[CONV_DEPTH][CONV_TILE + 4];
  int me = threadIdx.x;
  int block = blockIdx.x;
  int first_feature = block % feature_tiles * CONV_TILE;
  block /= feature_tiles;
  index_t first_pixel = (index_t)(block % pixel_tiles) * CONV_TILE;
  block /= pixel_tiles;
  int group = block % s.group, phase = block / s.group;
  if (me < 3) {
    int p = me == 2 ? phase % s.strides[2] : me == 1 ? phase / s.strides[2] % s.strides[1] : phase / s.strides[2] / s.strides[1];
    axes[me] = conv_axis<TRANSPOSED>(s, me, p);
  }
  __syncthreads();
  const ConvAxis d = axes[0], h = axes[1], v = axes[2];
  index_t pixels = (index_t)s.batch * d.count * h.count * v.count;
  if (first_pixel >= pixels) return;
  if (me < CONV_TILE) {
    index_t p = first_pixel + me;
    ConvRow row = {conv_outside(), conv_outside(), conv_outside(), 0, -1};
    if (p < pixels) {
      int ow = (int)(p % v.count), oh = (int)(p / v.count % h.count);
      index_t rest = p / v.count / h.count;
      int od = (int)(rest % d.count);
      index_t image = rest / d.count;
      row.z = d.base + od * d.stride, row.y = h.base + oh * h.stride, row.x = v.base + ow * v.stride;
      row.from = image * t.x_image + row.z * t.x[0] + row.y * t.x[1] + row.x * t.x[2] + (index_t)group * s.channels * t.x_channel;
      row.to = image * t.y_image + (d.start + od * d.step) * t.y[0] + (h.start + oh * h.step) * t.y[1] +
               (v.start + ow * v.step) * t.y[2] + (index_t)group * s.features * t.y_channel;
    }
    rows[me] = row;
  }
  int window = d.taps * h.taps * v.taps, depth = window * s.channels;
  int steps = (depth + CONV_DEPTH - 1) / CONV_DEPTH;
  auto place_taps = [&](int step) {
    if (me >= CONV_DEPTH) return;
    int q = step * CONV_DEPTH + me;
    ConvTap tap = {conv_outside(), 0, 0, 0, -1};
    if (q < depth) {
      int c = PIXELS_FIRST ? q / window : q % s.channels, k = PIXELS_FIRST ? q % window : q / s.channels;
      int x = k % v.taps, y = k / v.taps % h.taps, z = k / v.taps / h.taps;
      tap.z = z * d.dilation, tap.y = y * h.dilation, tap.x = x * v.dilation;
      tap.from = tap.z * t.x[0] + tap.y * t.x[1] + tap.x * t.x[2] + c * t.x_channel;
      int number = ((d.first + z * d.tap_step) * s.kernel[1] + h.first + y * h.tap_step) * s.kernel[2] + v.first + x * v.tap_step;
      tap.weight = group * t.w_group + number * t.w_tap + c * t.w_channel;
    }
    taps[step & 1][me] = tap;
  };
  acc held_left[4], held_right[4];
  auto fetch = [&](int step) {
    const ConvTap* step_taps = taps[step & 1];
    if (VEC == 4) {
      ConvRow row = rows[me / 4];
      ConvTap tap = step_taps[me % 4 * 4];
      io.x4(row.from + tap.from, conv_inside(row.z + tap.z, row.y + tap.y, row.x + tap.x, s), held_left);
      int feature = first_feature + (TRANSPOSED ? me % 16 * 4 : me / 4);
      if (TRANSPOSED) tap = step_taps[me / 16];
      io.w4(tap.weight + feature * t.w_feature, feature < s.features && tap.weight >= 0, held_right);
      return;
    }
#pragma unroll
    for (int i = 0; i < 4; i++) {
      ConvRow row = rows[PIXELS_FIRST ? me % CONV_TILE : me / CONV_DEPTH + i * CONV_DEPTH];
      ConvTap tap = step_taps[PIXELS_FIRST ? me / CONV_TILE + i * 4 : me % CONV_DEPTH];
      held_left[i] = conv_inside(row.z + tap.z, row.y + tap.y, row.x + tap.x, s) ? io.x(row.from + tap.from) : acc(0);
      int feature = first_feature + (TRANSPOSED ? me % CONV_TILE : me / CONV_DEPTH + i * CONV_DEPTH);
      tap = step_taps[TRANSPOSED ? me / CONV_TILE + i * 4 : me % CONV_DEPTH];
      bool there = feature < s.features && tap.weight >= 0;
      held_right[i] = there ? io.w(tap.weight + feature * t.w_feature, group * s.features + feature) : acc(0);
    }
  };
  auto keep = [&]() {
#pragma unroll
    for (int i = 0; i < 4; i++) {
      if (VEC == 4) {
        left[me % 4 * 4 + i][me / 4] = held_left[i];
        if (TRANSPOSED) right[me / 16][me % 16 * 4 + i] = held_right[i];
        else right[me % 4 * 4 + i][me / 4] = held_right[i];
      } else {
        if (PIXELS_FIRST) left[me / CONV_TILE + i * 4][me % CONV_TILE] = held_left[i];
        else left[me % CONV_DEPTH][me / CONV_DEPTH + i * CONV_DEPTH] = held_left[i];
        if (TRANSPOSED) right[me / CONV_TILE + i * 4][me % CONV_TILE] = held_right[i];
        else right[me % CONV_DEPTH][me / CONV_DEPTH + i * CONV_DEPTH] = held_right[i];
      }
    }
  };
  acc total[4][4];
#pragma unroll
  for (int i = 0; i < 4; i++)
#pragma unroll
    for (int j = 0; j < 4; j++) total[i][j] = acc(0);
  int my_pixel = (PIXELS_FIRST ? me % 16 : me / 16) * 4, my_feature = (PIXELS_FIRST ? me / 16 : me % 16) * 4;
  place_taps(0);
  __syncthreads();
  if (steps) fetch(0);
  for (int step = 0; step < steps; step++) {
    keep();
    place_taps(step + 1);
    __syncthreads();
    if (step + 1 < steps) fetch(step + 1);  // is on its way while this step is multiplied
#pragma unroll
    for (int k = 0; k < CONV_DEPTH; k++) {
      Pack<acc, 4> a = *reinterpret_cast<const Pack<acc, 4>*>(&left[k][my_pixel]);
      Pack<acc, 4> b = *reinterpret_cast<const Pack<acc, 4>*>(&right[k][my_feature]);
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) total[i][j] += a.d[i] * b.d[j];
    }
    __syncthreads();
  }
#pragma unroll
  for (int i = 0; i < 4; i++) {
    index_t to = rows[my_pixel + i].to;
    int feature = first_feature + my_feature;
    if (to < 0) continue;
    if (VEC == 4) {
      if (feature < s.features) io.store4(to + feature * t.y_channel, group * s.features + feature, total[i]);
      continue;
    }
#pragma unroll
    for (int j = 0; j < 4; j++)
      if (feature + j < s.features) io.store(to + (feature + j) * t.y_channel, group * s.features + feature + j, total[i][j]);
  }
}

// Every output element by a thread of its own, in the order of the output's memory.
template <bool TRANSPOSED, bool PIXELS_FIRST, class Io>
MI_DEVICE void conv_elements(const Io& io, const ConvSizes& s, const ConvStrides& t, index_t count) {
  typedef typename Io::acc acc;
  index_t features = (index_t)s.group * s.features, area = (index_t)s.y[0] * s.y[1] * s.y[2];
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    int feature = (int)(PIXELS_FIRST ? i / area % features : i % features);
    index_t pixel = PIXELS_FIRST ? i % area : i / features % area, image = i / area / features;
    int at[3] = {(int)(pixel / s.y[2] / s.y[1]), (int)(pixel / s.y[2] % s.y[1]), (int)(pixel % s.y[2])};
    ConvAxis axes[3];
    int from[3];
#pragma unroll
    for (int a = 0; a < 3; a++) {
      axes[a] = conv_axis<TRANSPOSED>(s, a, TRANSPOSED ? at[a] % s.strides[a] : 0);
      from[a] = axes[a].base + at[a] / axes[a].step * axes[a].stride;
    }
    int group = feature / s.features;
    const index_t x_start = image * t.x_image + (index_t)group * s.channels * t.x_channel;
    const index_t w_start = group * t.w_group + (feature - group * s.features) * t.w_feature;
    acc total = acc(0);
    for (int jz = 0; jz < axes[0].taps; jz++)
      for (int jy = 0; jy < axes[1].taps; jy++)
        for (int jx = 0; jx < axes[2].taps; jx++) {
          int z = from[0] + jz * axes[0].dilation, y = from[1] + jy * axes[1].dilation, x = from[2] + jx * axes[2].dilation;
          if (!conv_inside(z, y, x, s)) continue;
          int tap_z = axes[0].first + jz * axes[0].tap_step, tap_y = axes[1].first + jy * axes[1].tap_step;
          int number = (tap_z * s.kernel[1] + tap_y) * s.kernel[2] + axes[2].first + jx * axes[2].tap_step;
          index_t read = x_start + z * t.x[0] + y * t.x[1] + x * t.x[2], weight = w_start + number * t.w_tap;
#pragma unroll 4
          for (int c = 0; c < s.channels; c++) total += io.x(read + c * t.x_channel) * io.w(weight + c * t.w_channel, feature);
        }
    io.store(image * t.y_image + at[0] * t.y[0] + at[1] * t.y[1] + at[2] * t.y[2] + feature * t.y_channel, feature, total);
  }
}
