// Steps of RNN, GRU or LSTM whose recurrence a matrix product sums, and the states before the first step. MI_T, MI_ACC: types.
#include "recurrent_cell.cuh"

// The states of a step from its sums, [directions, batch, gates of the phase, hidden]. Phases as in recurrent_step.cu.
// `narrow_states`: h and then the state as reset once more in MI_T, for the next product; null where MI_T is computed in.
extern "C" __global__ void
    recurrent_cells(MI_NET_PARAMETERS, const acc_t* sums, acc_t* states, MI_T* narrow_states, int step, int phase) {
  MI_NET_MADE;
  long long hidden = size.hidden, all = (long long)size.directions * size.batch * hidden;
  MI_T* narrow_reset = narrow_states ? narrow_states + all : narrow_states;
  int gates = phase == 1 ? 2 : phase == 2 ? 1 : MI_GATES;
  for (long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x; e < all; e += (long long)gridDim.x * blockDim.x) {
    int d = e / hidden / size.batch;
    States s = mi_states(net, states, step, 0, 0);
    Place p = {d, mi_time(size, d, step), (int)(e % hidden), e / hidden % size.batch, e, step == size.length - 1};
    const acc_t* mine = sums + e / hidden * gates * hidden + p.j;
    acc_t own[MI_GATES];
#pragma unroll
    for (int g = 0; g < MI_GATES; g++)
      if (g < gates) own[g] = mine[g * hidden];
#if MI_NET == MI_GRU
    if (phase == 1) mi_gates(net, p, own, s.before, s.update, s.reset, narrow_reset);
    else if (phase == 2) mi_candidate(net, p, own[0], s.before, s.after, s.update, narrow_states);
    else
#endif
      mi_cell(net, p, own, s.before, s.after, s.cells, narrow_states);
  }
}

extern "C" __global__ void recurrent_start(
    const MI_T* initial_h, const MI_T* initial_c, acc_t* states, MI_T* narrow_states, Sizes size, Distances at) {
  long long hidden = size.hidden, all = (long long)size.directions * size.batch * hidden;
  for (long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x; e < all; e += (long long)gridDim.x * blockDim.x) {
    long long from = e / hidden / size.batch * at.state_direction + e / hidden % size.batch * at.state_row + e % hidden;
    MI_T h = initial_h ? initial_h[from] : MI_T{};
    states[e] = (acc_t)widen(h);
    if (narrow_states) narrow_states[e] = h;
#if MI_NET == MI_LSTM
    states[2 * all + e] = initial_c ? (acc_t)widen(initial_c[from]) : (acc_t)0;
#endif
  }
}
