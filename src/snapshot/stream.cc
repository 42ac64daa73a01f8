#include "snapshot/stream.h"

#include <algorithm>
#include <array>

#include "support/bytes.h"

namespace kite::snapshot {

namespace {

constexpr std::array<uint8_t, 8> kMagic = {'K', 'I', 'T', 'E', 'V', 'M', 0, 1};
constexpr size_t kHeaderBytes = 16, kRecordHead = 8, kPagesHead = 16, kPageBytes = 4096;

enum class Kind : uint32_t { kBlock = 1, kPages, kZero, kState, kEnd };

}  // namespace

// --- writing

Result<> StreamWriter::write(std::span<const uint8_t> bytes) {
  bytes_ += bytes.size();
  return sink_.write(bytes);
}

Result<> StreamWriter::record(uint32_t kind, std::span<const uint8_t> head, std::span<const uint8_t> rest) {
  record_.resize(kRecordHead);
  store(record_.data(), kind);
  store(record_.data() + 4, static_cast<uint32_t>(head.size() + rest.size()));
  record_.insert(record_.end(), head.begin(), head.end());
  record_.insert(record_.end(), rest.begin(), rest.end());
  return write(record_);
}

Result<> StreamWriter::begin(uint32_t flags) {
  std::array<uint8_t, kHeaderBytes> header{};
  std::ranges::copy(kMagic, header.begin());
  store(header.data() + kMagic.size(), flags);
  return write(header);
}

Result<> StreamWriter::block(uint32_t number, std::string_view name, uint64_t bytes) {
  std::array<uint8_t, kPagesHead> head{};
  store(head.data(), number);
  store(head.data() + 8, bytes);
  return record(static_cast<uint32_t>(Kind::kBlock), head,
                {reinterpret_cast<const uint8_t*>(name.data()), name.size()});
}

Result<> StreamWriter::pages(uint32_t number, uint64_t first, std::span<const uint8_t> contents) {
  std::array<uint8_t, kPagesHead> head{};
  store(head.data(), number);
  store(head.data() + 4, static_cast<uint32_t>(contents.size() / kPageBytes));
  store(head.data() + 8, first);
  return record(static_cast<uint32_t>(Kind::kPages), head, contents);
}

Result<> StreamWriter::zeros(uint32_t number, uint64_t first, uint32_t count) {
  std::array<uint8_t, kPagesHead> head{};
  store(head.data(), number);
  store(head.data() + 4, count);
  store(head.data() + 8, first);
  return record(static_cast<uint32_t>(Kind::kZero), head, {});
}

Result<> StreamWriter::end(std::span<const uint8_t> state) {
  for (size_t at = 0; at < state.size(); at += kMostRecordBytes)
    KITE_TRY(record(static_cast<uint32_t>(Kind::kState), {},
                    state.subspan(at, std::min<size_t>(kMostRecordBytes, state.size() - at))));
  std::array<uint8_t, 8> total{};
  store(total.data(), uint64_t{state.size()});
  return record(static_cast<uint32_t>(Kind::kEnd), total, {});
}

// --- reading

Result<> StreamReader::read(std::span<uint8_t> to) {
  KITE_TRY(source_.read(to));
  bytes_ += to.size();
  return {};
}

Result<uint32_t> StreamReader::begin() {
  std::array<uint8_t, kHeaderBytes> header{};
  KITE_TRY(read(header));
  if (!std::equal(kMagic.begin(), kMagic.end() - 1, header.begin())) return fail("this is no saved machine of Kite's");
  if (header[kMagic.size() - 1] != kMagic.back())
    return fail("the saved machine has format {}; this version of Kite reads format {}", header[kMagic.size() - 1],
                kMagic.back());
  const auto flags = load<uint32_t>(header.data() + kMagic.size());
  if ((flags & ~(kWantsAnswer | kHasBitmaps)) != 0)
    return fail("the saved machine was made by a later version of Kite");
  return flags;
}

Result<StreamReader::Record> StreamReader::block() const {
  if (record_.size() < kPagesHead) return fail("the saved machine is damaged: a block of RAM without its size");
  return BlockRecord{.number = load<uint32_t>(record_.data()),
                     .bytes = load<uint64_t>(record_.data() + 8),
                     .name = std::string(record_.begin() + kPagesHead, record_.end())};
}

Result<StreamReader::Record> StreamReader::pages(bool zeros) const {
  if (record_.size() < kPagesHead) return fail("the saved machine is damaged: pages without their place");
  const PagesRecord found{.number = load<uint32_t>(record_.data()),
                          .count = load<uint32_t>(record_.data() + 4),
                          .first = load<uint64_t>(record_.data() + 8),
                          .contents = std::span(record_).subspan(kPagesHead)};
  const uint64_t expected = zeros ? 0 : uint64_t{found.count} * kPageBytes;
  if (found.count == 0 || found.contents.size() != expected)
    return fail("the saved machine is damaged: {} bytes for {} pages", found.contents.size(), found.count);
  return found;
}

Result<StreamReader::Record> StreamReader::next() {
  while (true) {
    std::array<uint8_t, kRecordHead> head{};
    KITE_TRY(read(head));
    const auto kind = static_cast<Kind>(load<uint32_t>(head.data()));
    const auto length = load<uint32_t>(head.data() + 4);
    if (length > kMostRecordBytes) return fail("the saved machine is damaged: a record of {} bytes", length);
    record_.resize(length);
    KITE_TRY(read(record_));
    switch (kind) {
      case Kind::kBlock: return block();
      case Kind::kPages: return pages(false);
      case Kind::kZero: return pages(true);
      case Kind::kState:
        if (state_.size() + length > kMostStateBytes) return fail("the saved machine has too much state");
        state_.insert(state_.end(), record_.begin(), record_.end());
        continue;
      case Kind::kEnd:
        if (length != 8 || load<uint64_t>(record_.data()) != state_.size())
          return fail("the saved machine is damaged: parts of its state are missing");
        return EndRecord{};
    }
    return fail("the saved machine is damaged, or made by a later version of Kite: record {}",
                static_cast<uint32_t>(kind));
  }
}

}  // namespace kite::snapshot
