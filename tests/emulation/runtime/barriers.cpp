// Barriers in shared memory (mbarriers), of some threads of a block (named ones), and of a cluster.
namespace emulation {
namespace {
// A barrier's 8 bytes: what a device has in them is its own affair, and so is this.
struct Phase {
  uint64_t expected : 20, pending : 20;
  int64_t bytes : 21;  // on their way
  uint64_t parity : 1, mark : 2;
};
static_assert(sizeof(Phase) == 8, "a barrier has 8 bytes");

// The barrier at an address, which ``use`` changes. Fails where there is none.
template <class Use> void with_phase(unsigned block, uint32_t address, const char* what, Use&& use) {
  unsigned char* memory = memory_at(block, address, 8, what);
  if (!memory) return;
  if (address % 8) return fail("%s: a barrier at %u, which is no multiple of 8", what, address);
  Phase phase;
  std::memcpy(&phase, memory, 8);
  if (phase.mark != 1) return fail("%s: nobody has made the barrier at %u", what, address & ((1u << RANK) - 1));
  use(phase);
  if (!phase.pending && !phase.bytes) {
    phase.parity ^= 1;
    phase.pending = phase.expected;
  }
  std::memcpy(memory, &phase, 8);
}

// So many bytes have arrived.
void complete(unsigned block, uint32_t address, unsigned nbytes) {
  with_phase(block, address, "a copy", [&](Phase& p) {
    if (p.bytes - (int64_t)nbytes < -(1 << 20)) return fail("a copy: too many bytes for the barrier at %u", address);
    p.bytes -= nbytes;
  });
}

void arrive(unsigned block, uint32_t address, unsigned nbytes, bool expects) {
  with_phase(block, address, "an arrival", [&](Phase& p) {
    if (!p.pending) return fail("an arrival: more than the barrier at %u expects", address & ((1u << RANK) - 1));
    if (expects) p.bytes += nbytes;
    p.pending--;
  });
}

void wait(Wait wait) {
  if (is_over(wait)) return;
  me().wait = wait;
  leave(WAITING);
  end_if_faulty();
}

bool is_over(const Wait& w) {
  bool over = false;
  switch (w.what) {
    case Wait::PHASE:
      with_phase(w.block, w.place, "a wait", [&](Phase& p) { over = p.parity != w.value; });
      return over || faulty;
    case Wait::NAMED: return team->blocks[w.block].named[w.place].round != w.value;
    case Wait::CLUSTER: return team->round != w.value;
  }
  return true;
}

const char* words_of(const Wait& w, char (&room)[128]) {
  if (w.what == Wait::PHASE) std::snprintf(room, sizeof room, "for the barrier at %u of block %u", w.place, w.block);
  else if (w.what == Wait::NAMED) std::snprintf(room, sizeof room, "for the named barrier %u of block %u", w.place, w.block);
  else std::snprintf(room, sizeof room, "for the cluster");
  return room;
}

void come(unsigned number, unsigned threads, bool waits) {
  Named& named = my_block().named[number % 16];
  if (!number || number > 15 || !threads || threads % WARP) fail("a named barrier has a number from 1 to 15 and whole warps");
  if (named.came && named.expected != threads) fail("the named barrier %u is of %u threads, and of %u", number, named.expected, threads);
  end_if_faulty();
  named.expected = threads;
  Wait until{Wait::NAMED, me().block, number, named.round};
  if (++named.came == threads) {
    named.came = 0;
    named.round++;
  }
  if (waits) wait(until);
}
}  // namespace

void barrier_init(uint32_t address, unsigned count) {
  unsigned char* memory = memory_at(me().block, address, 8, "a barrier");
  if (!count || count >> 20) fail("a barrier expects 1 to 2^20 - 1 arrivals, not %u", count);
  if (address % 8) fail("a barrier at %u, which is no multiple of 8", address);
  end_if_faulty();
  Phase phase{count, count, 0, 0, 1};
  std::memcpy(memory, &phase, 8);
}

void barrier_arrive(uint32_t address, unsigned nbytes, bool expects) {
  arrive(me().block, address, nbytes, expects);
  end_if_faulty();
}

void barrier_wait(uint32_t address, unsigned parity) {
  wait({Wait::PHASE, me().block, address, parity & 1});
  end_if_faulty();
}

void named_barrier(unsigned number, unsigned threads, bool waits) { come(number, threads, waits); }

unsigned cluster_rank() { return me().block; }

unsigned cluster_size() { return team->count; }

void cluster_arrive() {
  if (me().arrived) fail("a thread arrives at the cluster's barrier again before it has waited");
  end_if_faulty();
  me().arrived = true;
  me().round = team->round;
  team->arrived++;
}

void cluster_wait() {
  if (!me().arrived && me().round == team->round) fail("a thread waits for the cluster and has not arrived");
  end_if_faulty();
  wait({Wait::CLUSTER, 0, 0, me().round});
  me().round = team->round;
}

uint32_t shared_address(const void* p) {
  Block& block = my_block();
  size_t offset = (const unsigned char*)p - block.dynamic;
  if (offset >= MOST_SHARED) fail("an address that is not in dynamic shared memory");
  end_if_faulty();
  return WINDOW + (uint32_t)offset;
}

uint32_t map_address(uint32_t address, unsigned rank) {
  if (rank >= team->count || address >> RANK) fail("an address of block %u in a cluster of %u", rank, team->count);
  end_if_faulty();
  return address | (rank + 1) << RANK;
}

void load_from_block(void* to, uint32_t address, unsigned nbytes) {
  unsigned char* memory = memory_at(me().block, address, nbytes, "a load");
  end_if_faulty();
  std::memcpy(to, memory, nbytes);
}

void store_to_block(uint32_t address, const void* from, unsigned nbytes) {
  unsigned char* memory = memory_at(me().block, address, nbytes, "a store");
  if (address % nbytes) fail("a store of %u bytes at %u", nbytes, address);
  end_if_faulty();
  std::memcpy(memory, from, nbytes);
}
}  // namespace emulation
