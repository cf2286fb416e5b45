// What runs grids: blocks one after the other, their threads as fibers, and shared memory that holds nothing of the last block.
// The first block of a grid may begin by itself, as far as its turn (kernels/turn.cuh), and go on when the grid runs.
// Compiled once; every kernel's library calls it.
#include "emulation.h"

#include <algorithm>
#include <csetjmp>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;
static unsigned cluster[3] = {1, 1, 1};

namespace emulation {
namespace {
constexpr unsigned MOST_THREADS = 1024, WARP = 32;
constexpr size_t STACK = 128 << 10, PAGE = 4096;
constexpr size_t MOST_SHARED = 227 << 10, MOST_STATIC = 48 << 10;
constexpr unsigned char POISON[2] = {0xf5, 0xff};  // as poison.py has it

enum State { READY, AT_BLOCK, AT_WARP, AT_TURN, DONE };
struct Fiber {
  jmp_buf at;
  State state;
  bool started;
  uint3 index;
};

// A block that waits for its turn: its threads, and what it has in shared memory meanwhile.
struct Begun {
  Fiber fibers[MOST_THREADS];
  std::vector<unsigned char> shared, dynamic;
  bool dynamic_used;
};

Fiber common[MOST_THREADS], *fibers = common;
std::vector<Begun*> begun;
bool came[MOST_THREADS];  // which threads of the block had their turn
bool beginning = false;   // a block runs that is to stop there
bool must_come = false;   // every thread must have a turn
int slot = -1;            // of a block that begins, or began
int current = -1;
jmp_buf scheduler;
void (*body)(void**);
void** parameters;
uint64_t given[MOST_THREADS / WARP][WARP];
alignas(256) unsigned char dynamic[MOST_SHARED];
bool dynamic_used;

void poison(unsigned char* start, unsigned char* end) {
  for (; start < end && (uintptr_t)start % 2; start++) *start = POISON[1];
  uint16_t word;
  std::memcpy(&word, POISON, 2);
  std::fill((uint16_t*)start, (uint16_t*)start + (end - start) / 2, word);
  if ((end - start) % 2 > 0) end[-1] = POISON[0];
}

bool poisoned(const unsigned char* start, const unsigned char* end) {
  for (const unsigned char* p = start; p < end && p < start + 2; p++)
    if (*p != POISON[(uintptr_t)p % 2]) return false;
  return end - start <= 2 || std::memcmp(start, start + 2, end - start - 2) == 0;  // the rest is as the two bytes before it
}

[[noreturn]] void stop(const char* why) {
  std::fprintf(stderr, "emulation: %s\n", why);
  std::abort();
}

void leave(State state) {
  if (current < 0) stop("a kernel synchronizes that was taken for one that does not");
  Fiber& me = fibers[current];
  me.state = state;
  if (_setjmp(me.at) == 0) _longjmp(scheduler, 1);
}

// A fiber runs one thread of each block, for ever.
void live() {
  for (;;) {
    body(parameters);
    leave(DONE);
  }
}

void start(Fiber& f) {
  // A page below the stack that nobody may touch: a stack that overflows ends the process, not its neighbour.
  char* memory = (char*)mmap(nullptr, STACK + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED || mprotect(memory, PAGE, PROT_NONE) != 0) stop("no memory for stacks");
  ucontext_t first;
  getcontext(&first);
  first.uc_stack.ss_sp = memory + PAGE;
  first.uc_stack.ss_size = STACK;
  first.uc_link = nullptr;
  makecontext(&first, live, 0);
  f.started = true;
  setcontext(&first);
}

void resume(unsigned number) {
  Fiber& f = fibers[number];
  current = (int)number;
  threadIdx = f.index;
  if (_setjmp(scheduler) == 0) {
    if (f.started) _longjmp(f.at, 1);
    start(f);
  }
  current = -1;
}

// A warp goes on when all its threads wait for it, or are done; a block likewise. True when one did.
bool release(unsigned first, unsigned end, State waiting) {
  bool any = false;
  for (unsigned i = first; i < end; i++) {
    if (fibers[i].state == waiting) any = true;
    else if (fibers[i].state != DONE) return false;
  }
  for (unsigned i = first; i < end; i++)
    if (fibers[i].state == waiting) fibers[i].state = READY;
  return any;
}

// Runs the fibers that are ready, and those that these wait for, until all are done, or wait for their turn.
void run_fibers(unsigned count, bool backwards) {
  for (;;) {
    bool moved = false, alive = false;
    for (unsigned n = 0; n < count; n++) {
      unsigned i = backwards ? count - 1 - n : n;
      if (fibers[i].state == READY) { resume(i); moved = true; }
    }
    for (unsigned w = 0; w < count; w += WARP) moved |= release(w, std::min(w + WARP, count), AT_WARP);
    for (unsigned i = 0; i < count; i++) alive |= fibers[i].state != DONE && fibers[i].state != AT_TURN;
    if (!alive) return;
    if (!release(0, count, AT_BLOCK) && !moved) stop("threads wait at different barriers");
  }
}

void set_all(unsigned count, State state) {
  for (unsigned i = 0; i < count; i++) fibers[i].state = state;
}
}  // namespace

// Runs the first block up to its turn, and keeps it there. Null, or what the kernel did that it must not.
static const char* begin_block(unsigned count, unsigned char* shared, unsigned char* shared_end, unsigned shared_nbytes) {
  while ((int)begun.size() <= slot) begun.push_back(new Begun());
  Begun& kept = *begun[slot];
  blockIdx = {0, 0, 0};
  poison(shared, shared_end);
  fibers = kept.fibers;
  for (unsigned i = 0; i < count; i++) fibers[i].index = common[i].index;
  set_all(count, READY);
  beginning = true;
  run_fibers(count, false);
  beginning = false;
  bool all = true;
  for (unsigned i = 0; i < count; i++) all &= fibers[i].state == AT_TURN;
  fibers = common;
  kept.shared.assign(shared, shared_end);
  kept.dynamic.assign(dynamic, dynamic + shared_nbytes);
  kept.dynamic_used = dynamic_used;
  if (dynamic_used) poison(dynamic, dynamic + shared_nbytes);
  return all ? nullptr : "a thread ended before its turn came";
}

// Goes on with a block that began.
static void end_block(unsigned count, unsigned char* shared) {
  Begun& kept = *begun[slot];
  std::copy(kept.shared.begin(), kept.shared.end(), shared);
  std::copy(kept.dynamic.begin(), kept.dynamic.end(), dynamic);
  dynamic_used |= kept.dynamic_used;
  fibers = kept.fibers;
  set_all(count, READY);
  std::fill(came, came + count, true);
  run_fibers(count, false);
  fibers = common;
}

const char* run_grid(const Kernel& kernel, const unsigned* grid, const unsigned* block, unsigned shared_nbytes, void** p) {
  auto *shared = (unsigned char*)kernel.shared, *shared_end = (unsigned char*)kernel.shared_end;
  if (shared_end - shared > (long)MOST_STATIC) return "the kernel has more than 48 KiB of static shared memory";
  if (shared_end - shared + shared_nbytes > MOST_SHARED) return "static and dynamic shared memory together are more than a block has";
  static bool first = true;
  if (first) poison(dynamic, dynamic + MOST_SHARED);
  first = dynamic_used = false;
  body = kernel.body;
  parameters = p;
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  unsigned count = block[0] * block[1] * block[2];
  auto index = [&](unsigned i) { return uint3{i % block[0], i / block[0] % block[1], i / block[0] / block[1]}; };
  for (unsigned i = 0; i < count; i++) common[i].index = index(i);
  if (beginning) return begin_block(count, shared, shared_end, shared_nbytes);
  bool backwards = false, all_came = true;
  auto each = [](const unsigned* sizes, auto&& use) {
    for (unsigned z = 0; z < sizes[2]; z++) for (unsigned y = 0; y < sizes[1]; y++) for (unsigned x = 0; x < sizes[0]; x++)
      use(x, y, z);
  };
  const unsigned clusters[3] = {grid[0] / cluster[0], grid[1] / cluster[1], grid[2] / cluster[2]};
  each(clusters, [&](unsigned cx, unsigned cy, unsigned cz) { each(cluster, [&](unsigned x, unsigned y, unsigned z) {
    blockIdx = {cx * cluster[0] + x, cy * cluster[1] + y, cz * cluster[2] + z};
    poison(shared, shared_end);
    if (dynamic_used) poison(dynamic, dynamic + shared_nbytes);
    if (must_come) std::fill(came, came + count, false);
    if (slot >= 0) {
      end_block(count, shared);
      slot = -1;
    } else if (kernel.synchronizes) {
      set_all(count, READY);
      run_fibers(count, backwards);
    } else for (unsigned i = 0; i < count; i++) {
      threadIdx = index(i);
      kernel.body(p);
    }
    if (must_come) for (unsigned i = 0; i < count; i++) all_came &= came[i];
    backwards = !backwards;  // who waits for nobody sees nothing of later threads in one block, and of earlier ones in the next
  }); });
  if (!all_came) return "a thread ended before its turn came";
  if (!dynamic_used) return nullptr;
  bool inside = poisoned(dynamic + shared_nbytes, dynamic + MOST_SHARED);
  poison(dynamic, inside ? dynamic + shared_nbytes : dynamic + MOST_SHARED);
  return inside ? nullptr : "a kernel wrote behind the dynamic shared memory that it was launched with";
}

// How many blocks form a cluster in the launches from here on.
extern "C" void mi_set_cluster(const unsigned* sizes) { std::copy(sizes, sizes + 3, cluster); }

// The next run: of a kernel all whose threads must have their turn; of the first block of one, which is kept in a slot; or of a
// kernel whose first block is kept there (-1: of none).
extern "C" void mi_set_turn(bool required, bool begin, int kept) {
  must_come = required;
  beginning = begin;
  slot = kept;
}

void take_turn() {
  unsigned me = linear();
  came[me] = true;
  if (beginning) leave(AT_TURN);
}

unsigned char* dynamic_shared() {
  dynamic_used = true;
  return dynamic;
}

void wait_for_block() { leave(AT_BLOCK); }

void wait_for_warp() { leave(AT_WARP); }

unsigned lanes_in_warp() { return std::min(blockDim.x * blockDim.y * blockDim.z - linear() / WARP * WARP, WARP); }

uint64_t exchange(uint64_t own, int source) {
  unsigned me = linear();
  uint64_t* warp = given[me / WARP];
  warp[me % WARP] = own;
  leave(AT_WARP);
  uint64_t result = source >= 0 && source < (int)lanes_in_warp() ? warp[source] : own;
  leave(AT_WARP);
  return result;
}

uint32_t vote(bool predicate) {
  unsigned me = linear();
  uint64_t* warp = given[me / WARP];
  warp[me % WARP] = predicate;
  leave(AT_WARP);
  uint32_t all = 0;
  for (unsigned i = 0; i < lanes_in_warp(); i++) all |= (uint32_t)(warp[i] != 0) << i;
  leave(AT_WARP);
  return all;
}
}  // namespace emulation
