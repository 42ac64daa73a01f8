// PageStock: memory that a thread of its own makes ready before it is wanted. Who touches a page first waits until the
// host has cleared it, and for milliseconds a huge page where the host is a guest itself and gets its memory on demand;
// most of the work of a vCPU is done while other processors of the host are idle.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <mutex>
#include <thread>
#include <vector>

namespace kite {

// Any thread. Nothing depends on the thread being in time: what is not ready is made by who wants it.
class PageStock {
 public:
  static constexpr size_t kAhead = 2;  // huge pages that are kept ready once there is a demand

  // Of the process. The thread starts when there is something to do.
  static PageStock& instance();
  PageStock() = default;
  ~PageStock();
  PageStock(const PageStock&) = delete;
  PageStock& operator=(const PageStock&) = delete;

  // A huge page (kHugePageSize) of any contents, to be freed by std::free(); throws std::bad_alloc.
  std::byte* take();
  // Makes [page, page + kHugePageSize) of shared memory a huge page, which is mapped for writing at `to_write`, too.
  // Both stay mapped until forget().
  void collapse(std::byte* to_write, const std::byte* page);
  // Nothing is done to [start, start + bytes) from now on.
  void forget(const std::byte* start, size_t bytes);
  // Somebody will ask allocate_low() for so many bytes.
  void prepare_low(size_t bytes);
  // What has been prepared; null: nothing of that size.
  void* take_low(size_t bytes);

 private:
  struct Collapse {
    std::byte* to_write;
    const std::byte* page;
  };
  struct Low {
    void* memory;
    size_t bytes;
  };

  void wake();
  void work();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::thread thread_;
  bool ends_ = false, is_wanted_ = false;
  std::vector<std::byte*> ready_;
  std::deque<Collapse> collapses_;
  const std::byte* collapsing_ = nullptr;
  std::deque<size_t> low_wanted_;
  size_t preparing_low_ = 0;
  std::vector<Low> low_;
};

}  // namespace kite
