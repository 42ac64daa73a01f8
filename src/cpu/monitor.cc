#include "cpu/monitor.h"

#include <utility>

#include "accel/vcpu.h"

namespace kite::cpu {

void Monitor::arm(std::shared_ptr<RamBlock> block, uint64_t offset, std::atomic<uint32_t>& requests) {
  disarm();
  block_ = std::move(block);
  requests_ = &requests;
  armed_.store(true, std::memory_order_release);
  block_->watch_page(offset, *this);
}

void Monitor::disarm() {
  if (block_ != nullptr) block_->unwatch_page(*this);
  block_.reset();
  armed_.store(false, std::memory_order_release);
}

void Monitor::stored() {
  armed_.store(false, std::memory_order_release);
  requests_->fetch_or(request::kStored, std::memory_order_seq_cst);
  requests_->notify_all();
}

}  // namespace kite::cpu
