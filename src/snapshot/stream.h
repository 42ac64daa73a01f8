// The stream in which a machine travels: into a file, through a socket, into an image.
//
//   stream: the 8 bytes "KITEVM" 0 1, u32 flags, u32 0; then records
//   record: u32 kind, u32 length of what follows (1 MiB at most)
//     kBlock  u32 number, u32 0, u64 bytes, name             a block of RAM, before its pages
//     kPages  u32 number, u32 count, u64 first page, pages   4 KiB each; a page that comes again is newer
//     kZero   u32 number, u32 count, u64 first page          pages of zeros
//     kState  bytes                                          the next piece of everything else (state/codec.h)
//     kEnd    u64 pieces of state together, in bytes         the machine is whole
//
// Numbers are little-endian. With kHasBitmaps the state begins with dirty bitmaps of disks: u64 their bytes, then these
// (machine/moved_bitmaps.h). With kWantsAnswer the reader, once it can go on in place of the sender, answers one byte
// kAccepted; or kRefused and, up to the end of the stream, why.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "support/result.h"

namespace kite::snapshot {

class ByteSink {
 public:
  virtual ~ByteSink() = default;
  virtual Result<> write(std::span<const uint8_t> bytes) = 0;  // all of them
};
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  virtual Result<> read(std::span<uint8_t> to) = 0;  // all of it; the end before that is an error
};

inline constexpr uint32_t kWantsAnswer = 1;
inline constexpr uint32_t kHasBitmaps = 2;
inline constexpr uint8_t kAccepted = 'Y', kRefused = 'N';

inline constexpr uint32_t kMostRecordBytes = 1u << 20;
inline constexpr uint32_t kMostPages = 128;  // in one kPages
inline constexpr uint64_t kMostStateBytes = uint64_t{1} << 30;

class StreamWriter {
 public:
  explicit StreamWriter(ByteSink& sink) : sink_(sink) {}
  Result<> begin(uint32_t flags);
  Result<> block(uint32_t number, std::string_view name, uint64_t bytes);
  Result<> pages(uint32_t number, uint64_t first, std::span<const uint8_t> contents);  // kMostPages at most
  Result<> zeros(uint32_t number, uint64_t first, uint32_t count);
  Result<> end(std::span<const uint8_t> state);  // all of it, and the end
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

 private:
  Result<> write(std::span<const uint8_t> bytes);
  Result<> record(uint32_t kind, std::span<const uint8_t> head, std::span<const uint8_t> rest);

  ByteSink& sink_;
  std::vector<uint8_t> record_;
  uint64_t bytes_ = 0;  // written so far
};

struct BlockRecord {
  uint32_t number;
  uint64_t bytes;
  std::string name;
};
struct PagesRecord {
  uint32_t number, count;
  uint64_t first;
  std::span<const uint8_t> contents;  // empty: zeros. Until the next record is read
};
struct EndRecord {};

// Lengths are checked here; what numbers and pages mean is the caller's.
class StreamReader {
 public:
  explicit StreamReader(ByteSource& source) : source_(source) {}
  Result<uint32_t> begin();  // answers the flags
  using Record = std::variant<BlockRecord, PagesRecord, EndRecord>;
  Result<Record> next();
  // After EndRecord.
  [[nodiscard]] const std::vector<uint8_t>& state() const { return state_; }
  [[nodiscard]] uint64_t bytes() const { return bytes_; }

 private:
  Result<> read(std::span<uint8_t> to);
  Result<Record> block() const;
  Result<Record> pages(bool zeros) const;

  ByteSource& source_;
  std::vector<uint8_t> record_;
  std::vector<uint8_t> state_;
  uint64_t bytes_ = 0;  // read so far
};

}  // namespace kite::snapshot
