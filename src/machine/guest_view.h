// GuestView: memory as a vCPU's program sees it, or as the board has it, for debuggers and monitors. Main executor's
// thread, while the machine stands still.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "machine/machine.h"

namespace kite::machine {

class GuestView {
 public:
  explicit GuestView(Machine& machine) : machine_(machine) {}

  // Addresses are guest-physical from now on, or linear again.
  void set_physical(bool physical) { physical_ = physical; }
  [[nodiscard]] bool physical() const { return physical_; }

  // How many bytes from `address` on could be read or written: fewer where a page or the memory behind it is not there.
  // Devices are accessed as the guest would; ROM is written.
  size_t read(size_t vcpu, uint64_t address, std::span<uint8_t> to);
  size_t write(size_t vcpu, uint64_t address, std::span<const uint8_t> from);
  // Nothing: no page is there.
  std::optional<Gpa> translate(size_t vcpu, uint64_t address);
  // One byte of memory, wherever it is mapped. False: there is none.
  bool read_physical(size_t vcpu, Gpa address, uint8_t& byte);
  bool write_physical(size_t vcpu, Gpa address, uint8_t byte);

 private:
  AddressSpace& memory_of(size_t vcpu);
  template <class Move>
  size_t for_pages(size_t vcpu, uint64_t address, size_t bytes, const Move& move);
  bool move(AddressSpace& memory, Gpa address, std::span<uint8_t> bytes, bool write);

  Machine& machine_;
  bool physical_ = false;
};

}  // namespace kite::machine
