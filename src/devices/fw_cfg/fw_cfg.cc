#include "devices/fw_cfg/fw_cfg.h"

#include <algorithm>
#include <cstring>

#include "devices/fw_cfg/fw_cfg_regs.h"
#include "devices/section.h"
#include "support/bits.h"
#include "support/bytes.h"
#include "support/log.h"

namespace kite::devices {

using namespace fw_cfg_regs;

namespace {

struct FwCfgV1 {
  static constexpr uint32_t kVersion = 1;
  uint16_t key;
  uint32_t offset;
  uint64_t dma_address;
  std::vector<uint8_t> written;  // the bytes of the writable files, by name, end to end
};
template <class Codec>
void visit(Codec& codec, FwCfgV1& wire) {
  codec.field(1, wire.key);
  codec.field(2, wire.offset);
  codec.field(3, wire.dma_address);
  codec.field(4, wire.written);
}

template <class T>
std::vector<uint8_t> little_endian(T value) {
  std::vector<uint8_t> bytes(sizeof value);
  store(bytes.data(), value);
  return bytes;
}

}  // namespace

FwCfg::FwCfg(std::string path, GuestMemory& memory)
    : Device(std::move(path)),
      memory_(memory),
      ports_(*this, &FwCfg::read_ports, &FwCfg::write_ports),
      dma_(*this, &FwCfg::read_dma_port, &FwCfg::write_dma_port),
      port_region_(Region::io("fw-cfg", 2, ports_, {.min_size = 1, .max_size = 2})),
      dma_region_(Region::io("fw-cfg-dma", 8, dma_, {.min_size = 1, .max_size = 4})) {
  add_bytes(kSignature, {'Q', 'E', 'M', 'U'});
  add_u32(kId, kIdTraditional | kIdDma);
  rebuild_directory();
}

FwCfg::~FwCfg() = default;

void FwCfg::add_bytes(uint16_t key, std::vector<uint8_t> bytes) {
  const std::lock_guard lock(lock_);
  keys_[key].bytes = std::move(bytes);
}

void FwCfg::add_string(uint16_t key, std::string_view text) {
  std::vector<uint8_t> bytes(text.begin(), text.end());
  bytes.push_back(0);
  add_bytes(key, std::move(bytes));
}

void FwCfg::add_u16(uint16_t key, uint16_t value) { add_bytes(key, little_endian(value)); }
void FwCfg::add_u32(uint16_t key, uint32_t value) { add_bytes(key, little_endian(value)); }
void FwCfg::add_u64(uint16_t key, uint64_t value) { add_bytes(key, little_endian(value)); }

Result<> FwCfg::check_file(std::string_view name, size_t size) const {
  if (name.empty() || name.size() >= kFileNameSize || name.find('\0') != std::string_view::npos)
    return fail("fw_cfg file name '{}' is not 1 to {} bytes long", name, kFileNameSize - 1);
  if (size > kMaxBlob) return fail("fw_cfg file '{}' is larger than {} bytes", name, kMaxBlob);
  if (!files_.contains(name) && files_.size() == kMaxFiles)
    return fail("fw_cfg file '{}' is one too many: there is room for {}", name, kMaxFiles);
  return {};
}

Result<> FwCfg::add_file(std::string name, std::vector<uint8_t> bytes, FileAccess access) {
  const std::lock_guard lock(lock_);
  KITE_TRY(check_file(name, bytes.size()));
  if (files_.contains(name)) return fail("fw_cfg file '{}' exists already", name);
  files_.emplace(std::move(name), Item{.bytes = std::move(bytes), .access = access});
  rebuild_directory();
  return {};
}

Result<> FwCfg::set_file(std::string name, std::vector<uint8_t> bytes) {
  const std::lock_guard lock(lock_);
  KITE_TRY(check_file(name, bytes.size()));
  files_[std::move(name)].bytes = std::move(bytes);
  rebuild_directory();
  return {};
}

std::vector<uint8_t> FwCfg::file_while_refreshing(std::string_view name) const {
  const auto at = files_.find(name);
  return at != files_.end() ? at->second.bytes : std::vector<uint8_t>{};
}

void FwCfg::refresh_file(std::string_view name, std::function<std::vector<uint8_t>()> refresh) {
  const std::lock_guard lock(lock_);
  if (const auto at = files_.find(name); at != files_.end()) at->second.refresh = std::move(refresh);
}

std::vector<uint8_t> FwCfg::file(std::string_view name) {
  const std::lock_guard lock(lock_);
  const auto at = files_.find(name);
  return at == files_.end() ? std::vector<uint8_t>{} : at->second.bytes;
}

void FwCfg::rebuild_directory() {
  std::vector<uint8_t> directory(4 + files_.size() * kDirectoryEntrySize);
  store_be32(directory.data(), static_cast<uint32_t>(files_.size()));
  file_by_number_.clear();
  uint8_t* entry = directory.data() + 4;
  for (auto& [name, item] : files_) {
    store_be32(entry, static_cast<uint32_t>(item.bytes.size()));
    store_be16(entry + 4, static_cast<uint16_t>(kFirstFile + file_by_number_.size()));
    std::memcpy(entry + 8, name.data(), name.size());
    file_by_number_.push_back(&item);
    entry += kDirectoryEntrySize;
  }
  keys_[kFileDirectory].bytes = std::move(directory);
}

void FwCfg::reset() {
  const std::lock_guard lock(lock_);
  state_ = State{};
}

FwCfg::Item* FwCfg::selected() {
  const unsigned file = state_.key - unsigned{kFirstFile};
  if (state_.key >= kFirstFile && file < file_by_number_.size()) return file_by_number_[file];
  const auto at = keys_.find(state_.key);
  return at == keys_.end() ? nullptr : &at->second;
}

void FwCfg::select(uint16_t key) {
  state_.key = key;
  state_.offset = 0;
  Item* const item = selected();
  if (item == nullptr || !item->refresh) return;
  std::vector<uint8_t> fresh = item->refresh();
  if (fresh.size() == item->bytes.size()) item->bytes = std::move(fresh);
}

uint8_t FwCfg::read_byte() {
  const Item* const item = selected();
  if (item == nullptr || state_.offset >= item->bytes.size()) return 0;  // [FW_CFG] past the end reads zeros
  return item->bytes[state_.offset++];
}

// [FW_CFG] the selector is the word at 0x510, the data the byte at 0x511; reads of either give data.
uint64_t FwCfg::read_ports(uint64_t, unsigned size) {
  const std::lock_guard lock(lock_);
  uint64_t value = 0;
  for (unsigned i = 0; i < size; ++i) value |= uint64_t{read_byte()} << (8 * i);
  return value;
}

void FwCfg::write_ports(uint64_t offset, unsigned size, uint64_t value) {
  if (offset != 0 || size != 2) return;  // writes of data have no effect
  const std::lock_guard lock(lock_);
  select(static_cast<uint16_t>(value));
}

uint64_t FwCfg::read_dma_port(uint64_t offset, unsigned size) {
  const uint64_t bytes = __builtin_bswap64(kDmaSignature);
  return (bytes >> (8 * offset)) & low_mask(8 * size);
}

// [FW_CFG] the address is big-endian: its high half at +0, its low half at +4, which starts the transfer.
void FwCfg::write_dma_port(uint64_t offset, unsigned size, uint64_t value) {
  if (size != 4) return;
  const uint64_t half = __builtin_bswap32(static_cast<uint32_t>(value));
  const std::lock_guard lock(lock_);
  if (offset == 0) {
    state_.dma_address = half << 32;
    return;
  }
  const uint64_t address = state_.dma_address | half;
  state_.dma_address = 0;
  run_dma(address);
}

void FwCfg::run_dma(uint64_t address) {
  std::array<uint8_t, 16> structure{};
  if (!memory_.read(address, structure)) {
    log::guest_error("{}: DMA structure at {:#x} is not in memory", path(), address);
    return;
  }
  const DmaRequest request{.control = load_be32(structure.data()),
                           .length = load_be32(structure.data() + 4),
                           .address = load_be64(structure.data() + 8)};
  // [FW_CFG] control reads 0 when the transfer is done, the error bit when it failed.
  std::array<uint8_t, 4> outcome{};
  store_be32(outcome.data(), transfer(request) ? 0 : kDmaError);
  if (!memory_.write(address, outcome))
    log::guest_error("{}: DMA structure at {:#x} cannot be written", path(), address);
}

// [FW_CFG] one of read, write, skip, in this order of precedence; none of them is nothing.
bool FwCfg::transfer(const DmaRequest& request) {
  if ((request.control & kDmaSelect) != 0) select(static_cast<uint16_t>(request.control >> 16));
  Item* const item = selected();
  if ((request.control & kDmaRead) != 0) return dma_read(item, request.address, request.length);
  if ((request.control & kDmaWrite) != 0) return dma_write(item, request.address, request.length);
  if ((request.control & kDmaSkip) != 0) advance(item, request.length);
  return true;
}

uint32_t FwCfg::left(const Item* item) const {
  if (item == nullptr || state_.offset >= item->bytes.size()) return 0;
  return static_cast<uint32_t>(item->bytes.size()) - state_.offset;
}

void FwCfg::advance(const Item* item, uint32_t length) { state_.offset += std::min(length, left(item)); }

// What lies past the end of the blob reads as zeros.
bool FwCfg::dma_read(Item* item, uint64_t address, uint32_t length) {
  const uint32_t copied = std::min(length, left(item));
  if (copied > 0 && !memory_.write(address, std::span(item->bytes).subspan(state_.offset, copied))) return false;
  if (length > copied && !memory_.fill(address + copied, length - copied, 0)) return false;
  advance(item, copied);
  return true;
}

bool FwCfg::dma_write(Item* item, uint64_t address, uint32_t length) {
  if (item == nullptr || item->access != FileAccess::kWritable || length > left(item)) return false;
  if (!memory_.read(address, std::span(item->bytes).subspan(state_.offset, length))) return false;
  advance(item, length);
  return true;
}

void FwCfg::save(StateWriter& writer) {
  const std::lock_guard lock(lock_);
  const auto& [key, offset, dma_address] = state_;
  FwCfgV1 wire{.key = key, .offset = offset, .dma_address = dma_address, .written = {}};
  for (const auto& [name, item] : files_)
    if (item.access == FileAccess::kWritable)
      wire.written.insert(wire.written.end(), item.bytes.begin(), item.bytes.end());
  save_section(writer, path(), std::move(wire));
}

void FwCfg::restore(StateReader& reader) {
  FwCfgV1 wire{};
  if (!restore_section(reader, path(), wire)) return;
  const std::lock_guard lock(lock_);
  size_t writable = 0;
  for (const auto& [name, item] : files_)
    if (item.access == FileAccess::kWritable) writable += item.bytes.size();
  if (!require(reader, wire.written.size() == writable, "the writable files have other sizes here") ||
      !require(reader, wire.offset <= kMaxBlob, "the read offset is past the largest file") ||
      !require(reader, (wire.dma_address & 0xffffffff) == 0, "half a DMA address has both halves"))
    return;
  auto from = wire.written.cbegin();
  for (auto& [name, item] : files_) {
    if (item.access != FileAccess::kWritable) continue;
    std::copy_n(from, item.bytes.size(), item.bytes.begin());
    from += static_cast<ptrdiff_t>(item.bytes.size());
  }
  state_ = State{.key = wire.key, .offset = wire.offset, .dma_address = wire.dma_address};
}

}  // namespace kite::devices
