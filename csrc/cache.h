// Memory for large outputs, which the usual allocators may hand back to the system and ask for anew; the system clears every page of
// it, and that takes longer than pooling. Up to 32 blocks are kept here instead, of whole large pages.
#pragma once

#include <cstddef>

namespace poolwise {

// Memory of at least so many bytes, aligned to a large page; what it holds is left over. Throws std::bad_alloc.
class Lent {
 public:
  explicit Lent(std::size_t bytes);
  Lent(const Lent&) = delete;
  Lent& operator=(const Lent&) = delete;
  ~Lent();  // keeps the memory for the next one; all but the newest may be taken away by a system that is short of it
  void* data() const { return data_; }

 private:
  void* data_;
  std::size_t room_;
};

}  // namespace poolwise
