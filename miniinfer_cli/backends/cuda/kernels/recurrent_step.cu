// One step of RNN, GRU or LSTM for all sequences and both directions, behind the product of all time steps with the input weights.
// phase 0: a whole step; GRU that resets before its product: phase 1, then 2. Blocks are 32 x 8 threads, a warp for each unit.
#include "recurrent_unit.cuh"

extern "C" __global__ void __launch_bounds__(256)
    recurrent_step(MI_NET_PARAMETERS, const MI_T* r, acc_t* states, int step, int phase) {
  MI_NET_MADE;
  int d = blockIdx.z, j = blockIdx.x * 8 + threadIdx.y;
  if (j >= size.hidden) return;
  for (int n0 = blockIdx.y * MI_ROWS; n0 < size.batch; n0 += gridDim.y * MI_ROWS) {
    int rows = size.batch - n0 < MI_ROWS ? size.batch - n0 : MI_ROWS;
    mi_unit(net, r, mi_states(net, states, step, d, n0), d, mi_time(size, d, step), n0, rows, j, step == size.length - 1, phase);
  }
}
