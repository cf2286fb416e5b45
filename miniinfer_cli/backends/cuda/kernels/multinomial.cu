// Multinomial.
#include "philox.cuh"

// y = ``samples`` classes of each row of x, which has the logarithms of their weights. A block takes a row.
extern "C" __global__ void multinomial(const MI_X* x, MI_Y* y, const double* drawn, index_t classes, index_t samples, u64 seed,
                                       int seeded, u32 stream) {
  __shared__ double ends[MI_CLASSES];  // up to the end of each thread's run of classes
  __shared__ double top;
  const MI_X* row = x + (index_t)blockIdx.x * classes;
  const index_t run = (classes + blockDim.x - 1) / blockDim.x;
  const index_t first = run * (index_t)threadIdx.x, last = first + run < classes ? first + run : classes;
  double most = -(double)mi_infinity();
  for (index_t c = first; c < last; c++) most = math::maximum(most, (double)widen(row[c]));
  ends[threadIdx.x] = most;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (unsigned t = 1; t < blockDim.x; t++) most = math::maximum(most, ends[t]);
    top = most;
  }
  __syncthreads();
  double sum = 0.0;
  for (index_t c = first; c < last; c++) sum += exp((double)widen(row[c]) - top);
  ends[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x == 0)
    for (unsigned t = 1; t < blockDim.x; t++) ends[t] += ends[t - 1];
  __syncthreads();
  const u64 key = key_of(seed, seeded);
  for (index_t s = (index_t)threadIdx.x; s < samples; s += (index_t)blockDim.x) {
    const u64 at = (u64)blockIdx.x * (u64)samples + (u64)s;
    const double wanted = uniform_of(drawn, at, key, stream) * ends[blockDim.x - 1];
    int part = 0;
    while (part < (int)blockDim.x - 1 && ends[part] <= wanted) part++;
    index_t c = run * (index_t)part;
    double end = part ? ends[part - 1] : 0.0;
    for (; c < classes - 1; c++) {
      end += exp((double)widen(row[c]) - top);
      if (end > wanted) break;
    }
    y[at] = (MI_Y)(c < classes ? c : classes - 1);
  }
}
