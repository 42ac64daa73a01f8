// pc-testdev: the test device of kvm-unit-tests and of QEMU's endianness test.
//
//   0xe0-0xe3          a 32-bit latch; any size at any offset
//   0xe4               a 32-bit write names a physical address whose page accelerators are to forget and map again
//   0xe8-0xeb          the same latch, reached one byte at a time whatever the access's size
//   0x2000-0x2017      a write drives interrupt line (port - 0x2000): high when its first byte is not 0
//   0xff000000         64 KiB of RAM-like memory
#pragma once

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>

#include "bus/device.h"
#include "bus/irq_line.h"
#include "devices/io_window.h"
#include "memory/guest_types.h"
#include "support/result.h"

namespace kite::devices {

class PcTestdev final : public bus::Device {
 public:
  static constexpr unsigned kLines = 24;
  static constexpr uint16_t kLatchPort = 0xe0;      // 4 bytes
  static constexpr uint16_t kFlushPort = 0xe4;      // 4 bytes
  static constexpr uint16_t kByteLatchPort = 0xe8;  // 4 bytes
  static constexpr uint16_t kLinePort = 0x2000;     // 24 bytes
  static constexpr Gpa kMemoryAddress = 0xff000000;
  static constexpr uint64_t kMemorySize = 0x10000;

  struct Wiring {
    std::array<bus::IrqLine, kLines> lines;  // one a global system interrupt
    std::function<void(Gpa page)> flush;     // called with no lock held, on the writing vCPU's thread
  };
  // Fails only when the host has no memory.
  static Result<std::unique_ptr<PcTestdev>> create(std::string path, Wiring wiring);
  ~PcTestdev() override;

  void reset() override;
  void save(StateWriter& writer) override;
  void restore(StateReader& reader) override;

  [[nodiscard]] const std::shared_ptr<Region>& latch_region() const { return latch_region_; }
  [[nodiscard]] const std::shared_ptr<Region>& flush_region() const { return flush_region_; }
  [[nodiscard]] const std::shared_ptr<Region>& byte_latch_region() const { return byte_latch_region_; }
  [[nodiscard]] const std::shared_ptr<Region>& line_region() const { return line_region_; }
  [[nodiscard]] const std::shared_ptr<Region>& memory_region() const { return memory_region_; }

 private:
  PcTestdev(std::string path, Wiring wiring, std::shared_ptr<RamBlock> memory);

  uint64_t read_latch(uint64_t offset, unsigned size);
  void write_latch(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_flush(uint64_t offset, unsigned size);
  void write_flush(uint64_t offset, unsigned size, uint64_t value);
  uint64_t read_line(uint64_t offset, unsigned size);
  void write_line(uint64_t offset, unsigned size, uint64_t value);
  void drive_lines(uint32_t levels);  // lock_ held

  // Wiring.
  Wiring wiring_;
  IoWindow<PcTestdev> latch_, flush_, lines_;
  std::shared_ptr<Region> latch_region_, flush_region_, byte_latch_region_, line_region_, memory_region_;

  // State, with the bytes of memory_.
  struct State {
    uint32_t latch = 0;
    uint32_t levels = 0;  // one bit a line
  };
  std::mutex lock_;
  State state_;
  std::shared_ptr<RamBlock> memory_;
};

}  // namespace kite::devices
