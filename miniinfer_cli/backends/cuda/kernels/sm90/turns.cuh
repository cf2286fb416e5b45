// A kernel's turn in two halves (turn.cuh has both in one), for what begins early and does something before it waits.
#pragma once
#include "turn.cuh"

// Let the next kernel begin once every block of this one has said so; and wait for what is in front, whose writes are seen then.
// Before it waits, a thread reads what no kernel of this program makes, and writes shared memory; every thread waits at some time.
#ifdef MI_EMULATED
MI_DEVICE void let_next_begin() {}
MI_DEVICE void await_turn() { emulation::take_turn(); }
#else
MI_DEVICE void let_next_begin() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
MI_DEVICE void await_turn() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
#endif
