// One SCSI command between a transport (a controller) and a logical unit. [SAM-5] 5.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "block/io.h"
#include "devices/storage/scsi_codes.h"

namespace kite::devices {

// Where a logical unit is on its bus.
struct ScsiAddress {
  uint32_t channel = 0, id = 0, lun = 0;
  bool operator==(const ScsiAddress&) const = default;
};

// The longest command any unit here knows has 16 bytes; transports carry more, which no command uses.
inline constexpr size_t kCdbBytes = 16;
using Cdb = std::array<uint8_t, kCdbBytes>;

enum class ScsiDirection : uint8_t { kNone, kToGuest, kFromGuest };

// What a CDB asks to move: the allocation length, the parameter list's length, or the blocks' bytes.
struct ScsiTransfer {
  ScsiDirection direction = ScsiDirection::kNone;
  uint64_t bytes = 0;
};

struct ScsiCommand {
  Cdb cdb{};         // padded with zeroes
  uint64_t tag = 0;  // names the task to task management functions; unique among a unit's as the guest pleases
  // Where data goes to or comes from; at least as long as transfer_of() said, and alive until the task has ended.
  block::IoSlice data_in, data_out;
};

struct ScsiReply {
  ScsiStatus status = ScsiStatus::kGood;
  ScsiSense sense{};        // with kCheckCondition
  bool descriptor = false;  // the format in which the unit's control page wants sense data
  bool aborted = false;     // a task management function or a reset ended it: the guest gets no status
  uint64_t moved = 0;       // bytes of data_in that were filled, or of data_out that were taken
};

[[nodiscard]] inline ScsiReply refuse(ScsiSense sense) {
  return {.status = ScsiStatus::kCheckCondition, .sense = sense};
}

// Sense data as it goes to the guest: 18 bytes of fixed or 8 of descriptor format. [SPC-4] 4.5.2, 4.5.3.
[[nodiscard]] std::vector<uint8_t> sense_bytes(ScsiSense sense, bool descriptor);
// Response codes of current errors.
inline constexpr uint8_t kFixedSense = 0x70, kDescriptorSense = 0x72;

}  // namespace kite::devices
