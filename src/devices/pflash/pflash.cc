#include "devices/pflash/pflash.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "devices/section.h"
#include "support/bits.h"
#include "support/log.h"

namespace kite::devices {

using namespace pflash_regs;

namespace {

constexpr uint8_t kUnlocked = 0, kBlockLocked = 1, kBlockLockedDown = 2;
constexpr uint8_t kErased = 0xff;
constexpr uint64_t block_of(uint64_t offset) { return offset & ~(kBlockBytes - 1); }

struct PflashV2 {
  static constexpr uint32_t kVersion = 2;
  uint8_t mode, status;
  uint32_t buffer_left;
  uint64_t buffer_block, buffer_from, buffer_to;
  std::vector<uint8_t> buffer, locks;
  std::vector<uint8_t> array;  // empty when the chip is read-only: firmware's code is the same at both ends
};
template <class Codec>
void visit(Codec& codec, PflashV2& wire) {
  codec.field(1, wire.mode);
  codec.field(2, wire.status);
  codec.field(3, wire.buffer_left);
  codec.field(4, wire.buffer_block);
  codec.field(5, wire.buffer_from);
  codec.field(6, wire.buffer_to);
  codec.field(7, wire.buffer);
  codec.field(8, wire.locks);
  codec.field(9, wire.array);
}

// What the query table says but for the sizes. [CFI] tables 1 to 4 at 0x10, 0x1b and 0x27, the Intel extension at 0x31.
constexpr uint8_t kQueryStart = 0x10;
constexpr uint8_t kQuery[kQueryBytes - kQueryStart] = {
    'Q',  'R',  'Y',               // 0x10
    0x01, 0x00, 0x31, 0x00,        // 0x13 command set 0001h, its table at 0x31
    0x00, 0x00, 0x00, 0x00,        // 0x17 no alternate
    0x45, 0x55, 0x00, 0x00,        // 0x1b Vcc 4.5 V to 5.5 V, no Vpp
    0x07, 0x07, 0x0a, 0x00,        // 0x1f 2^n us for a byte and a buffer, 2^n ms for a block
    0x04, 0x04, 0x04, 0x00,        // 0x23 at most 2^n times that
    0x00, 0x00, 0x00,              // 0x27 size, 0x28 interface: 8 bits
    0x00, 0x00,                    // 0x2a write buffer
    0x01, 0x00, 0x00, 0x00, 0x00,  // 0x2c one region of equal blocks
    'P',  'R',  'I',  '1',  '0',   // 0x31 Intel extension 1.0
    0x20, 0x00, 0x00, 0x00,        // 0x36 features: instant individual block locking
    0x00, 0x03, 0x00,              // 0x3a no suspend; lock and lock-down status bits
    0x50, 0x00,                    // 0x3d optimal Vcc 5.0 V, no Vpp
};

}  // namespace

Result<std::unique_ptr<Pflash>> Pflash::create(std::string path, FlashFile& file) {
  KITE_ASSIGN(auto array, RamBlock::create(path, align_up(file.size(), kPageSize)));
  KITE_TRY(file.read(0, std::span(array->host(), file.size())));
  return std::unique_ptr<Pflash>(new Pflash(std::move(path), file, std::move(array)));
}

Pflash::Pflash(std::string path, FlashFile& file, std::shared_ptr<RamBlock> array)
    : Device(std::move(path)), file_(file), array_(std::move(array)), window_(*this, &Pflash::read, &Pflash::write) {
  constexpr AccessRule kByteWide{.min_size = 1, .max_size = 1};
  region_ = Region::container("pflash", array_->size());
  array_region_ = Region::rom_device("pflash-array", array_, window_, kByteWide);
  command_region_ = Region::io("pflash-command", array_->size(), window_, kByteWide);
  region_->add(0, array_region_);
  region_->add(0, command_region_);
  command_region_->set_enabled(false);
  state_ = fresh_state();
}

Pflash::~Pflash() { file_.sync(); }

Pflash::State Pflash::fresh_state() const {
  State state;
  state.buffer.resize(kBlockBytes);
  // Blocks come up unlocked, as on chips whose lock bits are not volatile and were never set: firmware programs without
  // unlocking first.
  state.locks.assign(array_->size() / kBlockBytes, kUnlocked);
  return state;
}

void Pflash::reset() {
  const std::lock_guard lock(lock_);
  state_ = fresh_state();
  set_mode(Mode::kArray);
}

void Pflash::stop() {
  const std::lock_guard lock(lock_);
  file_.sync();
}

void Pflash::release() {
  const std::lock_guard lock(lock_);
  file_.release();
}

Result<> Pflash::claim() {
  const std::lock_guard lock(lock_);
  KITE_TRY(file_.claim());
  if (!unwritten_) return {};
  KITE_TRY(file_.write(0, std::span(array_->host(), file_.size())));
  unwritten_ = false;
  return {};
}

void Pflash::set_mode(Mode mode) {
  state_.mode = mode;
  command_region_->set_enabled(mode != Mode::kArray);
}

// --- reads

uint64_t Pflash::read(uint64_t offset, unsigned) {
  const std::lock_guard lock(lock_);
  switch (state_.mode) {
    case Mode::kArray: return array_->host()[offset];  // the map is about to show it
    case Mode::kId: return read_id(offset);
    case Mode::kQuery: return read_query(offset);
    default: return state_.status;
  }
}

uint8_t Pflash::read_id(uint64_t offset) const {
  switch (offset % kBlockBytes) {
    case kIdManufacturer: return kIntel;
    case kIdDevice: return kDevice;
    case kIdLock: {
      const uint8_t lock = state_.locks[offset / kBlockBytes];
      return static_cast<uint8_t>((lock != kUnlocked ? 1 : 0) | (lock == kBlockLockedDown ? 2 : 0));
    }
    default: return 0;
  }
}

uint8_t Pflash::read_query(uint64_t offset) const {
  const uint64_t blocks = array_->size() / kBlockBytes;
  switch (offset) {
    case 0x27: return static_cast<uint8_t>(std::bit_width(array_->size() - 1));  // 2^n bytes
    case 0x2a: return static_cast<uint8_t>(std::countr_zero(kBufferBytes));
    case 0x2d: return static_cast<uint8_t>(blocks - 1);  // region: blocks less one, then their size / 256
    case 0x2e: return static_cast<uint8_t>((blocks - 1) >> 8);
    case 0x2f: return static_cast<uint8_t>(kBlockBytes >> 8);
    case 0x30: return static_cast<uint8_t>(kBlockBytes >> 16);
    default: break;
  }
  if (offset < kQueryStart || offset >= kQueryBytes) return 0;
  return kQuery[offset - kQueryStart];
}

// --- writes

void Pflash::write(uint64_t offset, unsigned, uint64_t value) {
  const auto byte = static_cast<uint8_t>(value);
  const std::lock_guard lock(lock_);
  switch (state_.mode) {
    case Mode::kProgram: program_byte(offset, byte); break;
    case Mode::kErase: byte == kConfirm ? erase_block(offset) : finish(kEraseError | kProgramError); break;
    case Mode::kLock: lock_block(offset, byte); break;
    case Mode::kBufferCount: begin_buffer(offset, byte); break;
    case Mode::kBufferData: buffer_byte(offset, byte); break;
    case Mode::kBufferConfirm: finish_buffer(byte); break;
    default: command(offset, byte); break;
  }
}

void Pflash::command(uint64_t offset, uint8_t value) {
  switch (value) {
    case kProgram:
    case kProgramAlternate: set_mode(Mode::kProgram); break;
    case kBlockErase: set_mode(Mode::kErase); break;
    case kLockSetup: set_mode(Mode::kLock); break;
    case kReadStatus: set_mode(Mode::kStatus); break;
    case kReadId: set_mode(Mode::kId); break;
    case kReadQuery: set_mode(Mode::kQuery); break;
    // The ready bit goes too and comes back with the next operation: firmware recognizes an emulated chip by a status
    // of 0 after it was cleared.
    case kClearStatus:
      state_.status = 0;
      set_mode(Mode::kArray);
      break;
    case kWriteBuffer:
      // [28FxxxJ3] 4.8: the status tells that a buffer is available, then comes the count.
      state_.status |= kReady;
      state_.buffer_block = block_of(offset);
      set_mode(Mode::kBufferCount);
      break;
    case kReadArray: set_mode(Mode::kArray); break;
    default:  // [28FxxxJ3] table 4: other codes are reserved; the chip stays readable
      log::guest_error("{}: command {:#x} is unknown", path(), value);
      set_mode(Mode::kArray);
      break;
  }
}

bool Pflash::writable(uint64_t offset) const {
  return !file_.read_only() && state_.locks[offset / kBlockBytes] == kUnlocked;
}

// The file first: memory never holds what the file has refused.
bool Pflash::commit(uint64_t offset, std::span<const uint8_t> bytes) {
  if (const auto written = file_.write(offset, bytes); !written) {
    log::error("{}: {}", path(), written.error().message);
    return false;
  }
  std::memcpy(array_->host() + offset, bytes.data(), bytes.size());
  array_->note_write(offset, bytes.size());
  return true;
}

void Pflash::finish(uint8_t errors) {
  state_.status |= static_cast<uint8_t>(kReady | errors);
  set_mode(Mode::kStatus);
}

// Programming can only clear bits; setting them takes an erase.
void Pflash::program_byte(uint64_t offset, uint8_t value) {
  if (!writable(offset)) return finish(kProgramError | kLockError);
  const uint8_t after = array_->host()[offset] & value;
  finish(commit(offset, std::span(&after, 1)) ? 0 : kProgramError);
}

void Pflash::erase_block(uint64_t offset) {
  if (!writable(offset)) return finish(kEraseError | kLockError);
  const std::vector<uint8_t> blank(kBlockBytes, kErased);
  finish(commit(block_of(offset), blank) ? 0 : kEraseError);
}

void Pflash::lock_block(uint64_t offset, uint8_t value) {
  uint8_t& lock = state_.locks[offset / kBlockBytes];
  switch (value) {
    case kLockConfirm:
      if (lock == kUnlocked) lock = kBlockLocked;
      return finish(0);
    case kConfirm:
      if (lock == kBlockLockedDown) return finish(kLockError);  // until the next reset
      lock = kUnlocked;
      return finish(0);
    case kLockDownConfirm: lock = kBlockLockedDown; return finish(0);
    default: return finish(kEraseError | kProgramError);  // [28FxxxJ3] 4.3: an improper sequence
  }
}

void Pflash::begin_buffer(uint64_t offset, uint8_t value) {
  if (block_of(offset) != state_.buffer_block) return finish(kEraseError | kProgramError);
  state_.buffer_left = value + 1u;
  state_.buffer_from = kBlockBytes;
  state_.buffer_to = 0;
  std::memcpy(state_.buffer.data(), array_->host() + state_.buffer_block, kBlockBytes);
  set_mode(Mode::kBufferData);
}

// [28FxxxJ3] 4.8: addresses outside of the block abort the command.
void Pflash::buffer_byte(uint64_t offset, uint8_t value) {
  if (block_of(offset) != state_.buffer_block) return finish(kEraseError | kProgramError);
  const uint64_t at = offset - state_.buffer_block;
  state_.buffer[at] &= value;
  state_.buffer_from = std::min(state_.buffer_from, at);
  state_.buffer_to = std::max(state_.buffer_to, at + 1);
  if (--state_.buffer_left == 0) set_mode(Mode::kBufferConfirm);
}

void Pflash::finish_buffer(uint8_t value) {
  if (value != kConfirm) return finish(kEraseError | kProgramError);
  if (!writable(state_.buffer_block)) return finish(kProgramError | kLockError);
  const std::span<const uint8_t> image(state_.buffer);
  const auto changed = image.subspan(state_.buffer_from, state_.buffer_to - state_.buffer_from);
  finish(commit(state_.buffer_block + state_.buffer_from, changed) ? 0 : kProgramError);
}

// --- saved state

void Pflash::save(StateWriter& writer) {
  const std::lock_guard lock(lock_);
  const auto& [mode, status, left, block, from, to, buffer, locks] = state_;
  save_section(writer, path(),
               PflashV2{.mode = static_cast<uint8_t>(mode),
                        .status = status,
                        .buffer_left = left,
                        .buffer_block = block,
                        .buffer_from = from,
                        .buffer_to = to,
                        .buffer = buffer,
                        .locks = locks,
                        .array = file_.read_only() ? std::vector<uint8_t>{}
                                                   : std::vector(array_->host(), array_->host() + file_.size())});
}

void Pflash::restore(StateReader& reader) {
  PflashV2 wire{};
  if (!restore_section(reader, path(), wire)) return;
  const std::lock_guard lock(lock_);
  const bool confirming = wire.mode == static_cast<uint8_t>(Mode::kBufferConfirm);
  const bool taking = wire.mode == static_cast<uint8_t>(Mode::kBufferData);
  if (!require(reader, wire.mode <= kLastMode, "the mode is unknown") ||
      !require(reader, wire.buffer_left <= 256 && (!taking || wire.buffer_left > 0),
               "the buffer's count is impossible") ||
      !require(reader, wire.buffer_block < array_->size() && wire.buffer_block % kBlockBytes == 0,
               "the buffer is for no block") ||
      !require(reader, wire.buffer_from <= kBlockBytes && wire.buffer_to <= kBlockBytes, "the buffer has no bounds") ||
      !require(reader, !confirming || wire.buffer_from < wire.buffer_to, "the buffer is empty") ||
      !require(reader, wire.buffer.size() == kBlockBytes, "the buffer has another size here") ||
      !require(reader, wire.locks.size() == state_.locks.size(), "the chip has another size here") ||
      !require(reader, std::ranges::all_of(wire.locks, [](uint8_t lock) { return lock <= kBlockLockedDown; }),
               "a lock is unknown") ||
      !require(reader, wire.array.empty() == file_.read_only(), "the chip is read-only at one end only") ||
      !require(reader, wire.array.empty() || wire.array.size() == file_.size(), "the chip has another size here"))
    return;
  state_ = State{.mode = static_cast<Mode>(wire.mode),
                 .status = wire.status,
                 .buffer_left = wire.buffer_left,
                 .buffer_block = wire.buffer_block,
                 .buffer_from = wire.buffer_from,
                 .buffer_to = wire.buffer_to,
                 .buffer = std::move(wire.buffer),
                 .locks = std::move(wire.locks)};
  set_mode(state_.mode);
  if (wire.array.empty() || std::ranges::equal(wire.array, std::span(array_->host(), file_.size()))) return;
  std::ranges::copy(wire.array, array_->host());
  array_->note_write(0, wire.array.size());
  unwritten_ = true;
}

}  // namespace kite::devices
