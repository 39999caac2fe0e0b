// What the C++ tests share: a check that counts, and arrays that touch pages nobody may read or write.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace poolwise {

inline int failures = 0;

#define CHECK(condition, ...)                                        \
  do {                                                               \
    if (!(condition) && ++poolwise::failures <= 20) {                \
      std::fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition); \
      std::fprintf(stderr, __VA_ARGS__);                             \
      std::fprintf(stderr, "\n");                                    \
    }                                                                \
  } while (false)

inline int verdict(const char* what) {
  std::printf("%s: %s\n", what, failures == 0 ? "all right" : "FAILED");
  return failures == 0 ? 0 : 1;
}

enum class Touching { behind, before };  // on which side the forbidden page touches the array

// Exactly `bytes` of memory beside a forbidden page; one byte read or written outside ends the process with SIGSEGV.
class Guarded {
 public:
  Guarded(std::size_t bytes, Touching touching) : page_(static_cast<std::size_t>(sysconf(_SC_PAGESIZE))), bytes_(bytes) {
    room_ = (bytes / page_ + 1) * page_;
    void* all = mmap(nullptr, room_ + 2 * page_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (all == MAP_FAILED || mprotect(static_cast<char*>(all) + page_, room_, PROT_READ | PROT_WRITE) != 0) std::abort();
    all_ = static_cast<char*>(all);
    data_ = all_ + page_ + (touching == Touching::behind ? room_ - bytes : 0);
    std::memset(data_, 0x5A, bytes);
  }
  Guarded(const Guarded&) = delete;
  ~Guarded() { munmap(all_, room_ + 2 * page_); }

  void freeze() { mprotect(all_ + page_, room_, PROT_READ); }
  template <class T>
  T* as() const {
    return reinterpret_cast<T*>(data_);
  }
  std::size_t bytes() const { return bytes_; }
  bool equals(const Guarded& other) const { return std::memcmp(data_, other.data_, bytes_) == 0; }

 private:
  std::size_t page_, bytes_, room_;
  char *all_, *data_;
};

}  // namespace poolwise
