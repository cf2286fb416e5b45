// Convolutions of 8-bit integers with a channel for each feature, channels last, and what follows them: see integer_conv.cu.
//
// A thread makes 16 channels of a pixel. The weights are [taps, channels]. What lies outside the image is the zero point.
#include "integer_ending.cuh"

extern "C" __global__ void __launch_bounds__(256) integer_depthwise(
    const MI_X* x, const i8* w, const float* scales, const float* biases, const MI_R* residual, MI_Y* y, long long count,
    Window window, Ending ending) {
  const int packs = window.features / 16;
  for (long long at = (long long)blockIdx.x * 256 + threadIdx.x; at < count; at += (long long)gridDim.x * 256) {
    int feature = (int)(at % packs) * 16;
    long long pixel = at / packs;
    int across = (int)(pixel % window.out_width), down = (int)(pixel / window.out_width % window.out_height);
    long long number = pixel / window.out_width / window.out_height;
    int first_down = down * window.stride_down - window.above, first_across = across * window.stride_across - window.left;
    const MI_X* image = x + number * window.height * window.width * window.features + feature;
    int sums[16] = {};
    for (int r = 0; r < window.taps_down; r++)
      for (int s = 0; s < window.taps_across; s++) {
        int row = first_down + r * window.gap_down, column = first_across + s * window.gap_across;
        bool there = (u32)row < (u32)window.height && (u32)column < (u32)window.width;
        if (!there && window.zero == 0) continue;
        Pack<i8, 16> k = *reinterpret_cast<const Pack<i8, 16>*>(w + (r * window.taps_across + s) * window.features + feature);
        Pack<MI_X, 16> v = {};
        if (there) v = *reinterpret_cast<const Pack<MI_X, 16>*>(image + ((long long)row * window.width + column) * window.features);
#pragma unroll
        for (int e = 0; e < 16; e++) sums[e] += (there ? (int)v.d[e] : window.zero) * (int)k.d[e];
      }
    long long place = pixel * window.features + feature;
    Pack<MI_R, 16> added = {};
    if (residual) added = *reinterpret_cast<const Pack<MI_R, 16>*>(residual + place);
    Pack<MI_Y, 16> made;
#pragma unroll
    for (int e = 0; e < 16; e++) {
      float v = __fmaf_rn((float)sums[e], scales[feature + e], biases[feature + e]);
      made.d[e] = ended(v, residual ? (float)widen(added.d[e]) : ending.residual_zero, ending);
    }
    store_sixteen(y + place, made);
  }
}
