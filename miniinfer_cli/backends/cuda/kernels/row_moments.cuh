// What brings a row to one scale, where a group of threads (group.cuh) holds it in registers.
#pragma once
#include "group.cuh"

// v: the thread's P packs of N elements of its row, zeros behind the row's end. Takes the mean off them where Centre is set, and gives
// it in `mean`; returns 1 / sqrt(mean of squares + epsilon). Every thread of the block must call this.
template <bool Centre, int P, int N, class F>
MI_DEVICE F centre_row(F (&v)[P][N], int packs, F epsilon, F& mean) {
  F sum = (F)0, squares = (F)0, length = (F)((F)packs * N);
#pragma unroll
  for (int p = 0; p < P; p++)
#pragma unroll
    for (int k = 0; k < N; k++) sum += v[p][k];
  mean = Centre ? group_combine(sum, AddOf()) / length : (F)0;
#pragma unroll
  for (int p = 0; p < P; p++) {
    bool inside = (int)(threadIdx.x + p * blockDim.x) < packs;
#pragma unroll
    for (int k = 0; k < N; k++) {
      v[p][k] = inside ? v[p][k] - mean : (F)0;
      squares += v[p][k] * v[p][k];
    }
  }
  return (F)1 / math::sqrt(group_combine(squares, AddOf()) / length + epsilon);
}
