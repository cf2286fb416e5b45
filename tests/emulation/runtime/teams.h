// The threads of a cluster, which live at once as fibers; the shared memory of its blocks; and what is on its way there.
//
// The files of this folder are one translation unit (compiler.py names them in order), so names without a linkage are seen by all.
#include <algorithm>
#include <cmath>
#include <csetjmp>
#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <vector>

#include "emulation.h"  // whose macros are words of C++'s library

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace emulation {
namespace {
constexpr unsigned MOST_THREADS = 1024, WARP = 32, MOST_BLOCKS = 8;
constexpr size_t STACK = 128 << 10, PAGE = 4096;
constexpr size_t MOST_SHARED = 227 << 10, MOST_STATIC = 48 << 10;
constexpr unsigned char POISON[2] = {0xf5, 0xff};  // as poison.py has it

enum State { READY, AT_BLOCK, AT_WARP, AT_TURN, WAITING, DONE };

// What a thread waits for beside its block, its warp and its turn.
struct Wait {
  enum What { PHASE, NAMED, CLUSTER } what;
  unsigned block, place, value;  // a barrier's address and the parity waited for; a number and a round of it; a round
};

// A matrix instruction that a thread has issued: its number within the warpgroup, its sums, and whether these begin at what they are.
struct Issued {
  size_t number;
  uint32_t* sums;
  bool accumulates, performed;
};

// What a thread has under way on the tensor cores.
struct Cores {
  bool fenced = false;
  size_t next = 0;                            // number of the instruction that it issues next
  std::vector<Issued> open;                   // not yet waited for
  std::vector<size_t> groups;                 // where each closed group ends
  std::map<uint32_t*, std::vector<uint32_t>> sums;  // words, of floats or of integers, while registers may not be read
};

struct Fiber {
  jmp_buf at;
  State state = READY;
  char* stack = nullptr;
  bool started = false, came = false, arrived = false;
  uint3 index;
  unsigned block = 0;  // its block's rank in the cluster
  Wait wait;
  unsigned round = 0;  // of the cluster's barrier, when it arrived
  Cores cores;
  std::vector<std::function<void()>> stores;  // bulk copies out of shared memory that are not closed
  std::vector<std::vector<std::function<void()>>> groups;

  void begin() {
    state = READY;
    came = arrived = false;
    cores.fenced = false;
    cores.next = 0;
    cores.open.clear();
    cores.groups.clear();
    cores.sums.clear();
    stores.clear();
    groups.clear();
  }
};

struct Named {
  unsigned expected = 0, came = 0, round = 0;
};

struct Instruction;

struct Block {
  uint3 index;
  std::vector<unsigned char> statics;  // while another block of the cluster runs
  unsigned char* dynamic = nullptr;    // MOST_SHARED bytes from a multiple of 1024
  bool dynamic_used = false;
  Named named[16];
  std::map<unsigned, std::deque<std::shared_ptr<Instruction>>> instructions;  // by warpgroup
  std::map<unsigned, size_t> first;                                            // number of the first of these
};

struct Team {
  std::deque<Fiber> fibers;  // the first ``size`` of which are in use
  Block blocks[MOST_BLOCKS];
  unsigned count = 0, threads = 0, size = 0;  // blocks, threads of each, and of all
  std::deque<std::function<void()>> pending;
  unsigned arrived = 0, round = 0;  // at the cluster's barrier
};

Team* team = nullptr;
int current = -1;  // the fiber that runs
unsigned loaded = 0;  // whose static shared memory lies in place
unsigned char *statics = nullptr, *statics_end = nullptr;
size_t shared_size = 0;  // dynamic, of each block
jmp_buf scheduler;
void (*body)(void**);
void** parameters;
bool plain = false;      // threads run one after the other, as calls
bool beginning = false;  // a cluster runs that is to stop at its turn
uint64_t seed = 0;       // 0: threads in order, and everything else as late as can be; 1: that as early as can be; else at random
uint64_t dice = 0;
char fault[512];
bool faulty = false;

uint64_t roll(uint64_t sides) {
  dice ^= dice << 13, dice ^= dice >> 7, dice ^= dice << 17;
  return (dice >> 11) % sides;
}

// Whether something that may happen now or later happens now.
bool happens_now() { return seed == 1 || (seed > 1 && roll(3) == 0); }

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

// What the kernel did that a device would not allow, or not do alike every time; the first such thing is told.
void fail(const char* form, ...) {
  if (faulty) return;
  faulty = true;
  va_list values;
  va_start(values, form);
  std::vsnprintf(fault, sizeof fault, form, values);
  va_end(values);
}

Fiber& me() { return team->fibers[current]; }
Block& my_block() { return team->blocks[me().block]; }

void leave(State state) {
  if (plain) stop("a kernel synchronizes that was taken for one that does not");
  Fiber& fiber = me();
  fiber.state = state;
  if (_setjmp(fiber.at) == 0) _longjmp(scheduler, 1);
}

// Ends the grid, where something is wrong.
void end_if_faulty() {
  while (faulty) leave(DONE);
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
  if (!f.stack) {
    f.stack = (char*)mmap(nullptr, STACK + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (f.stack == MAP_FAILED || mprotect(f.stack, PAGE, PROT_NONE) != 0) stop("no memory for stacks");
  }
  ucontext_t first;
  getcontext(&first);
  first.uc_stack.ss_sp = f.stack + PAGE;
  first.uc_stack.ss_size = STACK;
  first.uc_link = nullptr;
  makecontext(&first, live, 0);
  f.started = true;
  setcontext(&first);
}

// Static shared memory of the block lies where its kernel has it.
void load_block(unsigned rank) {
  if (rank == loaded) return;
  size_t size = statics_end - statics;
  if (size) {
    team->blocks[loaded].statics.assign(statics, statics_end);
    std::copy(team->blocks[rank].statics.begin(), team->blocks[rank].statics.end(), statics);
  }
  loaded = rank;
}

void resume(unsigned number) {
  Fiber& f = team->fibers[number];
  load_block(f.block);
  current = (int)number;
  threadIdx = f.index;
  blockIdx = team->blocks[f.block].index;
  if (_setjmp(scheduler) == 0) {
    if (f.started) _longjmp(f.at, 1);
    start(f);
  }
  current = -1;
}
}  // namespace
}  // namespace emulation
