// What a VGA shows: its registers and memory as pixels. Reads the memory while the guest may write it; nothing that it
// finds there or in the registers leads outside of it.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "devices/vga/vga_chip.h"
#include "display/console.h"

namespace kite::devices {

class VgaPicture {
 public:
  explicit VgaPicture(std::shared_ptr<RamBlock> memory) : memory_(std::move(memory)) {}

  struct Phases {
    bool cursor = true, text = true;  // what blinks is to be seen
    bool operator==(const Phases&) const = default;
  };
  // `dirty`: a bit for each page written since the last call; null: unknown, everything is drawn.
  display::Mode draw(const VgaState& state, Phases phases, const std::vector<uint64_t>* dirty,
                     display::Surface& surface);

 private:
  // A mode of the VGA itself; lengths in dots, addresses in groups of the four planes.
  struct Raster {
    bool text, packed, interleaved;
    uint32_t columns, cell_width;  // a column: a character, or eight dots
    bool wide;                     // every dot twice
    uint32_t width, height, max_scan;
    bool double_scan;
    uint32_t start, pitch, line_compare;
    uint8_t row_bits;   // bits of the row scan that replace address bits 13 and 14 (kRow13, kRow14)
    uint8_t row_shift;  // from which address bit on
    uint32_t pan, preset_scan;
  };
  struct Line {
    uint32_t address, scan, pan;
    bool operator==(const Line&) const = default;
  };
  static std::optional<Raster> raster_of(const VgaState& state);
  void load_palette();
  [[nodiscard]] uint32_t color(unsigned index) const;
  [[nodiscard]] uint32_t group(uint32_t address) const;  // 64 Ki of them, wrapping
  void draw_raster(const Raster& raster, display::Surface& surface);
  void draw_line(const Raster& raster, const Line& line);
  void draw_cell(const Raster& raster, uint32_t address, uint32_t scan, uint32_t* to) const;
  void draw_dots(const Raster& raster, uint32_t group, uint32_t* to) const;
  void draw_linear(bool all, const std::vector<uint64_t>* dirty, display::Surface& surface);
  void draw_linear_row(std::span<const uint8_t> from, uint32_t width);

  std::shared_ptr<RamBlock> memory_;
  VgaState state_;  // as drawn last
  Phases phases_;
  bool drawn_ = false;
  std::array<uint32_t, 256> dac_{};     // as xRGB
  std::array<uint32_t, 16> palette_{};  // through the attribute controller
  std::vector<uint32_t> line_;          // scratch
};

}  // namespace kite::devices
