// What a CD/DVD-ROM drive answers to the commands of the multi-media command set, as bytes: one place for ATAPI and for
// SCSI. Pure functions of a small state; the caller moves the bytes, cut to the command's allocation length, and keeps
// the state. [MMC-6]; audio and mechanical leftovers from [MMC-3].
//
// The disc is one session of one data track (mode 1, 2048 bytes a sector), a CD when it fits on one, else a DVD.
#pragma once

#include <array>
#include <cstdint>
#include <expected>
#include <span>
#include <vector>

#include "devices/storage/scsi_codes.h"

namespace kite::devices::mmc {

inline constexpr uint32_t kSectorBytes = 2048;
inline constexpr uint32_t kRawSectorBytes = 2352;
inline constexpr uint64_t kLargestCd = 80 * 60 * 75;  // sectors

// What the answers depend on.
struct Drive {
  bool medium = false;     // a disc is in and the tray is closed
  bool tray_open = false;  // or the disc is gone
  bool locked = false;     // PREVENT MEDIUM REMOVAL
  uint64_t sectors = 0;    // of 2048 bytes; 0 without a medium
  enum class Interface : uint8_t { kScsi = 1, kAtapi = 2 } interface = Interface::kScsi;
};
[[nodiscard]] inline bool is_cd(const Drive& drive) { return drive.medium && drive.sectors <= kLargestCd; }
[[nodiscard]] inline bool is_dvd(const Drive& drive) { return drive.medium && drive.sectors > kLargestCd; }

// Media events of GET EVENT STATUS NOTIFICATION. [MMC-6] table 267.
enum class MediaEvent : uint8_t { kNone = 0, kEjectRequest = 1, kNewMedia = 2, kMediaRemoval = 3 };

using Cdb = std::span<const uint8_t>;  // at least 12 bytes, or the whole of what the transport carries padded to 12
using Answer = std::expected<std::vector<uint8_t>, ScsiSense>;

// Why a command that reads the disc cannot now; kNone when it can.
[[nodiscard]] ScsiSense not_ready(const Drive& drive);

Answer read_capacity(const Drive& drive);                            // 25h
Answer read_sub_channel(Cdb cdb, const Drive& drive);                // 42h
Answer read_toc(Cdb cdb, const Drive& drive);                        // 43h
Answer get_configuration(Cdb cdb, const Drive& drive);               // 46h
Answer event_status(Cdb cdb, const Drive& drive, MediaEvent event);  // 4ah
Answer disc_information(Cdb cdb, const Drive& drive);                // 51h
Answer track_information(Cdb cdb, const Drive& drive);               // 52h
Answer get_performance(Cdb cdb, const Drive& drive);                 // ach
Answer disc_structure(Cdb cdb, const Drive& drive);                  // adh
Answer mechanism_status(const Drive& drive);                         // bdh
// True when GET EVENT STATUS asks for media events, which then have been told.
[[nodiscard]] bool tells_media_event(Cdb cdb);

// The mode pages that a page code (3fh: all) and a page control (0 current, 1 changeable, 2 default) ask for, without
// the header before them. Nothing is changeable. kInvalidField: no such page. [MMC-6] 7.
Answer mode_pages(uint8_t page, uint8_t control, const Drive& drive);
// [MMC-3] 5.5.1: the medium type code of the mode parameter header.
[[nodiscard]] uint8_t medium_type(const Drive& drive);

// READ CD and READ CD MSF, taken apart. The caller reads `sectors` sectors of 2048 bytes from `first` and lets frame()
// make each into sector_bytes; 0 sector_bytes: nothing is transferred.
struct ReadCd {
  uint32_t first = 0, sectors = 0;
  bool sync = false, header = false, data = false, ecc = false;
  [[nodiscard]] uint32_t sector_bytes() const {
    return (sync ? 12u : 0) + (header ? 4u : 0) + (data ? kSectorBytes : 0) + (ecc ? 288u : 0);
  }
};
std::expected<ReadCd, ScsiSense> parse_read_cd(Cdb cdb, const Drive& drive);  // b9h, beh
// `to` is what.sector_bytes() long.
void frame(const ReadCd& what, uint32_t sector, std::span<const uint8_t, kSectorBytes> data, std::span<uint8_t> to);

// The whole raw sector of a mode 1 data sector: sync, address, data, EDC and ECC. [ECMA-130] 14, annex A and B.
std::array<uint8_t, kRawSectorBytes> raw_sector(uint32_t sector, std::span<const uint8_t, kSectorBytes> data);

// Minute, second, frame of a sector's absolute address (two seconds of lead-in before sector 0). [MMC-6] 4.2.3.
std::array<uint8_t, 3> to_msf(uint64_t sector);

}  // namespace kite::devices::mmc
