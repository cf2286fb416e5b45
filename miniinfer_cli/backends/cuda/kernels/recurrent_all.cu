// Every step of RNN, GRU or LSTM in one launch, behind the product of all time steps with the input weights: a block takes MI_ROWS
// sequences of one direction, with their states in shared memory. For weights so small that one multiprocessor reads them in time.
#include "recurrent_unit.cuh"

extern "C" __global__ void __launch_bounds__(512)
    recurrent_all(MI_NET_PARAMETERS, const MI_T* r, const MI_T* initial_h, const MI_T* initial_c) {
  MI_NET_MADE;
  MI_SHARED(acc_t, shared);
  int d = blockIdx.y, n0 = blockIdx.x * MI_ROWS, hidden = size.hidden;
  int rows = size.batch - n0 < MI_ROWS ? size.batch - n0 : MI_ROWS, all = MI_ROWS * hidden;
  States s = {shared, shared + all, shared + 2 * all, shared + 2 * all, shared + 3 * all};
  for (int e = threadIdx.y * 32 + threadIdx.x; e < rows * hidden; e += blockDim.y * 32) {
    long long from = d * at.state_direction + (n0 + e / hidden) * at.state_row + e % hidden;
    s.before[e] = initial_h ? (acc_t)widen(initial_h[from]) : (acc_t)0;
#if MI_NET == MI_LSTM
    s.cells[e] = initial_c ? (acc_t)widen(initial_c[from]) : (acc_t)0;
#endif
  }
  __syncthreads();
  bool twice = MI_NET == MI_GRU && !size.linear_before_reset;
  for (int step = 0; step < size.length; step++) {
    for (int phase = twice; phase <= (twice ? 2 : 0); phase++) {
      for (int j = threadIdx.y; j < hidden; j += blockDim.y)
        mi_unit(net, r, s, d, mi_time(size, d, step), n0, rows, j, step == size.length - 1, phase);
      __syncthreads();
    }
    acc_t* before = s.before;
    s.before = s.after;
    s.after = before;
  }
}
