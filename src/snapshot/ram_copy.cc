#include "snapshot/ram_copy.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <numeric>

namespace kite::snapshot {

namespace {

constexpr unsigned kPagesInWord = 64;
static_assert(kMostPages >= kPagesInWord);

bool is_zero(const uint8_t* page) {
  uint64_t any = 0;
  for (size_t at = 0; at < kPageSize; at += sizeof any) {
    uint64_t word;
    std::memcpy(&word, page + at, sizeof word);
    any |= word;
    if (at % 256 == 0 && any != 0) return false;
  }
  return any == 0;
}

uint64_t pages_of(const RamBlock& block) { return block.size() >> kPageShift; }

}  // namespace

// --- sending

RamSender::RamSender(std::vector<std::shared_ptr<RamBlock>> blocks) {
  for (auto& ram : blocks) {
    const uint64_t pages = pages_of(*ram);
    std::vector<uint64_t> dirty((pages + kPagesInWord - 1) / kPagesInWord, ~uint64_t{0});
    if (const uint64_t rest = pages % kPagesInWord; rest != 0) dirty.back() = (uint64_t{1} << rest) - 1;
    counts_.remaining += pages;
    blocks_.push_back({.ram = std::move(ram), .dirty = std::move(dirty)});
  }
}

uint64_t RamSender::total_bytes() const {
  return std::accumulate(blocks_.begin(), blocks_.end(), uint64_t{0},
                         [](uint64_t sum, const Block& block) { return sum + block.ram->size(); });
}

Result<> RamSender::send_blocks(StreamWriter& writer) {
  for (uint32_t number = 0; number < blocks_.size(); ++number)
    KITE_TRY(writer.block(number, blocks_[number].ram->name(), blocks_[number].ram->size()));
  return {};
}

uint64_t RamSender::look() {
  uint64_t pages = 0;
  for (Block& block : blocks_) {
    const std::vector<uint64_t> written = block.ram->collect_dirty();
    for (size_t at = 0; at < block.dirty.size(); ++at) {
      block.dirty[at] |= written[at];
      pages += static_cast<unsigned>(std::popcount(block.dirty[at]));
    }
  }
  counts_.passes += 1;
  counts_.remaining = pages;
  return pages;
}

Result<> RamSender::send_pass(StreamWriter& writer) {
  for (uint32_t number = 0; number < blocks_.size(); ++number) KITE_TRY(send_block(writer, number));
  return flush_zeros(writer);
}

Result<> RamSender::send_block(StreamWriter& writer, uint32_t number) {
  std::vector<uint64_t>& dirty = blocks_[number].dirty;
  for (size_t at = 0; at < dirty.size(); ++at)
    if (const uint64_t bits = std::exchange(dirty[at], 0); bits != 0)
      KITE_TRY(send_word(writer, number, at * kPagesInWord, bits));
  return {};
}

// The pages behind `first` whose bits are set: those with contents in runs, zeros gathered over words.
Result<> RamSender::send_word(StreamWriter& writer, uint32_t number, uint64_t first, uint64_t bits) {
  const uint8_t* const host = blocks_[number].ram->host();
  counts_.remaining -= static_cast<unsigned>(std::popcount(bits));
  uint64_t run = 0, length = 0;
  const auto send_run = [&]() -> Result<> {
    if (length == 0) return {};
    counts_.normal += length;
    const std::span<const uint8_t> contents(host + (run << kPageShift), std::exchange(length, 0) << kPageShift);
    return writer.pages(number, run, contents);
  };
  for (; bits != 0; bits &= bits - 1) {
    const uint64_t page = first + static_cast<unsigned>(std::countr_zero(bits));
    if (is_zero(host + (page << kPageShift))) {
      if (zeros_.count != 0 && (zeros_.number != number || zeros_.first + zeros_.count != page))
        KITE_TRY(flush_zeros(writer));
      if (zeros_.count == 0) zeros_ = {.number = number, .count = 0, .first = page};
      ++zeros_.count;
      continue;
    }
    if (length != 0 && run + length != page) KITE_TRY(send_run());
    if (length == 0) run = page;
    ++length;
  }
  return send_run();
}

Result<> RamSender::flush_zeros(StreamWriter& writer) {
  const Zeros found = std::exchange(zeros_, {});
  if (found.count == 0) return {};
  counts_.zero += found.count;
  return writer.zeros(found.number, found.first, found.count);
}

// --- receiving

Result<> RamReceiver::take(const BlockRecord& record) {
  if (record.number != known_ || record.number >= blocks_.size())
    return fail("the saved machine has other memory: block {} of RAM", record.number);
  const RamBlock& block = *blocks_[record.number];
  if (record.name != block.name() || record.bytes != block.size())
    return fail("the saved machine has {} bytes of RAM in '{}', this one {} in '{}'; start it with the same -m",
                record.bytes, record.name.size() > 80 ? "?" : record.name, block.size(), block.name());
  ++known_;
  return {};
}

Result<> RamReceiver::take(const PagesRecord& record) {
  if (record.number >= known_) return fail("the saved machine is damaged: pages of block {}", record.number);
  RamBlock& block = *blocks_[record.number];
  const uint64_t pages = pages_of(block);
  if (record.first >= pages || record.count > pages - record.first)
    return fail("the saved machine is damaged: {} pages at {} of '{}', which has {}", record.count, record.first,
                block.name(), pages);
  uint8_t* const to = block.host() + (record.first << kPageShift);
  if (!record.contents.empty()) {
    std::ranges::copy(record.contents, to);
    return {};
  }
  // Memory that nobody has touched stays untouched.
  for (uint64_t page = 0; page < record.count; ++page)
    if (uint8_t* const at = to + (page << kPageShift); !is_zero(at)) std::memset(at, 0, kPageSize);
  return {};
}

Result<> RamReceiver::finish() {
  if (known_ != blocks_.size()) return fail("the saved machine is damaged: it has {} blocks of RAM", known_);
  for (const auto& block : blocks_) block->note_write(0, block->size());
  return {};
}

Result<> receive_ram(StreamReader& reader, std::vector<std::shared_ptr<RamBlock>> blocks) {
  RamReceiver receiver(std::move(blocks));
  while (true) {
    KITE_ASSIGN(const StreamReader::Record record, reader.next());
    if (std::holds_alternative<EndRecord>(record)) return receiver.finish();
    if (const auto* const block = std::get_if<BlockRecord>(&record)) KITE_TRY(receiver.take(*block));
    if (const auto* const pages = std::get_if<PagesRecord>(&record)) KITE_TRY(receiver.take(*pages));
  }
}

}  // namespace kite::snapshot
