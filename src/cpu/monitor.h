// What MONITOR watches: one page of guest RAM (the line is as large as the page; waking up too often is allowed). A
// store by any CPU or device ends the watch and, through the request word, an MWAIT. Internal to cpu/.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "memory/ram_block.h"

namespace kite::cpu {

class Monitor final : public StoreWatch {
 public:
  Monitor() = default;
  ~Monitor() override { disarm(); }
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;

  // vCPU thread. Stores from now on set request::kStored in `requests`, which outlives the watch.
  void arm(std::shared_ptr<RamBlock> block, uint64_t offset, std::atomic<uint32_t>& requests);
  void disarm();
  // Whether a watch is set and nothing has been stored since.
  [[nodiscard]] bool armed() const { return armed_.load(std::memory_order_acquire); }

 private:
  void stored() override;

  std::shared_ptr<RamBlock> block_;
  std::atomic<uint32_t>* requests_ = nullptr;
  std::atomic<bool> armed_{false};
};

}  // namespace kite::cpu
