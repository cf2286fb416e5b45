// AffineGrid: the places of an image through a matrix.
#include "types.cuh"

typedef MI_C C;  // what is computed in

// y [n, sizes..., axes] from theta [n, axes, axes + 1]: each place, its coordinates innermost axis first, through its matrix.
extern "C" __global__ void affine_grid(const MI_T* theta, MI_T* y, Ints<MI_AXES> sizes, index_t places, index_t count,
                                       int align_corners) {
  for (index_t g = mi_first(); g < count; g += mi_step()) {
    index_t image = g / places, rest = g - image * places;
    C at[MI_AXES];
#pragma unroll
    for (int axis = MI_AXES - 1; axis >= 0; axis--) {
      int size = sizes.d[axis];
      index_t higher = rest / size;
      C step = (C)(rest - higher * size);
      at[axis] = align_corners ? (size > 1 ? 2 * step / (C)(size - 1) - 1 : 0) : (2 * step + 1) / (C)size - 1;
      rest = higher;
    }
    const MI_T* matrix = theta + image * MI_AXES * (MI_AXES + 1);
#pragma unroll
    for (int row = 0; row < MI_AXES; row++) {
      C sum = widen(matrix[row * (MI_AXES + 1) + MI_AXES]);
#pragma unroll
      for (int axis = 0; axis < MI_AXES; axis++) sum += at[axis] * widen(matrix[row * (MI_AXES + 1) + MI_AXES - 1 - axis]);
      y[g * MI_AXES + row] = narrow<MI_T>(sum);
    }
  }
}
