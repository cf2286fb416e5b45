// A kernel's turn: it may begin before the one in front has ended, and waits here. programmatic_edges.py has the rules.
#pragma once
#include "types.cuh"

// The next kernel may begin once every block of this one is here; this one goes on when what is in front of it has ended and its
// writes are seen. The first statement of a kernel, so that every thread comes here before it reads or writes anything. Pointers
// to what kernels make are no ``const __restrict__``: the compiler may read through these before it waits.
#ifdef MI_EMULATED
namespace emulation {
void take_turn();
}
MI_DEVICE void mi_take_turn() { emulation::take_turn(); }
#else
MI_DEVICE void mi_take_turn() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;\n\tgriddepcontrol.wait;" ::: "memory");
#endif
}
#endif
