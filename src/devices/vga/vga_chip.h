// The registers of a VGA and of Bochs' display interface, and what the CPU's accesses to the window at A0000 do to its
// memory. A pure chip: no lock, no bus, no clock. References in vga_regs.h.
//
// A byte of plane p at address g is byte 4 * g + p of the memory: then the frame buffer that 8-bit modes show to the
// CPU in a row, chain-4 mode and the linear frame buffer are the same bytes.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>

#include "devices/vga/vga_regs.h"
#include "memory/ram_block.h"

namespace kite::devices {

struct VgaState {
  uint8_t misc = 0, feature = 0, enable = 0;
  uint8_t sequencer_index = 0, crtc_index = 0, graphics_index = 0, attribute_index = 0;
  bool attribute_data = false;  // the next write to 3C0 is data
  std::array<uint8_t, 8> sequencer{};
  std::array<uint8_t, vga_regs::kCrtcRegisters> crtc{};
  std::array<uint8_t, vga_regs::kGraphicsRegisters> graphics{};
  std::array<uint8_t, vga_regs::kAttributeRegisters> attribute{};
  uint8_t status1 = 0;
  uint32_t latch = 0;  // a byte a plane
  uint8_t dac_mask = 0xff, dac_state = 0, dac_read = 0, dac_write = 0;
  uint8_t dac_component = 0;           // 0 red .. 2 blue: the next to be read or written
  std::array<uint8_t, 3> dac_latch{};  // written, and not yet taken
  std::array<uint8_t, 768> dac{};      // as written: 6 bits, or 8 with k8BitDac
  uint16_t dispi_index = 0;
  std::array<uint16_t, vga_regs::kDispiRegisters> dispi{vga_regs::kNewestId};
  bool big_endian = false;
  bool operator==(const VgaState&) const = default;

  [[nodiscard]] bool dispi_on() const { return (dispi[vga_regs::kDispiEnable] & vga_regs::kEnabled) != 0; }
  // The window and the picture are plain bytes, not planes.
  [[nodiscard]] bool dispi_linear() const { return dispi_on() && dispi[vga_regs::kBpp] > 4; }
};

class VgaChip {
 public:
  explicit VgaChip(std::shared_ptr<RamBlock> memory);

  void reset();
  // Ports 3B0 to 3DF, a byte each.
  uint8_t read_port(uint16_t port);
  void write_port(uint16_t port, uint8_t value);
  uint16_t read_dispi(uint16_t index) const;
  void write_dispi(uint16_t index, uint16_t value);
  // [DISPI] The two ports as 0 (index) and 1 (data).
  uint16_t read_dispi_port(unsigned port) const;
  void write_dispi_port(unsigned port, uint16_t value);
  void set_big_endian(bool on) { state_.big_endian = on; }
  // A byte of the window; `offset` is from A0000.
  uint8_t read_window(uint64_t offset);
  void write_window(uint64_t offset, uint8_t value);

  [[nodiscard]] const VgaState& state() const { return state_; }
  [[nodiscard]] static bool possible(const VgaState& state, uint64_t memory_bytes);
  void set_state(const VgaState& state) { state_ = state; }
  [[nodiscard]] const std::shared_ptr<RamBlock>& memory() const { return memory_; }

 private:
  // Where a byte of the window lies.
  struct Place {
    uint64_t group;  // address within the planes
    uint8_t planes;  // those that a write reaches by the way of addressing
    uint8_t plane;   // that a read answers
  };
  [[nodiscard]] bool answers(uint16_t port) const;
  uint8_t read_dac();
  void write_dac(uint8_t value);
  void write_attribute(uint8_t value);
  void write_crtc(uint8_t value);
  void write_sequencer(uint8_t value);
  void write_graphics(uint8_t value);
  void enable_dispi(uint16_t value);
  [[nodiscard]] std::optional<uint64_t> in_window(uint64_t offset) const;
  [[nodiscard]] std::optional<Place> place(uint64_t offset, bool write) const;
  [[nodiscard]] uint32_t data_for(uint8_t value, uint32_t latch) const;
  void put_linear(uint64_t at, uint8_t value);

  std::shared_ptr<RamBlock> memory_;
  VgaState state_;
};

}  // namespace kite::devices
