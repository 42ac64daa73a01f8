#include "support/page_stock.h"

#include <pthread.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <system_error>

#include "support/huge_pages.h"
#include "support/low_memory.h"

#ifndef MADV_POPULATE_WRITE  // Linux 5.14
#define MADV_POPULATE_WRITE 23
#endif

namespace kite {
namespace {

constexpr size_t kPageOfHost = 4096;

// A wish, as all of it.
void populate(void* memory, size_t bytes) { ::madvise(memory, bytes, MADV_POPULATE_WRITE); }

}  // namespace

PageStock& PageStock::instance() {
  static PageStock stock;
  return stock;
}

PageStock::~PageStock() {
  {
    const std::lock_guard lock(mutex_);
    ends_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  for (std::byte* const page : ready_) std::free(page);
  for (const Low& piece : low_) free_low(piece.memory, piece.bytes);
}

// Under the lock. Where the host has no thread to give, nothing is made ready.
void PageStock::wake() {
  try {
    if (!thread_.joinable()) thread_ = std::thread([this] { work(); });
  } catch (const std::system_error&) {
    collapses_.clear();
    low_wanted_.clear();
  }
  changed_.notify_all();
}

std::byte* PageStock::take() {
  std::byte* page = nullptr;
  {
    const std::lock_guard lock(mutex_);
    is_wanted_ = true;
    if (!ready_.empty()) {
      page = ready_.back();
      ready_.pop_back();
    }
    wake();
  }
  return page != nullptr ? page : static_cast<std::byte*>(allocate_in_huge_pages(kHugePageSize));
}

void PageStock::collapse(std::byte* to_write, const std::byte* page) {
  const std::lock_guard lock(mutex_);
  collapses_.push_back({to_write, page});
  wake();
}

void PageStock::forget(const std::byte* start, size_t bytes) {
  const auto is_there = [&](const std::byte* page) { return page >= start && page < start + bytes; };
  std::unique_lock lock(mutex_);
  std::erase_if(collapses_, [&](const Collapse& one) { return is_there(one.page); });
  changed_.wait(lock, [&] { return collapsing_ == nullptr || !is_there(collapsing_); });
}

void PageStock::prepare_low(size_t bytes) {
  const std::lock_guard lock(mutex_);
  low_wanted_.push_back(bytes);
  wake();
}

void* PageStock::take_low(size_t bytes) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return preparing_low_ != bytes; });
  if (const auto found = std::ranges::find(low_, bytes, &Low::bytes); found != low_.end()) {
    void* const memory = found->memory;
    low_.erase(found);
    return memory;
  }
  // It is no use any more.
  if (const auto wish = std::ranges::find(low_wanted_, bytes); wish != low_wanted_.end()) low_wanted_.erase(wish);
  return nullptr;
}

void PageStock::work() {
  ::pthread_setname_np(::pthread_self(), "pages");
  std::unique_lock lock(mutex_);
  while (!ends_) {
    if (!collapses_.empty()) {
      const Collapse wish = collapses_.front();
      collapses_.pop_front();
      collapsing_ = wish.page;
      lock.unlock();
      populate(wish.to_write, kPageOfHost);  // of nothing at all, no huge page is made
      collapse_to_huge_page(wish.page);
      lock.lock();
      collapsing_ = nullptr;
      changed_.notify_all();
    } else if (!low_wanted_.empty()) {
      const size_t bytes = low_wanted_.front();
      low_wanted_.pop_front();
      preparing_low_ = bytes;
      lock.unlock();
      void* const memory = map_low(bytes);
      if (memory != nullptr) populate(memory, bytes);
      lock.lock();
      if (memory != nullptr) low_.push_back({memory, bytes});
      preparing_low_ = 0;
      changed_.notify_all();
    } else if (is_wanted_ && ready_.size() < kAhead) {
      lock.unlock();
      auto* const page = static_cast<std::byte*>(std::aligned_alloc(kHugePageSize, kHugePageSize));
      if (page != nullptr) {
        prefer_huge_pages(page, kHugePageSize);
        populate(page, kHugePageSize);
      }
      lock.lock();
      if (page != nullptr)
        ready_.push_back(page);
      else
        is_wanted_ = false;  // until somebody asks again
    } else {
      changed_.wait(lock);
    }
  }
}

}  // namespace kite
