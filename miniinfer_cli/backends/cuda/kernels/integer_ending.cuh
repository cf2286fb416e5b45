// The windows of convolutions of bytes, and what follows a sum that has been scaled: rounding on the way, a residual, bounds, bytes.
//
// MI_Y: i8, u8, f8e4m3fn or a float. MI_R: type of the residual. MI_ROUNDS: 1 where y is whole numbers in the end, 2 where it is
// f8e4m3fn, 0 where it is not rounded. MI_BETWEEN: the same of y by itself, before the residual. MI_ACTIVATION: of a sum, by its name
// (epilogue.cuh).
#pragma once
#include "epilogue.cuh"
#include "rounding.cuh"

struct Window {
  int height, width, channels;  // of the image
  int out_height, out_width, features;
  int taps_down, taps_across;
  int stride_down, stride_across, gap_down, gap_across, above, left;
  int zero;  // of x
};
struct Ending {
  float between_scale, between_inverse, between_zero, between_low, between_high;
  float residual_scale, residual_zero;
  float least, greatest;            // where y is floats
  float inverse, zero, low, high;  // where it is bytes: bounds of y times ``inverse``, without the zero point
};

// Rounds to the integers of a scale, whose inverse it is given: a division would take as long as all else that follows a sum.
MI_DEVICE float rounded(float x, float inverse, float zero, float low, float high) {
  return fminf(fmaxf(rintf(__fmul_rn(x, inverse)) + zero, low), high);
}

// y of a sum that was scaled; `added`: of the residual, its zero point where there is none.
//
// MI_FOLDED: 1 where nothing is rounded on the way and no activation follows; then the inverse scale of the result has gone into
// scales, biases and ``residual_scale``, and zero points of the residual into biases. MI_ADDED: 0 where there is no residual.
#ifndef MI_ADDED
#define MI_ADDED 1
#endif
MI_DEVICE MI_Y ended(float v, float added, const Ending& ending) {
#if MI_FOLDED
#if MI_ADDED
  v = __fmaf_rn(added, ending.residual_scale, v);
#endif
#else
#if MI_BETWEEN == 1
  v = rounded(v, ending.between_inverse, ending.between_zero, ending.between_low, ending.between_high);
  v = (v - ending.between_zero) * ending.between_scale;
#elif MI_BETWEEN == 2
  v = __fmul_rn(v, ending.between_inverse);
  v = widen(narrow<f8e4m3fn>(held(v, ending.between_low, ending.between_high)));
  v *= ending.between_scale;
#endif
  v = epilogue::MI_ACTIVATION(v);
#if MI_ADDED
  v += (added - ending.residual_zero) * ending.residual_scale;
#endif
#if MI_ROUNDS
  v = __fmul_rn(v, ending.inverse);
#endif
#endif
#if MI_ROUNDS
  return in_bytes(v, ending.low, ending.high, ending.zero);
#else
  return narrow<MI_Y>(held(v, ending.least, ending.greatest));
#endif
}

// Sixteen results side by side, the first of which lies on 16 bytes.
MI_DEVICE void store_sixteen(MI_Y* y, const Pack<MI_Y, 16>& made) {
#if MI_ROUNDS
  *reinterpret_cast<Pack<MI_Y, 16>*>(y) = made;
#else
  constexpr int N = 16 / (int)sizeof(MI_Y);
#pragma unroll
  for (int e = 0; e < 16; e += N) *reinterpret_cast<Pack<MI_Y, N>*>(y + e) = *reinterpret_cast<const Pack<MI_Y, N>*>(made.d + e);
#endif
}
