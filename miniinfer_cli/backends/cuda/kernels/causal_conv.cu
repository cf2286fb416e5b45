// CausalConvWithState: each channel's filter over its state followed by its input, and the state that follows. MI_T, MI_SWISH.
#include "epilogue.cuh"

typedef computed<MI_T> real;

// x and y [rows, length], state and next [rows, kernel - 1], w [channels, kernel]; rows are batch x channels. bias and state may
// be null. Of the `wide` elements of a row the first `length` are outputs and those behind them, if any, the next state.
extern "C" __global__ void causal_conv(const MI_T* x, const MI_T* w, const MI_T* bias, const MI_T* state, MI_T* y, MI_T* next,
                                       index_t count, index_t length, index_t wide, int kernel, int channels) {
  for (index_t i = mi_first(); i < count; i += mi_step()) {
    index_t row = i / wide, at = i % wide;
    int channel = (int)(row % channels);
    const MI_T* input = x + row * length - (kernel - 1);
    const MI_T* past = state ? state + row * (kernel - 1) : nullptr;
    if (at >= length) {
      MI_T value = {};
      if (at >= kernel - 1) value = input[at];
      else if (past) value = past[at];
      next[row * (kernel - 1) + at - length] = value;
      continue;
    }
    real total = real(0);
    for (int tap = 0; tap < kernel; tap++) {
      index_t from = at + tap;
      real value = from >= kernel - 1 ? widen(input[from]) : past ? widen(past[from]) : real(0);
      total += value * widen(w[channel * (index_t)kernel + tap]);
    }
    if (bias) total += widen(bias[channel]);
    y[row * length + at] = narrow<MI_T>(MI_SWISH ? epilogue::swish(total) : total);
  }
}
