// Det: elimination with the largest element of each column as its pivot, a block for each matrix.
#include "conversions.cuh"

typedef MI_C C;

// work: room for one m x m matrix per block, in shared memory where null.
extern "C" __global__ void determinant(const MI_T* x, MI_T* y, C* work, int batch, int m) {
  MI_SHARED(C, shared);
  __shared__ int pivot;
  C* a = work ? work + (i64)blockIdx.x * m * m : shared;
  int t = threadIdx.x;
  for (int number = blockIdx.x; number < batch; number += gridDim.x) {
    for (int i = t; i < m * m; i += blockDim.x) a[i] = widen(x[(i64)number * m * m + i]);
    __syncthreads();
    C product = 1;
    for (int k = 0; k < m; k++) {
      if (t < 32) {
        // The first of the largest, and any NaN before numbers.
        C best = -1;
        int at = k;
        for (int r = k + t; r < m; r += 32) {
          C size = a[r * m + k] < 0 ? -a[r * m + k] : a[r * m + k];
          if (size > best || (size != size && best == best)) { best = size; at = r; }
        }
        for (int by = 16; by > 0; by /= 2) {
          C other = __shfl_xor_sync(0xffffffffu, best, by);
          int there = __shfl_xor_sync(0xffffffffu, at, by);
          bool nan = other != other, mine = best != best;
          bool equal = nan == mine && (nan || other == best);
          if ((nan && !mine) || (!mine && other > best) || (equal && there < at)) { best = other; at = there; }
        }
        if (t == 0) pivot = at;
      }
      __syncthreads();
      int row = pivot;
      C head = a[row * m + k];
      product *= row == k ? head : -head;
      if (head == 0) break;  // the same in all threads
      if (row != k) {
        __syncthreads();
        for (int c = k + t; c < m; c += blockDim.x) {
          C value = a[k * m + c];
          a[k * m + c] = a[row * m + c];
          a[row * m + c] = value;
        }
      }
      __syncthreads();
      int width = m - k - 1;
      for (int i = t; i < width * width; i += blockDim.x) {
        int r = k + 1 + i / width, c = k + 1 + i % width;
        a[r * m + c] -= a[r * m + k] / head * a[k * m + c];
      }
      __syncthreads();
    }
    if (t == 0) y[number] = narrow<MI_T>(product);
    __syncthreads();
  }
}
