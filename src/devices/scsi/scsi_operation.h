// One row of a unit's command table: what the command is, what it moves, what must hold before it runs, and who does
// it.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>

#include "async/task.h"
#include "devices/scsi/scsi_command.h"

namespace kite::devices {

class ScsiDevice;

// A command on its way; on the frame of ScsiDevice::execute().
struct ScsiJob {
  ScsiCommand command;
  uint64_t number = 0;               // counts a unit's commands
  std::atomic<bool> aborted{false};  // its I/O that waits is to end, and nobody wants its status
  [[nodiscard]] const uint8_t* cdb() const { return command.cdb.data(); }
};

// Where a CDB has its length.
enum class ScsiAmount : uint8_t {
  kNone,
  kByte4,  // one byte at 4
  kHalf3,  // two bytes at 3, 7, 8
  kHalf7,
  kHalf8,
  kWord6,  // four bytes at 6, 10
  kWord10,
  kEight,    // always eight bytes
  kBlocks,   // blocks, where CDBs of this length have them
  kSpecial,  // ScsiDevice::special_transfer()
};

struct ScsiOperation {
  enum Flag : uint8_t {
    kThroughAttention = 1,  // runs although a unit attention is pending, which stays
    kNeedsMedium = 2,
    kWrites = 4,
  };
  static constexpr uint8_t kNoAction = 0xff;

  uint8_t opcode = 0;
  uint8_t action = kNoAction;  // service action
  uint8_t cdb_bytes = 6;
  ScsiDirection direction = ScsiDirection::kNone;
  ScsiAmount amount = ScsiAmount::kNone;
  uint8_t flags = 0;
  // The bits of the CDB that are looked at. [SPC-4] 6.27.3.
  std::array<uint8_t, kCdbBytes> usage{};
  // One of them. `quick` runs with the unit's lock held, `slow` without.
  ScsiReply (ScsiDevice::*quick)(const ScsiJob& job) = nullptr;
  Task<ScsiReply> (ScsiDevice::*slow)(const ScsiJob& job) = nullptr;

  [[nodiscard]] bool has(Flag flag) const { return (flags & flag) != 0; }
};

}  // namespace kite::devices
