// The C of a product in the form that the library takes.
#include "product.cuh"

// beta * c, spread over a whole matrix.
extern "C" __global__ void spread(
    const MI_D* c, MI_D* whole, long long m, long long n, long long c_row, long long c_column, factor_t beta) {
  long long count = m * n;
  for (long long e = (long long)blockIdx.x * blockDim.x + threadIdx.x; e < count; e += (long long)gridDim.x * blockDim.x)
    whole[e] = narrow<MI_D>(mi_scale((acc_t)widen(c[e / n * c_row + e % n * c_column]), beta));
}
