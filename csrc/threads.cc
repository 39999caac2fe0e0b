#include "threads.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <atomic>
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

// Workers sleep until a caller posts its work; one caller at a time owns them.
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
      ++posted_;
    }
    wake_.notify_all();
    work.run();
    std::unique_lock hold(guard_);
    wanted_ = 0;  // a worker that has not begun need not
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
    std::unique_lock hold(guard_);
    for (unsigned long seen = 0;;) {
      wake_.wait(hold, [&] { return posted_ != seen; });
      seen = posted_;
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
  Int wanted_ = 0, active_ = 0;
  unsigned long posted_ = 0;
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

// Where another library has brought GNU OpenMP (PyTorch does), its threads go on spinning for a while after their work and
// hold the processors that our own would need: a training step on two cores took 97 ms with a pool beside them, 16 ms
// without the spinning. So the work runs on those threads. In a forked child they are gone, and libgomp would wait for them.
using HostParallel = void (*)(void (*)(void*), void*, unsigned, unsigned);

HostParallel host_parallel() {
#if defined(__linux__)
  static std::atomic<HostParallel> found{nullptr};
  if (forked) return nullptr;
  if (HostParallel there = found) return there;
  found = reinterpret_cast<HostParallel>(dlsym(RTLD_DEFAULT, "GOMP_parallel"));
  return found;
#else
  return nullptr;
#endif
}

void run_on_pool(Work& work, Int helpers) {
  if (!pool().try_own()) return work.run();
  Pool& owned = pool();
  owned.run(work, static_cast<int>(helpers));
  owned.disown();
}

int usable_cores() {
#if defined(__linux__)
  cpu_set_t usable;
  if (sched_getaffinity(0, sizeof usable, &usable) == 0) return CPU_COUNT(&usable);
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n == 0 ? 1 : static_cast<int>(n);
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
  } else if (const HostParallel parallel = host_parallel()) {
    parallel([](void* shared) { static_cast<Work*>(shared)->run(); }, &work, static_cast<unsigned>(helpers + 1), 0);
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
