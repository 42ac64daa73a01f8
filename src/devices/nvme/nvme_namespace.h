// An NVMe namespace: a drive with a format. As nvme-ns it is a device on a controller's bus; the controller's own
// `drive` makes one too.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>

#include "bus/device.h"
#include "devices/storage/disk.h"
#include "support/result.h"

namespace kite::devices {

class NvmeNamespace final : public bus::Device {
 public:
  static constexpr uint32_t kMostNamespaces = 256;
  static constexpr unsigned kFormats = 2;  // blocks of 512 bytes, of 4096 bytes
  struct Identity {
    uint32_t nsid = 0;  // 1 .. kMostNamespaces
    uint64_t eui64 = 0;
    std::array<uint8_t, 16> uuid{};  // all zero: none
  };
  // Refuses a drive without a medium and block sizes that have no format. `what` is the type, for messages.
  static Result<std::unique_ptr<NvmeNamespace>> create(std::string_view what, std::string path, const DiskConfig& disk,
                                                       const Identity& identity);

  void reset() override {}  // a format lasts
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  [[nodiscard]] uint32_t nsid() const { return identity_.nsid; }
  [[nodiscard]] const Identity& identity() const { return identity_; }
  [[nodiscard]] block::Drive& drive() const { return *disk_.drive; }
  [[nodiscard]] const DiskConfig& disk() const { return disk_; }
  // Any thread. In blocks of the present format.
  [[nodiscard]] unsigned format() const { return format_.load(std::memory_order_acquire); }
  [[nodiscard]] unsigned block_shift() const { return shift_of(format()); }
  [[nodiscard]] uint64_t blocks() const { return drive().length() >> block_shift(); }
  [[nodiscard]] static unsigned shift_of(unsigned format) { return format == 0 ? 9 : 12; }
  void set_format(unsigned format) { format_.store(static_cast<uint8_t>(format), std::memory_order_release); }
  // The IDENTIFY structure of this namespace. [NVMe 1.4] 5.15.2.1.
  void identify(std::array<uint8_t, 4096>& data) const;
  // Namespace identification descriptors. [NVMe 1.4] 5.15.2.4.
  void describe(std::array<uint8_t, 4096>& data) const;

 private:
  NvmeNamespace(std::string path, const DiskConfig& disk, const Identity& identity, unsigned format);

  // Static configuration.
  const DiskConfig disk_;
  const Identity identity_;

  // State.
  std::atomic<uint8_t> format_;
};

// An identifier made from what tells one namespace from others; the same in every run.
uint64_t make_eui64(std::string_view serial, uint32_t nsid);

}  // namespace kite::devices
