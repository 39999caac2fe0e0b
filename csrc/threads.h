// A pool of threads that shares ranges of rows, and the memory that a thread works in.
#pragma once

#include <cstddef>

#include "geometry.h"

namespace poolwise {

int num_threads();
void set_num_threads(int n);

using RangeTask = void (*)(void* context, Int begin, Int end);

// Runs task over 0 … n - 1 in pieces of `piece`, on at most `threads` threads with the caller's. Returns when all is done.
// Where the pool is busy with another caller's work, this caller does its own alone.
void share(Int n, Int piece, int threads, RangeTask task, void* context);

// Memory of this thread, at least `bytes`, aligned to a cache line; valid until this thread asks again.
// Throws std::bad_alloc.
void* scratch(std::size_t bytes);

// Asks the system for large pages under a fresh buffer. A large fresh output costs more in page faults than in pooling.
void advise_huge_pages(void* p, std::size_t bytes);

}  // namespace poolwise
