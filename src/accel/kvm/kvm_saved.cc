// A KvmVcpu and its VM's clock as bytes, for a saved machine: KVM's own structs one after the other, each behind its
// length. They go back to a vCPU of the same CPU model and local APIC only.
#include <cstring>

#include "accel/kvm/kvm_vcpu.h"
#include "accel/kvm/kvm_vm.h"
#include "support/log.h"

namespace kite {

namespace {

class Packer {
 public:
  void piece(const void* data, size_t bytes) {
    const auto length = static_cast<uint32_t>(bytes);
    append(&length, sizeof length);
    append(data, bytes);
  }
  [[nodiscard]] std::vector<uint8_t> take() { return std::move(bytes_); }

 private:
  void append(const void* data, size_t bytes) {
    const auto* const from = static_cast<const uint8_t*>(data);
    bytes_.insert(bytes_.end(), from, from + bytes);
  }
  std::vector<uint8_t> bytes_;
};

// Pieces of another length than expected are damage; the first one sticks.
class Unpacker {
 public:
  explicit Unpacker(std::span<const uint8_t> bytes) : bytes_(bytes) {}
  void piece(void* data, size_t bytes) {
    const std::span<const uint8_t> found = next();
    if (found.size() != bytes) good_ = false;
    if (good_ && bytes != 0) std::memcpy(data, found.data(), bytes);
  }
  std::span<const uint8_t> next() {
    uint32_t length = 0;
    if (bytes_.size() < sizeof length) return good_ = false, std::span<const uint8_t>{};
    std::memcpy(&length, bytes_.data(), sizeof length);
    bytes_ = bytes_.subspan(sizeof length);
    if (length > bytes_.size()) return good_ = false, std::span<const uint8_t>{};
    const auto found = bytes_.first(length);
    bytes_ = bytes_.subspan(length);
    return found;
  }
  [[nodiscard]] bool good() const { return good_; }
  [[nodiscard]] bool done() const { return good_ && bytes_.empty(); }

 private:
  std::span<const uint8_t> bytes_;
  bool good_ = true;
};

// What has a fixed size, in order.
template <class Codec, class State>
void fixed_pieces(Codec& codec, State& state) {
  const auto piece = [&codec](auto& part) { codec.piece(&part, sizeof part); };
  piece(state.regs), piece(state.sregs), piece(state.fpu), piece(state.xcrs), piece(state.debugregs);
  piece(state.events), piece(state.mp_state), piece(state.lapic);
}

}  // namespace

std::vector<uint8_t> KvmVcpu::save_own() {
  KvmCpuState state;
  if (auto saved = save(state); !saved) {
    log::error("{}", saved.error().message);
    return {};
  }
  if (stopped_tsc_) state.set_msr(x86::msr::kTsc, *stopped_tsc_);
  Packer packer;
  fixed_pieces(packer, state);
  packer.piece(state.xsave.data(), state.xsave.size());
  packer.piece(state.msrs.data(), state.msrs.size() * sizeof(kvm_msr_entry));
  return packer.take();
}

Result<> KvmVcpu::restore_own(const std::vector<uint8_t>& bytes) {
  if (bytes.empty()) return fail("it was saved under another accelerator than kvm");
  KvmCpuState present;
  KITE_TRY(save(present));
  KvmCpuState state = present;
  Unpacker unpacker(bytes);
  fixed_pieces(unpacker, state);
  unpacker.piece(state.xsave.data(), state.xsave.size());
  const std::span<const uint8_t> msrs = unpacker.next();
  if (!unpacker.done() || msrs.size() % sizeof(kvm_msr_entry) != 0)
    return fail("CPU {}: the saved state does not fit this host's KVM", config_.index);
  for (size_t at = 0; at < msrs.size(); at += sizeof(kvm_msr_entry)) {
    kvm_msr_entry entry{};
    std::memcpy(&entry, msrs.data() + at, sizeof entry);
    if (present.msr(entry.index).has_value()) state.set_msr(entry.index, entry.data);
  }
  state.writes_tsc = true;
  KITE_TRY(load(state));
  if (stopped_tsc_) stopped_tsc_ = state.msr(x86::msr::kTsc);
  return {};
}

std::vector<uint8_t> KvmAccelerator::save_clock() {
  if (!stopped_clock_) return {};
  const uint64_t clock = stopped_clock_->clock;
  std::vector<uint8_t> bytes(sizeof clock);
  std::memcpy(bytes.data(), &clock, sizeof clock);
  return bytes;
}

Result<> KvmAccelerator::restore_clock(const std::vector<uint8_t>& bytes) {
  kvm_clock_data clock{};
  uint64_t value = 0;
  if (bytes.size() != sizeof value) return fail("the machine was saved under another accelerator than kvm");
  std::memcpy(&value, bytes.data(), sizeof value);
  clock.clock = value;
  stopped_clock_ = clock;
  return {};
}

}  // namespace kite
