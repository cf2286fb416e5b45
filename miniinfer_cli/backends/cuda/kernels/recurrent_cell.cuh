// One unit of a recurrent net at one time step: what its gates make of the sums. MI_NET: 0 RNN, 1 GRU, 2 LSTM.
#pragma once
#include "types.cuh"

#define MI_RNN 0
#define MI_GRU 1
#define MI_LSTM 2
#define MI_GATES (MI_NET == MI_RNN ? 1 : MI_NET == MI_GRU ? 3 : 4)
typedef MI_ACC acc_t;

// Passed by value. Activations: up to three for each direction.
struct Functions {
  int code[6];
};
struct Parameters {
  acc_t alpha[6], beta[6], clip;
};
struct Sizes {
  int length, batch, hidden, directions, reverse, linear_before_reset, input_forget;
};
// Elements between time steps and sequences of the projected input, between time steps, sequences and directions of Y, between
// directions and sequences of the last states.
struct Distances {
  long long projected_step, projected_row, y_step, y_row, y_direction, state_direction, state_row;
};

struct Net {
  const acc_t* projected;
  const MI_T *bias, *peepholes;
  const int* lengths;
  MI_T *y, *y_h, *y_c;
  Sizes size;
  Distances at;
  Functions functions;
  Parameters parameters;
};

MI_DEVICE float mi_exp(float x) { return expf(x); }
MI_DEVICE double mi_exp(double x) { return exp(x); }
MI_DEVICE float mi_tanh(float x) { return tanhf(x); }
MI_DEVICE double mi_tanh(double x) { return tanh(x); }
MI_DEVICE float mi_expm1(float x) { return expm1f(x); }
MI_DEVICE double mi_expm1(double x) { return expm1(x); }
MI_DEVICE float mi_log1p(float x) { return log1pf(x); }
MI_DEVICE double mi_log1p(double x) { return log1p(x); }

// An activation function by its number in the lowering of recurrent nets. NaN stays NaN but in ThresholdedRelu. One copy for all its
// callers: most of the time of a compilation would be spent on it.
static __device__ __noinline__ acc_t mi_function(int code, acc_t alpha, acc_t beta, acc_t clip, acc_t x) {
  x = x < -clip ? -clip : x > clip ? clip : x;
  switch (code) {
    case 0: return x < 0 ? (acc_t)0 : x;
    case 1: return mi_tanh(x);
    case 2: return (acc_t)1 / ((acc_t)1 + mi_exp(-x));
    case 3: return x / ((acc_t)1 + (x < 0 ? -x : x));
    case 4: return (x > 0 ? x : (acc_t)0) + (x == x ? mi_log1p(mi_exp(x < 0 ? x : -x)) : x);
    case 5: return alpha * x + beta;
    case 6: return x >= 0 ? x : alpha * x;
    case 7: return x >= alpha ? x : (acc_t)0;
    case 8: return alpha * mi_tanh(beta * x);
    case 9: {
      acc_t v = alpha * x + beta;
      return v < 0 ? (acc_t)0 : v > 1 ? (acc_t)1 : v;
    }
    default: return x >= 0 ? x : alpha * mi_expm1(x);
  }
}

// Function `number` of direction `d`.
MI_DEVICE acc_t mi_activation(const Net& net, int d, int number, acc_t x, bool clipped) {
  const int per_direction = MI_NET == MI_RNN ? 1 : MI_NET == MI_GRU ? 2 : 3;
  int which = d * per_direction + number;
  acc_t clip = clipped ? net.parameters.clip : (acc_t)mi_infinity();
  return mi_function(net.functions.code[which], net.parameters.alpha[which], net.parameters.beta[which], clip, x);
}

// The unit `j` of sequence `n` in direction `d` at time `t`. `o`: where the unit stands in the states' arrays.
struct Place {
  int d, t, j;
  long long n, o;
  bool last;
};

// The input's part of a gate, with the biases; `both`: the recurrence's bias too.
MI_DEVICE acc_t mi_input(const Net& net, const Place& p, int gate, bool both = true) {
  long long hidden = net.size.hidden;
  acc_t x = net.projected[p.t * net.at.projected_step + p.n * net.at.projected_row + (p.d * MI_GATES + gate) * hidden + p.j];
  if (net.bias) {
    const MI_T* bias = net.bias + (p.d * 2 * MI_GATES + gate) * hidden + p.j;
    acc_t sum = (acc_t)widen(bias[0]);
    if (both) sum += (acc_t)widen(bias[MI_GATES * hidden]);
    x += sum;
  }
  return x;
}

// Writes the unit's new state and output. A sequence that has ended, or not begun, keeps its state and outputs zero.
MI_DEVICE void mi_leave(
    const Net& net, const Place& p, acc_t h, acc_t c, const acc_t* before, acc_t* after, acc_t* cells, MI_T* narrow_after) {
  bool inside = !net.lengths || p.t < net.lengths[p.n];
  if (net.y)
    net.y[p.t * net.at.y_step + p.n * net.at.y_row + p.d * net.at.y_direction + p.j] = inside ? narrow<MI_T>(h) : MI_T{};
  if (!inside) h = before[p.o];
  after[p.o] = h;
  if (narrow_after) narrow_after[p.o] = narrow<MI_T>(h);
  long long state = p.d * net.at.state_direction + p.n * net.at.state_row + p.j;
  if (p.last && net.y_h) net.y_h[state] = narrow<MI_T>(h);
#if MI_NET == MI_LSTM
  if (!inside) c = cells[p.o];
  cells[p.o] = c;
  if (p.last && net.y_c) net.y_c[state] = narrow<MI_T>(c);
#endif
}

// A whole step of RNN, LSTM, and of GRU with linear_before_reset, from the recurrence's sums for each gate.
MI_DEVICE void mi_cell(
    const Net& net, const Place& p, const acc_t* sums, const acc_t* before, acc_t* after, acc_t* cells, MI_T* narrow_after) {
#if MI_NET == MI_RNN
  acc_t h = mi_activation(net, p.d, 0, mi_input(net, p, 0) + sums[0], true);
  mi_leave(net, p, h, 0, before, after, cells, narrow_after);
#elif MI_NET == MI_GRU
  acc_t update = mi_activation(net, p.d, 0, mi_input(net, p, 0) + sums[0], true);
  acc_t reset = mi_activation(net, p.d, 0, mi_input(net, p, 1) + sums[1], true);
  acc_t inner = sums[2];
  if (net.bias) inner += (acc_t)widen(net.bias[(p.d * 6LL + 5) * net.size.hidden + p.j]);
  acc_t fresh = mi_activation(net, p.d, 1, mi_input(net, p, 2, false) + reset * inner, true);
  mi_leave(net, p, fresh + update * (before[p.o] - fresh), 0, before, after, cells, narrow_after);
#else
  acc_t i = sums[0] + mi_input(net, p, 0), o = sums[1] + mi_input(net, p, 1);
  acc_t f = sums[2] + mi_input(net, p, 2), c = sums[3] + mi_input(net, p, 3), cell = cells[p.o];
  const MI_T* peep = net.peepholes ? net.peepholes + p.d * 3LL * net.size.hidden + p.j : net.peepholes;
  if (peep) {
    i += (acc_t)widen(peep[0]) * cell;
    f += (acc_t)widen(peep[2LL * net.size.hidden]) * cell;
  }
  i = mi_activation(net, p.d, 0, i, true);
  f = net.size.input_forget ? (acc_t)1 - i : mi_activation(net, p.d, 0, f, true);
  acc_t fresh = f * cell + i * mi_activation(net, p.d, 1, c, true);
  if (peep) o += (acc_t)widen(peep[net.size.hidden]) * fresh;
  acc_t h = mi_activation(net, p.d, 0, o, true) * mi_activation(net, p.d, 2, fresh, false);
  mi_leave(net, p, h, fresh, before, after, cells, narrow_after);
#endif
}

#if MI_NET == MI_GRU
// GRU that resets before its product, first half: the update gate, and the state as reset.
MI_DEVICE void mi_gates(
    const Net& net, const Place& p, const acc_t* sums, const acc_t* before, acc_t* update, acc_t* reset, MI_T* narrow_reset) {
  update[p.o] = mi_activation(net, p.d, 0, mi_input(net, p, 0) + sums[0], true);
  acc_t seen = mi_activation(net, p.d, 0, mi_input(net, p, 1) + sums[1], true) * before[p.o];
  reset[p.o] = seen;
  if (narrow_reset) narrow_reset[p.o] = narrow<MI_T>(seen);
}
// Second half, from the sum over the state as reset.
MI_DEVICE void mi_candidate(
    const Net& net, const Place& p, acc_t sum, const acc_t* before, acc_t* after, const acc_t* update, MI_T* narrow_after) {
  acc_t fresh = mi_activation(net, p.d, 1, mi_input(net, p, 2) + sum, true);
  mi_leave(net, p, fresh + update[p.o] * (before[p.o] - fresh), 0, before, after, nullptr, narrow_after);
}
#endif

#define MI_NET_PARAMETERS                                                                                                         \
  const acc_t *projected, const MI_T *bias, const MI_T *peepholes, const int *lengths, MI_T *y, MI_T *y_h, MI_T *y_c, Sizes size, \
      Distances at, Functions functions, Parameters parameters
#define MI_NET_MADE \
  Net net = { projected, bias, peepholes, lengths, y, y_h, y_c, size, at, functions, parameters }

// The arrays of states of one direction from some sequence on.
struct States {
  acc_t *before, *after, *cells, *update, *reset;
};

// States in global memory, each [directions, batch, hidden]: two for h that take turns, then the cell's (LSTM), or update and
// reset (GRU).
MI_DEVICE States mi_states(const Net& net, acc_t* states, int step, int d, int n0) {
  long long hidden = net.size.hidden, all = net.size.directions * (long long)net.size.batch * hidden;
  acc_t* mine = states + ((long long)d * net.size.batch + n0) * hidden;
  return {mine + step % 2 * all, mine + (step + 1) % 2 * all, mine + 2 * all, mine + 2 * all, mine + 3 * all};
}
MI_DEVICE int mi_time(const Sizes& size, int d, int step) { return size.reverse || d == 1 ? size.length - 1 - step : step; }
