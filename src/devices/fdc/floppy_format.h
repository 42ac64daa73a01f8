// Floppy disk drives and the formats of the disks that go into them.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace kite::devices {

enum class FloppyType : uint8_t { kNone, k120, k144, k288 };  // 5.25" of 1.2M; 3.5" of 1.44M, 2.88M

struct FloppyFormat {
  FloppyType drive;
  uint8_t sectors, cylinders, heads;
  uint8_t rate;  // as DSR: 0 500 kbit/s, 1 300, 2 250, 3 1000
  [[nodiscard]] uint32_t blocks() const { return uint32_t{sectors} * cylinders * heads; }
};

// The format of a disk of so many bytes, in a drive of that type (kNone: of any type).
std::optional<FloppyFormat> find_floppy_format(uint64_t bytes, FloppyType type);
// What a drive is made for. `type` is none of kNone.
FloppyFormat usual_floppy_format(FloppyType type);
// "120", "144", "288"; "auto" and "none" are kNone.
FloppyType parse_floppy_type(std::string_view text);
// A drive's half of the CMOS byte 0x10: 0 none, 2 1.2M, 4 1.44M, 5 2.88M.
uint8_t cmos_floppy_type(FloppyType type);

}  // namespace kite::devices
