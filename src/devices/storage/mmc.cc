#include "devices/storage/mmc.h"

#include <algorithm>

#include "support/bytes.h"

namespace kite::devices::mmc {
namespace {

constexpr uint8_t kDataTrack = 0x14;  // ADR 1: position; control 4: data, uninterrupted
constexpr uint8_t kLeadOut = 0xaa;
constexpr uint32_t kPregap = 150;               // sectors before sector 0
constexpr uint16_t kReadSpeed = 50 * 176;       // kB/s
constexpr uint32_t kDvdFirstSector = 0x030000;  // physical number of logical sector 0

std::unexpected<ScsiSense> refuse(ScsiSense sense) { return std::unexpected(sense); }

// Bytes that grow, big-endian.
class Builder {
 public:
  Builder& u8(unsigned value) {
    bytes_.push_back(static_cast<uint8_t>(value));
    return *this;
  }
  Builder& u16(unsigned value) { return u8(value >> 8).u8(value & 0xff); }
  Builder& u32(uint64_t value) {
    return u16(static_cast<unsigned>(value >> 16 & 0xffff)).u16(static_cast<unsigned>(value & 0xffff));
  }
  Builder& zeroes(size_t count) {
    bytes_.resize(bytes_.size() + count);
    return *this;
  }
  Builder& append(std::span<const uint8_t> more) {
    bytes_.insert(bytes_.end(), more.begin(), more.end());
    return *this;
  }
  // The address of a sector as the command wants it: a number, or reserved, minute, second, frame.
  Builder& address(uint64_t sector, bool msf) { return msf ? u8(0).append(to_msf(sector)) : u32(sector); }
  // Sets the length in front, which counts what comes after it.
  std::vector<uint8_t> with_length16() {
    store_be16(bytes_.data(), static_cast<uint16_t>(bytes_.size() - 2));
    return std::move(bytes_);
  }
  std::vector<uint8_t> take() { return std::move(bytes_); }

 private:
  std::vector<uint8_t> bytes_;
};

}  // namespace

std::array<uint8_t, 3> to_msf(uint64_t sector) {
  const uint64_t frames = std::min<uint64_t>(sector + kPregap, 256 * 60 * 75 - 1);
  return {static_cast<uint8_t>(frames / (60 * 75)), static_cast<uint8_t>(frames / 75 % 60),
          static_cast<uint8_t>(frames % 75)};
}

ScsiSense not_ready(const Drive& drive) {
  if (drive.medium) return sense::kNone;
  return drive.tray_open ? sense::kNoMediumTrayOpen : sense::kNoMediumTrayClosed;
}

Answer read_capacity(const Drive& drive) {
  if (!drive.medium) return refuse(not_ready(drive));
  return Builder().u32(std::min<uint64_t>(drive.sectors, 0xffffffff) - (drive.sectors != 0)).u32(kSectorBytes).take();
}

// [MMC-3] 6.39: no audio plays, ever.
Answer read_sub_channel(Cdb cdb, const Drive& drive) {
  if (!drive.medium) return refuse(not_ready(drive));
  constexpr uint8_t kNoAudio = 0x15;
  const bool msf = (cdb[1] & 2) != 0, sub_q = (cdb[2] & 0x40) != 0;
  Builder out;
  out.u8(0).u8(kNoAudio).u16(0);
  if (!sub_q) return out.take();
  out.u8(cdb[3]);
  switch (cdb[3]) {
    case 1: out.u8(kDataTrack).u8(1).u8(1).address(0, msf).address(0, msf); break;  // the current position
    case 2: out.zeroes(19); break;                                                  // no media catalogue number
    case 3: out.u8(kDataTrack).u8(1).zeroes(17); break;                             // no ISRC
    default: return refuse(sense::kInvalidField);
  }
  std::vector<uint8_t> bytes = out.take();
  store_be16(&bytes[2], static_cast<uint16_t>(bytes.size() - 4));
  return bytes;
}

// [MMC-6] 6.25.
Answer read_toc(Cdb cdb, const Drive& drive) {
  if (!drive.medium) return refuse(not_ready(drive));
  const bool msf = (cdb[1] & 2) != 0;
  const unsigned first = cdb[6];
  unsigned format = cdb[2] & 0x0f;
  if (format == 0) format = cdb[9] >> 6;  // where [SFF-8020i] has it
  Builder out;
  out.u16(0).u8(1).u8(1);  // one track, or session
  switch (format) {
    case 0:
      if (first > 1 && first != kLeadOut) return refuse(sense::kInvalidField);
      if (first <= 1) out.u8(0).u8(kDataTrack).u8(1).u8(0).address(0, msf);
      return out.u8(0).u8(kDataTrack).u8(kLeadOut).u8(0).address(drive.sectors, msf).with_length16();
    case 1: return out.u8(0).u8(kDataTrack).u8(1).u8(0).address(0, msf).with_length16();
    case 2: {
      // Points a0h and a1h: first and last track; a2h: the lead-out.
      const auto point = [&](uint8_t number, std::array<uint8_t, 3> place) {
        out.u8(1).u8(kDataTrack).u8(0).u8(number).zeroes(4).append(place);
      };
      point(0xa0, {1, 0, 0});
      point(0xa1, {1, 0, 0});
      point(0xa2, to_msf(drive.sectors));
      point(1, to_msf(0));
      return out.with_length16();
    }
    default: return refuse(sense::kInvalidField);
  }
}

namespace {

struct Feature {
  uint16_t code;
  uint8_t version;
  bool persistent, current;
  std::vector<uint8_t> data;
};

// [MMC-6] 5.3.
std::vector<Feature> features(const Drive& drive) {
  constexpr uint8_t kDvdRom = 0x10, kCdRom = 0x08;
  const bool cd = is_cd(drive), dvd = is_dvd(drive);
  return {
      {0x0000, 0, true, true, Builder().u16(kDvdRom).u8(dvd).u8(0).u16(kCdRom).u8(cd).u8(0).take()},
      {0x0001, 2, true, true, Builder().u32(static_cast<unsigned>(drive.interface)).u8(0x01).zeroes(3).take()},
      {0x0002, 1, true, true, Builder().zeroes(4).take()},
      {0x0003, 1, true, true, Builder().u8(0x39).zeroes(3).take()},  // a tray; loads, ejects, locks
      {0x0010, 0, false, drive.medium, Builder().u32(kSectorBytes).u16(dvd ? 16 : 1).u16(0).take()},
      {0x001d, 0, false, cd, {}},
      {0x001e, 2, false, cd, Builder().zeroes(4).take()},
      {0x001f, 1, false, dvd, Builder().zeroes(4).take()},
      {0x0100, 0, true, true, {}},
      {0x0105, 0, true, true, {}},
  };
}

}  // namespace

// [MMC-6] 6.6.
Answer get_configuration(Cdb cdb, const Drive& drive) {
  const unsigned wanted = cdb[1] & 3, start = load_be16(&cdb[2]);
  if (wanted == 3) return refuse(sense::kInvalidField);
  Builder out;
  out.u32(0).u16(0).u16(is_cd(drive) ? 0x08 : is_dvd(drive) ? 0x10 : 0);
  for (const Feature& feature : features(drive)) {
    if (wanted == 2 ? feature.code != start : feature.code < start) continue;
    if (wanted == 1 && !feature.current) continue;
    const unsigned flags =
        unsigned{feature.version} << 2 | unsigned{feature.persistent} << 1 | unsigned{feature.current};
    out.u16(feature.code).u8(flags).u8(static_cast<unsigned>(feature.data.size())).append(feature.data);
  }
  std::vector<uint8_t> bytes = out.take();
  store_be32(bytes.data(), static_cast<uint32_t>(bytes.size() - 4));
  return bytes;
}

namespace {
constexpr uint8_t kMediaClass = 4;
}

bool tells_media_event(Cdb cdb) { return (cdb[1] & 1) != 0 && (cdb[4] & 1 << kMediaClass) != 0; }

// [MMC-6] 6.7. Only polled, and only about the medium.
Answer event_status(Cdb cdb, const Drive& drive, MediaEvent event) {
  if ((cdb[1] & 1) == 0) return refuse(sense::kInvalidField);
  constexpr uint8_t kNoEventAvailable = 0x80;
  if (!tells_media_event(cdb)) return Builder().u16(0).u8(kNoEventAvailable).u8(1u << kMediaClass).with_length16();
  const unsigned status = unsigned{drive.tray_open} | unsigned{drive.medium} << 1;
  return Builder()
      .u16(0)
      .u8(kMediaClass)
      .u8(1u << kMediaClass)
      .u8(static_cast<unsigned>(event))
      .u8(status)
      .u16(0)
      .with_length16();
}

// [MMC-6] 6.21: a complete disc of one complete session.
Answer disc_information(Cdb cdb, const Drive& drive) {
  if ((cdb[1] & 7) != 0) return refuse(sense::kInvalidField);
  if (!drive.medium) return refuse(not_ready(drive));
  constexpr uint8_t kComplete = 0x0e, kUnrestrictedUse = 0x20;
  return Builder().u16(0).u8(kComplete).u8(1).u8(1).u8(1).u8(1).u8(kUnrestrictedUse).zeroes(26).with_length16();
}

// [MMC-6] 6.26.
Answer track_information(Cdb cdb, const Drive& drive) {
  if (!drive.medium) return refuse(not_ready(drive));
  const uint32_t number = load_be32(&cdb[2]);
  switch (cdb[1] & 3) {
    case 0:
      if (number >= drive.sectors) return refuse(sense::kOutOfRange);
      break;
    case 1:
    case 2:
      if (number != 1) return refuse(sense::kInvalidField);
      break;
    default: return refuse(sense::kInvalidField);
  }
  return Builder()
      .u16(0)
      .u8(1)  // track
      .u8(1)  // session
      .u8(0)
      .u8(0x4)  // a data track
      .u8(0x1)  // mode 1
      .u8(0)
      .u32(0)  // where it starts
      .zeroes(12)
      .u32(std::min<uint64_t>(drive.sectors, 0xffffffff))
      .zeroes(8)
      .with_length16();
}

// [MMC-6] 6.8: nominal performance, the same everywhere.
Answer get_performance(Cdb cdb, const Drive& drive) {
  constexpr uint8_t kTypePerformance = 0;
  const bool write = (cdb[1] & 4) != 0, exceptions = (cdb[1] & 3) != 0;
  if (cdb[10] != kTypePerformance) return refuse(sense::kInvalidField);
  if (!drive.medium) return refuse(not_ready(drive));
  Builder out;
  const bool tells = !write && !exceptions && load_be16(&cdb[8]) != 0;
  out.u32(tells ? 20 : 4).u8(cdb[1] & 7).zeroes(3);
  if (tells) out.u32(0).u32(kReadSpeed).u32(std::min<uint64_t>(drive.sectors, 0xffffffff) - 1).u32(kReadSpeed);
  return out.take();
}

// [MMC-6] 6.22, of a DVD-ROM.
Answer disc_structure(Cdb cdb, const Drive& drive) {
  if ((cdb[1] & 0x0f) != 0) return refuse(sense::kInvalidField);  // a structure of a Blu-ray disc
  if (!drive.medium) return refuse(not_ready(drive));
  if (!is_dvd(drive)) return refuse(sense::kIncompatibleMedium);
  if (cdb[6] != 0) return refuse(sense::kInvalidField);  // a second layer
  constexpr uint8_t kPhysical = 0, kCopyright = 1, kManufacturing = 4, kList = 0xff, kReadable = 0x40;
  Builder out;
  out.u16(0).u16(0);
  switch (cdb[7]) {
    case kPhysical:
      out.u8(0x01).u8(0x0f).u8(0x01).u8(0);  // DVD-ROM, 120 mm, no rate given, one layer of pits
      out.u32(kDvdFirstSector).u32((kDvdFirstSector + drive.sectors - 1) & 0xffffff).zeroes(2048 - 12);
      break;
    case kCopyright: out.u32(0); break;
    case kManufacturing: out.zeroes(2048); break;
    case kList:
      out.u8(kPhysical).u8(kReadable).u16(2048 + 4);
      out.u8(kCopyright).u8(kReadable).u16(4 + 4);
      out.u8(kManufacturing).u8(kReadable).u16(2048 + 4);
      break;
    default: return refuse(sense::kInvalidField);
  }
  return out.with_length16();
}

// [MMC-6] 6.10.
Answer mechanism_status(const Drive& drive) {
  return Builder().u8(0).u8(drive.tray_open ? 0x10 : 0).zeroes(3).u8(1).u16(0).take();
}

namespace {

// [MMC-3] 5.5.10 and the pages it names; code, length, then the page.
std::vector<uint8_t> mode_page(uint8_t code, const Drive& drive) {
  Builder out;
  switch (code) {
    case 0x01: return out.u8(code).u8(0x0a).u8(0).u8(5).zeroes(8).take();      // read error recovery: 5 retries
    case 0x0d: return out.u8(code).u8(0x06).zeroes(2).u16(60).u16(75).take();  // seconds and frames
    case 0x0e: {                                                               // audio control
      return out.u8(code).u8(0x0e).u8(0x04).zeroes(5).u16(0x01ff).u16(0x02ff).zeroes(4).take();
    }
    case 0x1a: return out.u8(code).u8(0x0a).zeroes(10).take();  // power condition: no timers
    case 0x1d: return out.u8(code).u8(0x08).zeroes(8).take();   // timeout and protect
    case 0x2a: {                                                // capabilities and mechanical status
      constexpr uint8_t kReads = 0x3b;                          // CD-R, CD-RW, DVD-ROM, DVD-R, DVD-RAM
      constexpr uint8_t kDataFormats = 0x70;                    // mode 2 forms 1 and 2, several sessions
      constexpr uint8_t kTray = 0x29;                           // a tray, eject, lock
      out.u8(code).u8(0x14).u8(kReads).u8(0).u8(kDataFormats).u8(0);
      out.u8(kTray | (drive.locked ? 2u : 0u)).u8(0).u16(kReadSpeed).u16(0).u16(2048).u16(kReadSpeed);
      return out.u16(0).u16(0).u16(0).take();
    }
    default: return {};
  }
}
constexpr std::array<uint8_t, 6> kModePages{0x01, 0x0d, 0x0e, 0x1a, 0x1d, 0x2a};
constexpr uint8_t kAllPages = 0x3f;

}  // namespace

Answer mode_pages(uint8_t page, uint8_t control, const Drive& drive) {
  constexpr uint8_t kChangeable = 1, kSaved = 3;
  if (control == kSaved) return refuse(sense::kSavingNotSupported);
  Builder out;
  bool found = false;
  for (const uint8_t code : kModePages) {
    if (page != code && page != kAllPages) continue;
    std::vector<uint8_t> bytes = mode_page(code, drive);
    if (control == kChangeable) std::fill(bytes.begin() + 2, bytes.end(), uint8_t{0});
    out.append(bytes);
    found = true;
  }
  if (!found) return refuse(sense::kInvalidField);
  return out.take();
}

uint8_t medium_type(const Drive& drive) {
  constexpr uint8_t kDataCd = 0x01, kNoDisc = 0x70, kDoorOpen = 0x71;
  if (drive.tray_open) return kDoorOpen;
  if (!drive.medium) return kNoDisc;
  return is_cd(drive) ? kDataCd : 0;
}

// [MMC-6] 6.20, 6.21 (READ CD, READ CD MSF): of a mode 1 sector, whose sub-header is empty.
std::expected<ReadCd, ScsiSense> parse_read_cd(Cdb cdb, const Drive& drive) {
  if (!drive.medium) return refuse(not_ready(drive));
  const unsigned type = cdb[1] >> 2 & 7, parts = cdb[9];
  constexpr unsigned kAnyType = 0, kMode1 = 2, kErrorFlags = 0x06;
  if (type != kAnyType && type != kMode1) return refuse(sense::kIllegalTrackMode);
  if ((parts & kErrorFlags) != 0 || (cdb[10] & 7) != 0) return refuse(sense::kInvalidField);  // no C2, no sub-channel
  ReadCd what{.first = 0,
              .sectors = 0,
              .sync = (parts & 0x80) != 0,
              .header = (parts & 0x20) != 0,
              .data = (parts & 0x10) != 0,
              .ecc = (parts & 0x08) != 0};
  // What is transferred must lie together on the disc.
  const bool gap = (what.sync && !what.header && (what.data || what.ecc)) || (what.header && what.ecc && !what.data);
  if (gap) return refuse(sense::kInvalidField);
  uint64_t first = load_be32(&cdb[2]), count = load_be32(&cdb[5]) & 0xffffff;
  if (cdb[0] == scsi_op::kReadCdMsf) {
    const auto frames = [&](size_t at) { return (uint64_t{cdb[at]} * 60 + cdb[at + 1]) * 75 + cdb[at + 2]; };
    if (frames(3) < kPregap) return refuse(sense::kOutOfRange);
    if (frames(6) < frames(3)) return refuse(sense::kInvalidField);
    first = frames(3) - kPregap;
    count = frames(6) - frames(3);
  }
  if (first > drive.sectors || count > drive.sectors - first) return refuse(sense::kOutOfRange);
  what.first = static_cast<uint32_t>(first);
  what.sectors = static_cast<uint32_t>(count);
  return what;
}

namespace {

constexpr size_t kHeaderAt = 12, kDataAt = 16, kEdcAt = kDataAt + kSectorBytes, kPAt = kEdcAt + 12, kQAt = kPAt + 172;

constexpr auto kEdcTable = [] {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t value = i;
    // (x^16 + x^15 + x^2 + 1)(x^16 + x^2 + x + 1), bits reversed. [ECMA-130] 14.3.
    for (int k = 0; k < 8; ++k) value = value >> 1 ^ ((value & 1) != 0 ? 0xd8018001 : 0);
    table[i] = value;
  }
  return table;
}();

// GF(2^8) over x^8 + x^4 + x^3 + x^2 + 1. [ECMA-130] annex A.
constexpr uint8_t times_alpha(uint8_t value) {
  return static_cast<uint8_t>(value << 1 ^ ((value & 0x80) != 0 ? 0x1d : 0));
}
constexpr auto kOverOnePlusAlpha = [] {
  std::array<uint8_t, 256> table{};
  for (unsigned i = 0; i < 256; ++i) table[i ^ times_alpha(static_cast<uint8_t>(i))] = static_cast<uint8_t>(i);
  return table;
}();

// The two parity symbols of `vectors` code words, each `symbols` bytes that lie `step` apart from its start on, modulo
// the area of vectors * symbols bytes. The words' even and odd bytes are words of their own: hence the pairs.
struct Code {
  unsigned vectors, symbols, next_vector, step;
};
constexpr Code kP{86, 24, 2, 86}, kQ{52, 43, 86, 88};

void add_parity(const Code& code, const uint8_t* area, uint8_t* parity) {
  const unsigned size = code.vectors * code.symbols;
  for (unsigned vector = 0; vector < code.vectors; ++vector) {
    unsigned at = vector / 2 * code.next_vector + vector % 2;
    // A word d(0)..d(n-1) p q with sum 0 and sum of alpha^(its place from the end) 0.
    uint8_t sum = 0, weighted = 0;
    for (unsigned i = 0; i < code.symbols; ++i) {
      sum ^= area[at];
      weighted = times_alpha(weighted ^ area[at]);
      at += code.step;
      if (at >= size) at -= size;
    }
    const uint8_t first = kOverOnePlusAlpha[times_alpha(weighted) ^ sum];
    parity[vector] = first;
    parity[vector + code.vectors] = first ^ sum;
  }
}

constexpr uint8_t to_bcd(uint8_t value) { return static_cast<uint8_t>(value / 10 % 10 * 16 + value % 10); }

}  // namespace

std::array<uint8_t, kRawSectorBytes> raw_sector(uint32_t sector, std::span<const uint8_t, kSectorBytes> data) {
  std::array<uint8_t, kRawSectorBytes> raw{};
  std::fill(raw.begin() + 1, raw.begin() + 11, uint8_t{0xff});
  const std::array<uint8_t, 3> msf = to_msf(sector);
  for (size_t i = 0; i < 3; ++i) raw[kHeaderAt + i] = to_bcd(msf[i]);
  raw[kHeaderAt + 3] = 1;  // the mode
  std::copy(data.begin(), data.end(), raw.begin() + kDataAt);
  uint32_t edc = 0;
  for (size_t i = 0; i < kEdcAt; ++i) edc = edc >> 8 ^ kEdcTable[(edc ^ raw[i]) & 0xff];
  store(&raw[kEdcAt], edc);
  add_parity(kP, &raw[kHeaderAt], &raw[kPAt]);
  add_parity(kQ, &raw[kHeaderAt], &raw[kQAt]);
  return raw;
}

void frame(const ReadCd& what, uint32_t sector, std::span<const uint8_t, kSectorBytes> data, std::span<uint8_t> to) {
  if (what.sector_bytes() == kSectorBytes && what.data) {
    std::copy(data.begin(), data.end(), to.begin());
    return;
  }
  const auto raw = raw_sector(sector, data);
  const size_t start = what.sync ? 0 : what.header ? kHeaderAt : what.data ? kDataAt : kEdcAt;
  std::copy_n(raw.begin() + static_cast<ptrdiff_t>(start), to.size(), to.begin());
}

}  // namespace kite::devices::mmc
