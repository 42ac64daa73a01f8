// A machine's state as bytes: first what machine it is, then its clock, its devices in the order in which the board
// resets them, and its vCPUs. RAM goes another way (snapshot/), and disks stay where they are.
#include <algorithm>

#include "devices/section.h"
#include "machine/drive_store.h"
#include "machine/machine.h"
#include "machine/saved_vcpu.h"

namespace kite::machine {

namespace {

struct MachineV1 {
  static constexpr uint32_t kVersion = 1;
  std::vector<uint8_t> board;
  uint32_t cpus = 0;
  uint64_t ram_bytes = 0;
  int64_t clock_ns = 0;
  uint64_t tsc_hz = 0;
  std::vector<uint8_t> cpu_clock;  // Accelerator::save_clock()
};

template <class Codec>
void visit(Codec& codec, MachineV1& wire) {
  auto& [board, cpus, ram_bytes, clock_ns, tsc_hz, cpu_clock] = wire;
  codec.field(1, board);
  codec.field(2, cpus);
  codec.field(3, ram_bytes);
  codec.field(4, clock_ns);
  codec.field(5, tsc_hz);
  codec.field(6, cpu_clock);
}

constexpr std::string_view kSection = "machine";

// As far apart as guests that keep time by the counter bear (KVM's tsc_tolerance_ppm).
bool is_near(uint64_t one, uint64_t other) {
  constexpr uint64_t kPartsPerMillion = 250;
  const uint64_t apart = one > other ? one - other : other - one;
  return apart <= other / 1'000'000 * kPartsPerMillion;
}

std::string text_of(const std::vector<uint8_t>& bytes) {
  std::string text;
  for (const uint8_t byte : bytes) text += byte > 0x20 && byte < 0x7f ? static_cast<char>(byte) : '?';
  return text;
}

}  // namespace

std::vector<uint8_t> Machine::save_state() {
  StateWriter writer;
  const std::string_view board = board_->name();
  devices::save_section(writer, kSection,
                        MachineV1{.board = {board.begin(), board.end()},
                                  .cpus = static_cast<uint32_t>(vcpus_.size()),
                                  .ram_bytes = config_.ram_bytes,
                                  .clock_ns = clock_->now(),
                                  .tsc_hz = accelerator_->tsc_hz(),
                                  .cpu_clock = accelerator_->save_clock()});
  for (bus::Device* const device : board_->devices()) device->save(writer);
  for (size_t index = 0; index < vcpus_.size(); ++index) save_vcpu(writer, index, *vcpus_[index]);
  return writer.take();
}

Result<> Machine::restore_state(std::span<const uint8_t> bytes) {
  StateReader reader(bytes);
  MachineV1 wire;
  const std::string_view board = board_->name();
  devices::restore_section(reader, kSection, wire, [&] {
    using devices::require;
    require(reader, std::ranges::equal(wire.board, board),
            fmt::format("the saved machine is a '{}', this one a '{}'", text_of(wire.board), board));
    require(reader, wire.cpus == vcpus_.size(),
            fmt::format("the saved machine has {} CPUs, this one {}", wire.cpus, vcpus_.size()));
    require(reader, wire.ram_bytes == config_.ram_bytes,
            fmt::format("the saved machine has {} bytes of RAM, this one {}", wire.ram_bytes, config_.ram_bytes));
    require(reader, wire.clock_ns >= 0, "its clock is impossible");
    require(reader, is_near(wire.tsc_hz, accelerator_->tsc_hz()),
            fmt::format("its time-stamp counters run at {} Hz, those of this host at {}", wire.tsc_hz,
                        accelerator_->tsc_hz()));
  });
  KITE_TRY(reader.ok() ? Result<>{} : reader.finish());

  if (services_.drives != nullptr) services_.drives->cancel_waiting();
  for (bus::Device* const device : board_->devices()) device->reset();
  for (auto& vcpu : vcpus_) vcpu->reset();
  if (auto* const clock = dynamic_cast<VirtualClock*>(clock_.get())) clock->set_now(wire.clock_ns);
  if (ManualClock* const clock = manual_clock()) clock->advance_to(wire.clock_ns);
  KITE_TRY(accelerator_->restore_clock(wire.cpu_clock));
  for (bus::Device* const device : board_->devices()) device->restore(reader);
  io_.apply_map_changes();
  for (size_t index = 0; index < vcpus_.size(); ++index) restore_vcpu(reader, index, *vcpus_[index]);
  return reader.finish();
}

}  // namespace kite::machine
