// Bulk copies: one thread asks, and a barrier of shared memory counts the bytes that have come.
//
// A box is moved as its map says (contract/tensor_map.py), from the corner given, innermost dimension first; a place in shared memory
// begins at a multiple of 128, of 1024 for a swizzle over 128 bytes. What lies outside of the tensor counts as bytes, too.
#pragma once
#include "sm90/barriers.cuh"

// A parameter: const __grid_constant__ TensorMap map.
struct __align__(64) TensorMap { u64 opaque[16]; };

#ifdef MI_EMULATED
namespace emulation {
void load_box(u32 to, const void* map, u32 barrier, const int* at, unsigned rank, unsigned blocks);
void store_box(u32 from, const void* map, const int* at, unsigned rank);
void load_columns(u32 to, const void* map, u32 barrier, const int* at, const int* beside, unsigned rank, unsigned blocks);
void copy_in(u32 to, const void* from, unsigned nbytes, u32 barrier);
void copy_to_block(u32 to, u32 from, unsigned nbytes, u32 barrier);
void store_async(u32 to, const void* words, unsigned nbytes, u32 barrier);
void close_stores();
void await_stores(unsigned open);
}  // namespace emulation
MI_DEVICE void load_box(u32 to, const TensorMap& map, u32 barrier, int x) {
  int at[] = {x};
  emulation::load_box(to, &map, barrier, at, 1, 0);
}
MI_DEVICE void store_box(u32 from, const TensorMap& map, int x) {
  int at[] = {x};
  emulation::store_box(from, &map, at, 1);
}
MI_DEVICE void load_box(u32 to, const TensorMap& map, u32 barrier, int x, int y) {
  int at[] = {x, y};
  emulation::load_box(to, &map, barrier, at, 2, 0);
}
MI_DEVICE void store_box(u32 from, const TensorMap& map, int x, int y) {
  int at[] = {x, y};
  emulation::store_box(from, &map, at, 2);
}
MI_DEVICE void load_box(u32 to, const TensorMap& map, u32 barrier, int x, int y, int z) {
  int at[] = {x, y, z};
  emulation::load_box(to, &map, barrier, at, 3, 0);
}
MI_DEVICE void store_box(u32 from, const TensorMap& map, int x, int y, int z) {
  int at[] = {x, y, z};
  emulation::store_box(from, &map, at, 3);
}
MI_DEVICE void load_box(u32 to, const TensorMap& map, u32 barrier, int x, int y, int z, int u) {
  int at[] = {x, y, z, u};
  emulation::load_box(to, &map, barrier, at, 4, 0);
}
MI_DEVICE void store_box(u32 from, const TensorMap& map, int x, int y, int z, int u) {
  int at[] = {x, y, z, u};
  emulation::store_box(from, &map, at, 4);
}
MI_DEVICE void load_box(u32 to, const TensorMap& map, u32 barrier, int x, int y, int z, int u, int v) {
  int at[] = {x, y, z, u, v};
  emulation::load_box(to, &map, barrier, at, 5, 0);
}
MI_DEVICE void store_box(u32 from, const TensorMap& map, int x, int y, int z, int u, int v) {
  int at[] = {x, y, z, u, v};
  emulation::store_box(from, &map, at, 5);
}
MI_DEVICE void load_box_for(u32 blocks, u32 to, const TensorMap& map, u32 barrier, int x, int y) {
  int at[] = {x, y};
  emulation::load_box(to, &map, barrier, at, 2, blocks);
}
MI_DEVICE void load_box_for(u32 blocks, u32 to, const TensorMap& map, u32 barrier, int x, int y, int z) {
  int at[] = {x, y, z};
  emulation::load_box(to, &map, barrier, at, 3, blocks);
}
MI_DEVICE void load_columns(u32 to, const TensorMap& map, u32 barrier, int channel, int x, int y, int image, int across, int down) {
  int at[] = {channel, x, y, image}, beside[] = {across, down};
  emulation::load_columns(to, &map, barrier, at, beside, 4, 0);
}
MI_DEVICE void load_columns(
    u32 to, const TensorMap& map, u32 barrier, int channel, int x, int y, int image, int group, int across, int down) {
  int at[] = {channel, x, y, image, group}, beside[] = {across, down, 0};
  emulation::load_columns(to, &map, barrier, at, beside, 5, 0);
}
MI_DEVICE void load_columns_for(
    u32 blocks, u32 to, const TensorMap& map, u32 barrier, int channel, int x, int y, int image, int across, int down) {
  int at[] = {channel, x, y, image}, beside[] = {across, down};
  emulation::load_columns(to, &map, barrier, at, beside, 4, blocks);
}
MI_DEVICE void fetch_map(const TensorMap& map) {}
MI_DEVICE void copy_in(u32 to, const void* from, u32 nbytes, u32 barrier) { emulation::copy_in(to, from, nbytes, barrier); }
MI_DEVICE void copy_to_block(u32 to, u32 from, u32 nbytes, u32 barrier) { emulation::copy_to_block(to, from, nbytes, barrier); }
MI_DEVICE void send_to_block(u32 to, float4 v, u32 barrier) { emulation::store_async(to, &v, 16, barrier); }
MI_DEVICE void send_to_block(u32 to, float v, u32 barrier) { emulation::store_async(to, &v, 4, barrier); }
MI_DEVICE void close_stores() { emulation::close_stores(); }
template <int OPEN> MI_DEVICE void await_stores() { emulation::await_stores(OPEN); }
template <int OPEN> MI_DEVICE void await_stores_read() { emulation::await_stores(OPEN); }
#else
// Into this block's shared memory.
MI_DEVICE void load_box(u32 to, const TensorMap& map, u32 barrier, int x) {
  asm volatile("cp.async.bulk.tensor.1d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3}], [%2];"
               ::"r"(to), "l"(&map), "r"(barrier), "r"(x) : "memory");
}
MI_DEVICE void load_box(u32 to, const TensorMap& map, u32 barrier, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];"
               ::"r"(to), "l"(&map), "r"(barrier), "r"(x), "r"(y) : "memory");
}
MI_DEVICE void load_box(u32 to, const TensorMap& map, u32 barrier, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];"
               ::"r"(to), "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z) : "memory");
}
MI_DEVICE void load_box(u32 to, const TensorMap& map, u32 barrier, int x, int y, int z, int u) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];"
               ::"r"(to), "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(u) : "memory");
}
MI_DEVICE void load_box(u32 to, const TensorMap& map, u32 barrier, int x, int y, int z, int u, int v) {
  asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.tile.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6, %7}], [%2];"
               ::"r"(to), "l"(&map), "r"(barrier), "r"(x), "r"(y), "r"(z), "r"(u), "r"(v) : "memory");
}
// The same box to every block of the cluster whose bit is set in ``blocks``, at the same place there; so does each one's barrier.
MI_DEVICE void load_box_for(u32 blocks, u32 to, const TensorMap& map, u32 barrier, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster"
               " [%0], [%1, {%4, %5}], [%2], %3;"
               ::"r"(to), "l"(&map), "r"(barrier), "h"((u16)blocks), "r"(x), "r"(y) : "memory");
}
MI_DEVICE void load_box_for(u32 blocks, u32 to, const TensorMap& map, u32 barrier, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.tile.mbarrier::complete_tx::bytes.multicast::cluster"
               " [%0], [%1, {%4, %5, %6}], [%2], %3;"
               ::"r"(to), "l"(&map), "r"(barrier), "h"((u16)blocks), "r"(x), "r"(y), "r"(z) : "memory");
}
// By a map that is im2col, over channels, width, height and images: pixels of a filter's corner from (x, y) of an image on, one after
// the other along its rows and those of the images behind it, each read ``across`` and ``down`` beside the corner.
MI_DEVICE void load_columns(u32 to, const TensorMap& map, u32 barrier, int channel, int x, int y, int image, int across, int down) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes"
               " [%0], [%1, {%3, %4, %5, %6}], [%2], {%7, %8};"
               ::"r"(to), "l"(&map), "r"(barrier), "r"(channel), "r"(x), "r"(y), "r"(image), "h"((u16)across), "h"((u16)down)
               : "memory");
}
// The same over channels, width, height, images and groups of channels: pixels of all images, channels of one group.
MI_DEVICE void load_columns(
    u32 to, const TensorMap& map, u32 barrier, int channel, int x, int y, int image, int group, int across, int down) {
  asm volatile("cp.async.bulk.tensor.5d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes"
               " [%0], [%1, {%3, %4, %5, %6, %7}], [%2], {%8, %9, %10};"
               ::"r"(to), "l"(&map), "r"(barrier), "r"(channel), "r"(x), "r"(y), "r"(image), "r"(group), "h"((u16)across),
                 "h"((u16)down), "h"((u16)0)
               : "memory");
}
MI_DEVICE void load_columns_for(
    u32 blocks, u32 to, const TensorMap& map, u32 barrier, int channel, int x, int y, int image, int across, int down) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.im2col.mbarrier::complete_tx::bytes.multicast::cluster"
               " [%0], [%1, {%4, %5, %6, %7}], [%2], {%8, %9}, %3;"
               ::"r"(to), "l"(&map), "r"(barrier), "h"((u16)blocks), "r"(channel), "r"(x), "r"(y), "r"(image), "h"((u16)across),
                 "h"((u16)down)
               : "memory");
}
// Out of shared memory, whose writes are fenced (fence_for_copies); what lies behind the tensor's end is left out, but
// rows are written up to a multiple of 16 bytes. No corner is negative: an H200 ends in an illegal instruction there.
MI_DEVICE void store_box(u32 from, const TensorMap& map, int x) {
  asm volatile("cp.async.bulk.tensor.1d.global.shared::cta.tile.bulk_group [%1, {%2}], [%0];"
               ::"r"(from), "l"(&map), "r"(x) : "memory");
}
MI_DEVICE void store_box(u32 from, const TensorMap& map, int x, int y) {
  asm volatile("cp.async.bulk.tensor.2d.global.shared::cta.tile.bulk_group [%1, {%2, %3}], [%0];"
               ::"r"(from), "l"(&map), "r"(x), "r"(y) : "memory");
}
MI_DEVICE void store_box(u32 from, const TensorMap& map, int x, int y, int z) {
  asm volatile("cp.async.bulk.tensor.3d.global.shared::cta.tile.bulk_group [%1, {%2, %3, %4}], [%0];"
               ::"r"(from), "l"(&map), "r"(x), "r"(y), "r"(z) : "memory");
}
MI_DEVICE void store_box(u32 from, const TensorMap& map, int x, int y, int z, int u) {
  asm volatile("cp.async.bulk.tensor.4d.global.shared::cta.tile.bulk_group [%1, {%2, %3, %4, %5}], [%0];"
               ::"r"(from), "l"(&map), "r"(x), "r"(y), "r"(z), "r"(u) : "memory");
}
MI_DEVICE void store_box(u32 from, const TensorMap& map, int x, int y, int z, int u, int v) {
  asm volatile("cp.async.bulk.tensor.5d.global.shared::cta.tile.bulk_group [%1, {%2, %3, %4, %5, %6}], [%0];"
               ::"r"(from), "l"(&map), "r"(x), "r"(y), "r"(z), "r"(u), "r"(v) : "memory");
}
MI_DEVICE void fetch_map(const TensorMap& map) { asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory"); }
// Plain bytes, multiples of 16 from and to multiples of 16.
MI_DEVICE void copy_in(u32 to, const void* from, u32 nbytes, u32 barrier) {
  asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
               ::"r"(to), "l"(__cvta_generic_to_global(from)), "r"(nbytes), "r"(barrier) : "memory");
}
// From here to a block of the cluster, whose barrier counts; both by their addresses there (address_in_block).
MI_DEVICE void copy_to_block(u32 to, u32 from, u32 nbytes, u32 barrier) {
  asm volatile("cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];"
               ::"r"(to), "r"(from), "r"(nbytes), "r"(barrier) : "memory");
}
MI_DEVICE void send_to_block(u32 to, float4 v, u32 barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];"
               ::"r"(to), "f"(v.x), "f"(v.y), "f"(v.z), "f"(v.w), "r"(barrier) : "memory");
}
MI_DEVICE void send_to_block(u32 to, float v, u32 barrier) {
  asm volatile("st.async.weak.shared::cluster.mbarrier::complete_tx::bytes.f32 [%0], %1, [%2];"
               ::"r"(to), "f"(v), "r"(barrier) : "memory");
}
// This thread's copies out of shared memory since the last call, as a group.
MI_DEVICE void close_stores() { asm volatile("cp.async.bulk.commit_group;" ::: "memory"); }
// Until at most so many groups are under way; or until all but so many have read shared memory.
template <int OPEN> MI_DEVICE void await_stores() { asm volatile("cp.async.bulk.wait_group %0;" ::"n"(OPEN) : "memory"); }
template <int OPEN> MI_DEVICE void await_stores_read() { asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(OPEN) : "memory"); }
#endif
