// What runs grids: clusters one after the other, the threads of each as fibers, and shared memory that holds nothing of the last
// block. The first cluster of a grid may begin by itself, as far as its turn (kernels/turn.cuh), and go on when the grid runs.
namespace emulation {
namespace {
unsigned cluster[3] = {1, 1, 1};
std::vector<Team*> kept;  // teams that wait for their turn, by slot
bool must_come = false;   // every thread must have a turn
int slot = -1;            // of a cluster that begins, or began

// Makes the team's fibers fit so many blocks of threads.
void fit(Team& t, unsigned blocks, const unsigned* block) {
  t.count = blocks;
  t.threads = block[0] * block[1] * block[2];
  t.size = blocks * t.threads;
  while (t.fibers.size() < t.size) t.fibers.emplace_back();
  for (unsigned i = 0; i < t.size; i++) {
    unsigned n = i % t.threads;
    t.fibers[i].index = {n % block[0], n / block[0] % block[1], n / block[0] / block[1]};
    t.fibers[i].block = i / t.threads;
  }
  for (unsigned b = 0; b < blocks; b++) {
    unsigned char*& dynamic = t.blocks[b].dynamic;
    if (dynamic) continue;
    dynamic = (unsigned char*)std::aligned_alloc(1024, MOST_SHARED);
    if (!dynamic) stop("no memory for shared memory");
    poison(dynamic, dynamic + MOST_SHARED);
  }
}

uint3 place_of(unsigned rank, uint3 first) {
  return {first.x + rank % cluster[0], first.y + rank / cluster[0] % cluster[1], first.z + rank / cluster[0] / cluster[1]};
}

// What blocks find when they begin: poison, and nothing under way. ``first`` is the cluster's first block.
void set_up(uint3 first) {
  Team& t = *team;
  poison(statics, statics_end);
  loaded = 0;
  t.pending.clear();
  t.arrived = 0;
  for (unsigned b = 0; b < t.count; b++) {
    Block& block = t.blocks[b];
    block.index = place_of(b, first);
    if (block.dynamic_used) poison(block.dynamic, block.dynamic + shared_size);
    block.statics.assign(statics, statics_end);  // nothing of an earlier kernel's, which may have had more
    std::fill(block.named, block.named + 16, Named());
    block.instructions.clear();
    block.first.clear();
  }
  for (unsigned i = 0; i < t.size; i++) {
    t.fibers[i].begin();
    t.fibers[i].round = t.round;
  }
}

// Threads of a block as calls, one after the other.
void run_calls(unsigned rank, uint3 first) {
  Block& block = team->blocks[rank];
  blockIdx = block.index = place_of(rank, first);
  poison(statics, statics_end);
  if (block.dynamic_used) poison(block.dynamic, block.dynamic + shared_size);
  plain = true;
  for (unsigned i = rank * team->threads; i < (rank + 1) * team->threads; i++) {
    current = (int)i;
    threadIdx = me().index;
    me().came = false;
    body(parameters);
  }
  plain = false;
  current = -1;
}

bool all_came() {
  bool all = true;
  for (unsigned i = 0; i < team->size; i++) all &= team->fibers[i].came;
  return all;
}

// Null, or that something lies behind the dynamic shared memory of the launch. Leaves poison there.
const char* clean(Team& t) {
  bool inside = true;
  for (Block& block : t.blocks) {
    if (!block.dynamic_used) continue;
    bool mine = poisoned(block.dynamic + shared_size, block.dynamic + MOST_SHARED);
    poison(block.dynamic, block.dynamic + (mine ? shared_size : MOST_SHARED));
    block.dynamic_used = false;
    inside &= mine;
  }
  return inside ? nullptr : "a kernel wrote behind the dynamic shared memory that it was launched with";
}

// Null, or what is wrong with the cluster's run; its threads begin anew then.
const char* run_cluster(bool backwards) {
  const char* wrong = run_team(backwards);
  if (!wrong) wrong = unfinished();
  if (wrong)
    for (Fiber& f : team->fibers) f.started = false;
  return wrong;
}

// Runs the first cluster up to its turn, and keeps it there. Null, or what the kernel did that it must not.
const char* begin_cluster(unsigned blocks, const unsigned* block) {
  while ((int)kept.size() <= slot) kept.push_back(new Team());
  team = kept[slot];
  for (Fiber& f : team->fibers)
    if (f.state != DONE) f.started = false;  // of a cluster that nobody ended
  fit(*team, blocks, block);
  set_up({0, 0, 0});
  const char* wrong = run_cluster(false);
  beginning = false;
  for (unsigned i = 0; i < team->size && !wrong; i++)
    if (team->fibers[i].state == DONE && !team->fibers[i].came) wrong = "a thread ended before its turn came";
  team->blocks[loaded].statics.assign(statics, statics_end);
  return wrong;
}

// Goes on with a cluster that began.
const char* end_cluster() {
  team = kept[slot];
  loaded = 0;
  std::copy(team->blocks[0].statics.begin(), team->blocks[0].statics.end(), statics);
  for (unsigned i = 0; i < team->size; i++)
    if (team->fibers[i].state == AT_TURN) team->fibers[i].state = READY;
  return run_cluster(false);
}
}  // namespace

const char* run_grid(const Kernel& kernel, const unsigned* grid, const unsigned* block, unsigned shared_nbytes, void** p) {
  static Team common;
  statics = (unsigned char*)kernel.shared, statics_end = (unsigned char*)kernel.shared_end;
  if (statics_end - statics > (long)MOST_STATIC) return "the kernel has more than 48 KiB of static shared memory";
  if (statics_end - statics + shared_nbytes > MOST_SHARED) return "static and dynamic shared memory together are more than a block has";
  body = kernel.body;
  parameters = p;
  shared_size = shared_nbytes;
  faulty = false;
  dice = seed * 0x9e3779b97f4a7c15u | 1;
  gridDim = {grid[0], grid[1], grid[2]};
  blockDim = {block[0], block[1], block[2]};
  unsigned blocks = cluster[0] * cluster[1] * cluster[2];
  if (beginning) return begin_cluster(blocks, block);
  team = &common;
  fit(common, blocks, block);
  bool backwards = false, came = true;
  const char* wrong = nullptr;
  for (unsigned z = 0; z < grid[2]; z += cluster[2])
    for (unsigned y = 0; y < grid[1]; y += cluster[1])
      for (unsigned x = 0; x < grid[0]; x += cluster[0]) {
        if (slot >= 0) {
          wrong = end_cluster();
          if (must_come) came &= all_came();
          const char* outside = clean(*team);
          wrong = wrong ? wrong : outside;
          slot = -1;
          team = &common;
        } else if (kernel.synchronizes) {
          set_up({x, y, z});
          wrong = run_cluster(backwards);
          if (must_come) came &= all_came();
        } else {
          for (unsigned b = 0; b < blocks; b++) run_calls(b, {x, y, z});
          if (must_come) came &= all_came();
        }
        if (wrong) {
          clean(common);
          return wrong;
        }
        backwards = !backwards;  // who waits for nobody sees nothing of later threads in one block, and of earlier ones in the next
      }
  wrong = clean(common);
  return came ? wrong : "a thread ended before its turn came";
}

// How many blocks form a cluster in the launches from here on.
extern "C" void mi_set_cluster(const unsigned* sizes) { std::copy(sizes, sizes + 3, cluster); }

// The next run: of a kernel all whose threads must have their turn; of the first cluster of one, which is kept in a slot; or of a
// kernel whose first cluster is kept there (-1: of none).
extern "C" void mi_set_turn(bool required, bool begin, int where) {
  must_come = required;
  beginning = begin;
  slot = where;
}

// In which order threads run, and when what they do not wait for happens, in the launches from here on: see ``seed``.
extern "C" void mi_set_seed(uint64_t number) { seed = number; }

void take_turn() {
  me().came = true;
  if (beginning) leave(AT_TURN);
}

unsigned char* dynamic_shared() {
  Block& block = my_block();
  block.dynamic_used = true;
  return block.dynamic;
}

void wait_for_block() { leave(AT_BLOCK); }

void wait_for_warp() { leave(AT_WARP); }

unsigned lanes_in_warp() { return std::min(team->threads - linear() / WARP * WARP, WARP); }

static uint64_t given[MOST_BLOCKS * MOST_THREADS];

uint64_t exchange(uint64_t own, int source) {
  uint64_t* warp = given + current / team->threads * MOST_THREADS + linear() / WARP * WARP;
  warp[linear() % WARP] = own;
  leave(AT_WARP);
  uint64_t result = source >= 0 && source < (int)lanes_in_warp() ? warp[source] : own;
  leave(AT_WARP);
  return result;
}

uint32_t vote(bool predicate) {
  uint64_t* warp = given + current / team->threads * MOST_THREADS + linear() / WARP * WARP;
  warp[linear() % WARP] = predicate;
  leave(AT_WARP);
  uint32_t all = 0;
  for (unsigned i = 0; i < lanes_in_warp(); i++) all |= (uint32_t)(warp[i] != 0) << i;
  leave(AT_WARP);
  return all;
}
}  // namespace emulation
