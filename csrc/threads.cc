#include "threads.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>
#if defined(__linux__)
#include <sched.h>
#include <time.h>
#endif

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

namespace poolwise {
namespace {

struct Work {
  Int n, piece;
  RangeTask task;
  void* context;
  std::atomic<Int> next{0};
  std::mutex guard{};
  std::exception_ptr failure{};

  void run() {
    try {
      for (Int begin; (begin = next.fetch_add(piece)) < n;) task(context, begin, smaller(begin + piece, n));
    } catch (...) {
      const std::lock_guard hold(guard);
      failure = std::current_exception();
      next = n;
    }
  }
};

using Clock = std::chrono::steady_clock;
constexpr auto moment = std::chrono::microseconds(500), soon = std::chrono::microseconds(50), at_once = std::chrono::microseconds(20);
constexpr auto longer = std::chrono::microseconds(200);
constexpr Int quick_calls = 8;  // one behind the other

// Asks for a short while again and again whether there is something to do: who sleeps takes as long to wake as a small pooling. It does
// not give way to others, since Linux lets who did, and slept then, wait for a whole turn of theirs (benchmarks/factors.md, 103). Once
// another took the processor, sleeping is better: sleepers have their turn first.
template <class Done>
void linger(Clock::duration most, Done done) {
  for (auto before = Clock::now(), now = before, end = now + most; !done() && now < end && now - before < at_once; now = Clock::now()) before = now;
}

#if defined(__linux__)
// After some milliseconds of idleness Linux wakes a worker on its waker's processor and in its place, though another has
// nothing to do: so a worker that finds itself there moves on, and does not come back.
class Place {
 public:
  static int here() { return sched_getcpu(); }

  // Somebody may have confined this thread since.
  void leave(int processor) {
    const cpu_set_t now = allowed();
    if (!CPU_EQUAL(&now, &chosen_)) usable_ = now;
    chosen_ = usable_;
    CPU_CLR(static_cast<std::size_t>(processor), &chosen_);
    if (CPU_COUNT(&chosen_) == 0 || sched_setaffinity(0, sizeof chosen_, &chosen_) != 0) chosen_ = now;
  }

 private:
  static cpu_set_t allowed() {
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0) CPU_ZERO(&set);
    return set;
  }

  cpu_set_t usable_ = allowed(), chosen_ = usable_;
};
#else
struct Place {
  static int here() { return -1; }
  void leave(int) {}
};
#endif

// Workers wait until a caller posts its work; one caller at a time owns them.
class Pool {
 public:
  bool try_own() { return !owned_.exchange(true); }
  void disown() { owned_ = false; }

  void run(Work& work, int helpers) {
    grow(helpers);
    {
      const std::lock_guard hold(guard_);
      work_ = &work;
      wanted_ = smaller(helpers, static_cast<Int>(workers_.size()));
      caller_ = Place::here();
      posted_at_ = Clock::now();
      ++posted_;
    }
    wake_.notify_all();
    work.run();
    std::unique_lock hold(guard_);
    wanted_ = 0;  // a worker that has not begun need not
    hold.unlock();
    for (const auto end = Clock::now() + moment; active_ != 0 && Clock::now() < end;) {
    }  // without giving way, since a third library's thread that spins would take a whole turn
    hold.lock();
    idle_.wait(hold, [&] { return active_ == 0; });
    work_ = nullptr;
  }

 private:
  void grow(int helpers) {
    try {
      while (static_cast<int>(workers_.size()) < helpers) workers_.emplace_back([this] { serve(); });
    } catch (const std::exception&) {
      // The system gives no more threads: those there are do the work.
    }
  }

  void serve() {
    Place place;
    // Where many calls followed one another it stays awake longer for the next. Once one is late it does not: what runs instead may
    // want the processor.
    Int quick = 0;
    for (unsigned long seen = 0;;) {
      const auto idle_since = Clock::now();
      linger(quick == quick_calls ? longer : soon, [&] { return posted_ != seen; });
      std::unique_lock hold(guard_);
      wake_.wait(hold, [&] { return posted_ != seen; });
      seen = posted_;
      quick = posted_at_ - idle_since > longer ? 0 : smaller(quick + 1, quick_calls);
      if (const int caller = caller_; caller == Place::here()) {
        hold.unlock();
        place.leave(caller);
        hold.lock();
      }
      if (wanted_ == 0) continue;
      --wanted_;
      ++active_;
      Work* work = work_;
      hold.unlock();
      work->run();
      hold.lock();
      if (--active_ == 0) idle_.notify_one();
    }
  }

  std::atomic<bool> owned_{false};
  std::mutex guard_;
  std::condition_variable wake_, idle_;
  std::vector<std::thread> workers_;
  Work* work_ = nullptr;
  Int wanted_ = 0;
  int caller_ = -1;  // processor
  Clock::time_point posted_at_{};
  std::atomic<Int> active_{0};
  std::atomic<unsigned long> posted_{0};
};

// Never destroyed: workers may still sleep in it when the process exits. A forked child has no workers, so it forgets the
// pool and makes another when it needs one; no lock is held across the fork, so none can be stuck in the child.
std::atomic<Pool*> the_pool{nullptr};
std::atomic<int> thread_count{0};

std::atomic<bool> forked{false};

const int fork_watch = pthread_atfork(nullptr, nullptr, [] {
  the_pool = nullptr;
  forked = true;
});

Pool& pool() {
  if (Pool* there = the_pool) return *there;
  auto fresh = std::make_unique<Pool>();
  Pool* expected = nullptr;
  if (the_pool.compare_exchange_strong(expected, fresh.get())) return *fresh.release();
  return *expected;
}

int usable_cores() {
#if defined(__linux__)
  cpu_set_t usable;
  if (sched_getaffinity(0, sizeof usable, &usable) == 0) return CPU_COUNT(&usable);
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n == 0 ? 1 : static_cast<int>(n);
}

// Where another library has brought GNU OpenMP (PyTorch does), its threads go on spinning for a while after their work and
// hold the processors that our own would need: a training step on two cores took 97 ms with a pool beside them, 16 ms
// without the spinning. So the work runs on those threads while they spin. Once they sleep it runs on our own: a caller of
// theirs waits for every one to wake, a turn of the scheduler's (4 ms and more) where a third library's thread spins. A caller
// that may use one processor has been bound to it, as ours would be with it, and theirs need not be. In a forked child they
// are gone, and libgomp would wait for them.
#if defined(__linux__)
class Host {
 public:
  static bool serves() { return !forked && parallel() != nullptr && (!asleep() || usable_cores() == 1); }

  static void run(Work& work, Int helpers) {
    Team team{.work = &work, .caller = pthread_self()};
    parallel()(serve, &team, static_cast<unsigned>(helpers + 1), 0);
    met_ = team.clock;
  }

 private:
  struct Team {
    Work* work;
    pthread_t caller;
    std::atomic<clockid_t> clock{0};
  };

  using Parallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

  static Parallel parallel() {
    static std::atomic<Parallel> found{nullptr};
    if (Parallel there = found) return there;
    found = reinterpret_cast<Parallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
    return found;
  }

  static bool asleep() {
    timespec once, again;
    const bool known = met_ != 0 && clock_gettime(met_, &once) == 0 && clock_gettime(met_, &again) == 0;
    return known && once.tv_nsec == again.tv_nsec && once.tv_sec == again.tv_sec;
  }

  static void serve(void* given) {
    auto& team = *static_cast<Team*>(given);
    clockid_t clock;
    if (!pthread_equal(pthread_self(), team.caller) && pthread_getcpuclockid(pthread_self(), &clock) == 0)
      team.clock = clock;
    team.work->run();
  }

  static thread_local clockid_t met_;  // processor time of a thread that worked for this one: it passes while that spins
};

thread_local clockid_t Host::met_ = 0;
#else
struct Host {
  static bool serves() { return false; }
  static void run(Work& work, Int) { work.run(); }
};
#endif

void run_on_pool(Work& work, Int helpers) {
  if (!pool().try_own()) return work.run();
  Pool& owned = pool();
  owned.run(work, static_cast<int>(helpers));
  owned.disown();
}

constexpr std::size_t cache_line = 64;

struct Free {
  void operator()(void* p) const { ::operator delete(p, std::align_val_t(cache_line)); }
};

}  // namespace

int num_threads() {
  if (thread_count == 0) {
    int none = 0;
    thread_count.compare_exchange_strong(none, usable_cores());
  }
  return thread_count;
}

void set_num_threads(int n) { thread_count = n; }

void share(Int n, Int piece, int threads, RangeTask task, void* context) {
  Work work{.n = n, .piece = piece, .task = task, .context = context};
  const Int helpers = smaller(threads, (n + piece - 1) / piece) - 1;
  if (helpers < 1) {
    work.run();
  } else if (Host::serves()) {
    Host::run(work, helpers);
  } else {
    run_on_pool(work, helpers);
  }
  if (work.failure) std::rethrow_exception(work.failure);
}

void* scratch(std::size_t bytes) {
  thread_local std::unique_ptr<void, Free> memory;
  thread_local std::size_t held = 0;
  if (bytes > held) {
    memory.reset();
    held = 0;
    memory.reset(::operator new(bytes, std::align_val_t(cache_line)));
    held = bytes;
  }
  return memory.get();
}

void advise_huge_pages(void* p, std::size_t bytes) {
#if defined(MADV_HUGEPAGE)
  constexpr std::uintptr_t page = std::uintptr_t(2) << 20;
  const auto begin = (reinterpret_cast<std::uintptr_t>(p) + page - 1) / page * page;
  const auto end = (reinterpret_cast<std::uintptr_t>(p) + bytes) / page * page;
  if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
#else
  (void)p, (void)bytes;
#endif
}

}  // namespace poolwise
