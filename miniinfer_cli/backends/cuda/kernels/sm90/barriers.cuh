// Barriers in shared memory, which count arrivals and bytes of copies (mbarriers); named barriers of some warps; a cluster's barrier.
//
// A barrier is 8 bytes at a multiple of 8. A phase of it ends when as many threads have arrived as it was made for, and all bytes
// that they expect have come; phases have parities 0, 1, 0 ... One thread makes it, then fence_barriers(), then those who use it
// must wait for that thread: __syncthreads(), and the cluster's barrier where other blocks do.
#pragma once
#include "sm90/shared.cuh"

#ifdef MI_EMULATED
namespace emulation {
void barrier_init(u32 address, unsigned count);
void barrier_arrive(u32 address, unsigned nbytes, bool expects);
void barrier_wait(u32 address, unsigned parity);
void named_barrier(unsigned number, unsigned threads, bool waits);
unsigned cluster_rank();
unsigned cluster_size();
void cluster_arrive();
void cluster_wait();
}  // namespace emulation
MI_DEVICE void make_barrier(u32 barrier, u32 count) { emulation::barrier_init(barrier, count); }
MI_DEVICE void fence_barriers() {}
MI_DEVICE void arrive(u32 barrier) { emulation::barrier_arrive(barrier, 0, false); }
MI_DEVICE void arrive_in_cluster(u32 barrier) { emulation::barrier_arrive(barrier, 0, false); }
MI_DEVICE void give_back_in_cluster(u32 barrier) { emulation::barrier_arrive(barrier, 0, false); }
MI_DEVICE void arrive_expecting(u32 barrier, u32 nbytes) { emulation::barrier_arrive(barrier, nbytes, true); }
MI_DEVICE void await(u32 barrier, u32 parity) { emulation::barrier_wait(barrier, parity); }
MI_DEVICE void await_in_cluster(u32 barrier, u32 parity) { emulation::barrier_wait(barrier, parity); }
MI_DEVICE void meet(u32 number, u32 threads) { emulation::named_barrier(number, threads, true); }
MI_DEVICE void come_to(u32 number, u32 threads) { emulation::named_barrier(number, threads, false); }
MI_DEVICE u32 cluster_rank() { return emulation::cluster_rank(); }
MI_DEVICE u32 cluster_size() { return emulation::cluster_size(); }
MI_DEVICE void arrive_at_cluster() { emulation::cluster_arrive(); }
MI_DEVICE void come_to_cluster() { emulation::cluster_arrive(); }
MI_DEVICE void await_cluster() { emulation::cluster_wait(); }
template <int COUNT> MI_DEVICE void take_registers() {}
template <int COUNT> MI_DEVICE void give_registers() {}
#else
MI_DEVICE void make_barrier(u32 barrier, u32 count) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barrier), "r"(count) : "memory");
}
MI_DEVICE void fence_barriers() {
  asm volatile("fence.mbarrier_init.release.cluster;\n\tfence.proxy.async.shared::cta;" ::: "memory");
}
MI_DEVICE void arrive(u32 barrier) { asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory"); }
// The barrier of any block of the cluster, by its address there (address_in_block).
MI_DEVICE void arrive_in_cluster(u32 barrier) {
  asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// The same of a thread that has only read, by matrix instructions: what it wrote need not be seen there, for which the other waits
// until all of the GPU sees it.
MI_DEVICE void give_back_in_cluster(u32 barrier) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(barrier) : "memory");
}
// Arrives, and lets the phase wait for so many bytes, fewer than 2^20.
MI_DEVICE void arrive_expecting(u32 barrier, u32 nbytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(nbytes) : "memory");
}
// Until the phase of this parity has ended: who waits may be one phase behind, not two.
MI_DEVICE void await(u32 barrier, u32 parity) {
  asm volatile("{\n\t.reg .pred over;\nagain:\n\tmbarrier.try_wait.parity.shared::cta.b64 over, [%0], %1;\n\t@!over bra again;\n}"
               ::"r"(barrier), "r"(parity) : "memory");
}
// The same, and what other blocks of the cluster wrote before they arrived is seen.
MI_DEVICE void await_in_cluster(u32 barrier, u32 parity) {
  asm volatile("{\n\t.reg .pred over;\nagain:\n\tmbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 over, [%0], %1;\n\t"
               "@!over bra again;\n}" ::"r"(barrier), "r"(parity) : "memory");
}

// Barrier ``number`` (1 to 15) of so many threads, whole warps: waits for them, or only comes.
MI_DEVICE void meet(u32 number, u32 threads) { asm volatile("bar.sync %0, %1;" ::"r"(number), "r"(threads) : "memory"); }
MI_DEVICE void come_to(u32 number, u32 threads) { asm volatile("bar.arrive %0, %1;" ::"r"(number), "r"(threads) : "memory"); }

MI_DEVICE u32 cluster_rank() { u32 r; asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(r)); return r; }
MI_DEVICE u32 cluster_size() { u32 n; asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(n)); return n; }
// All threads of all blocks of the cluster arrive, then wait; in between they may do other things.
MI_DEVICE void arrive_at_cluster() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
MI_DEVICE void await_cluster() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
// Arrives, and promises nothing of earlier writes but of barriers behind fence_barriers(): no fence of all memory, which takes 0.5 us.
MI_DEVICE void come_to_cluster() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }

// Registers of each thread of this warpgroup, a multiple of 8 from 24 to 256: more, or fewer. The kernel has __launch_bounds__(n, 1).
template <int COUNT> MI_DEVICE void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(COUNT)); }
template <int COUNT> MI_DEVICE void give_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(COUNT)); }
#endif
