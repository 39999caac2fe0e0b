#include "cache.h"

#include <sys/mman.h>

#include <cstdint>
#include <mutex>
#include <new>
#include <vector>

#include "threads.h"

namespace poolwise {
namespace {

constexpr std::size_t page = std::size_t(2) << 20;
constexpr std::size_t most_kept = std::size_t(256) << 20;  // bytes, of all blocks
constexpr std::size_t most_blocks = 32;
constexpr std::size_t most_warm = std::size_t(32) << 20;  // bytes of the newest blocks, which the system may not take: giving them up has its price

struct Block {
  void* data;
  std::size_t room;
  bool is_offered = false;  // to the system, while nobody uses it
};

void release(const Block& block) { munmap(block.data, block.room); }

// Aligned to a large page: what is mapped too much is unmapped again.
Block mapped(std::size_t room) {
  void* all = mmap(nullptr, room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (all == MAP_FAILED) throw std::bad_alloc();
  const auto begin = reinterpret_cast<std::uintptr_t>(all), data = (begin + page - 1) / page * page;
  if (data > begin) munmap(all, data - begin);
  if (begin + page > data) munmap(reinterpret_cast<void*>(data + room), begin + page - data);
  advise_huge_pages(reinterpret_cast<void*>(data), room);
  return {reinterpret_cast<void*>(data), room};
}

// Blocks that nobody uses, the oldest first. Who finds it locked goes without it: a process that was forked while another thread
// held the lock never sees it open. Never destroyed: arrays may still be freed while the process exits.
class Shelf {
 public:
  Shelf() { blocks_.reserve(most_blocks); }
  void clear() {
    const std::unique_lock hold(guard_, std::try_to_lock);
    if (!hold) return;
    for (const Block& block : blocks_) release(block);
    blocks_.clear();
    kept_ = 0;
  }
  bool take(std::size_t room, Block& block) {
    const std::unique_lock hold(guard_, std::try_to_lock);
    if (!hold) return false;
    for (std::size_t i = blocks_.size(); i-- > 0;) {
      if (blocks_[i].room < room || blocks_[i].room > room + room / 4) continue;
      block = {blocks_[i].data, blocks_[i].room};
      blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(i));
      kept_ -= block.room;
      return true;
    }
    return false;
  }
  void put(const Block& block) {
    if (block.room > most_kept) return release(block);
    const std::unique_lock hold(guard_, std::try_to_lock);
    if (!hold) return release(block);
    while (!blocks_.empty() && (kept_ + block.room > most_kept || blocks_.size() == most_blocks)) {
      kept_ -= blocks_.front().room;
      release(blocks_.front());
      blocks_.erase(blocks_.begin());
    }
    blocks_.push_back(block);
    kept_ += block.room;
    offer();
  }

 private:
  // All but the newest blocks to the system.
  void offer() {
#if defined(MADV_FREE)
    std::size_t warm = 0;
    for (std::size_t i = blocks_.size(); i-- > 0;) {
      warm += blocks_[i].room;
      if (warm <= most_warm || blocks_[i].is_offered) continue;
      madvise(blocks_[i].data, blocks_[i].room, MADV_FREE);
      blocks_[i].is_offered = true;
    }
#endif
  }

  std::mutex guard_;
  std::vector<Block> blocks_;
  std::size_t kept_ = 0;
};

Shelf& shelf() {
  static Shelf* the_shelf = new Shelf;
  return *the_shelf;
}

}  // namespace

Lent::Lent(std::size_t bytes) {
  if (bytes > SIZE_MAX / 2) throw std::bad_alloc();
  const std::size_t room = bytes == 0 ? page : (bytes + page - 1) / page * page;
  Block block{};
  if (!shelf().take(room, block)) {
    try {
      block = mapped(room);
    } catch (const std::bad_alloc&) {
      shelf().clear();
      block = mapped(room);
    }
  }
  data_ = block.data, room_ = block.room;
}

Lent::~Lent() { shelf().put({data_, room_}); }

}  // namespace poolwise
