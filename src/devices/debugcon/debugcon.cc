#include "devices/debugcon/debugcon.h"

#include <algorithm>

#include "devices/section.h"
#include "support/log.h"

namespace kite::devices {
namespace {

struct DebugconV1 {
  static constexpr uint32_t kVersion = 1;
};
template <class Codec>
void visit(Codec&, DebugconV1&) {}

}  // namespace

Debugcon::Debugcon(std::string path, Config config, Chardev* chardev)
    : Device(std::move(path)),
      config_(config),
      chardev_(chardev),
      region_(Region::io("isa-debugcon", 1, *this, {.min_size = 1, .max_size = 1})) {
  if (chardev_ != nullptr) chardev_->set_client(this);
}

Debugcon::~Debugcon() {
  if (chardev_ != nullptr) chardev_->set_client(nullptr);
}

uint64_t Debugcon::io_read(uint64_t, unsigned size) { return config_.readback & ((uint64_t{1} << (8 * size)) - 1); }

void Debugcon::io_write(uint64_t, unsigned, uint64_t value) {
  if (chardev_ == nullptr) return;
  {
    const std::lock_guard lock(lock_);
    if (backlog_.size() >= kBacklog) {
      log::guest_error("{}: the host does not take the log as fast as the guest writes it; bytes are lost", path());
      return;
    }
    backlog_.push_back(static_cast<uint8_t>(value));
    if (full_ && chardev_->is_open()) return;
  }
  drain();
}

void Debugcon::writable() {
  {
    const std::lock_guard lock(lock_);
    full_ = false;
  }
  drain();
}

// The chardev is called without the lock, since it may call back; who finds another thread at it leaves the bytes to
// it.
void Debugcon::drain() {
  std::unique_lock lock(lock_);
  drain_again_ = true;
  if (draining_) return;
  draining_ = true;
  while (drain_again_ && !backlog_.empty()) {
    drain_again_ = false;
    std::vector<uint8_t> bytes;
    bytes.swap(backlog_);
    lock.unlock();
    const size_t taken = chardev_->is_open() ? std::min(chardev_->write(bytes), bytes.size()) : bytes.size();
    lock.lock();
    full_ = taken < bytes.size();
    backlog_.insert(backlog_.begin(), bytes.begin() + static_cast<ptrdiff_t>(taken), bytes.end());
  }
  draining_ = false;
}

void Debugcon::save(StateWriter& writer) { save_section(writer, path(), DebugconV1{}); }

void Debugcon::restore(StateReader& reader) {
  DebugconV1 wire;
  restore_section(reader, path(), wire);
}

}  // namespace kite::devices
