#include "devices/acpi_cpus/acpi_cpus.h"

#include <utility>

#include "devices/acpi_cpus/acpi_cpus_regs.h"
#include "devices/section.h"

namespace kite::devices {

using namespace acpi_cpus_regs;

namespace {

struct AcpiCpusV1 {
  static constexpr uint32_t kVersion = 1;
  uint32_t selector;
  uint8_t command;
};
template <class Codec>
void visit(Codec& codec, AcpiCpusV1& wire) {
  codec.field(1, wire.selector);
  codec.field(2, wire.command);
}

}  // namespace

AcpiCpus::AcpiCpus(std::string path, std::vector<Processor> processors)
    : Device(std::move(path)),
      processors_(std::move(processors)),
      window_(*this, &AcpiCpus::read, &AcpiCpus::write),
      region_(Region::io("acpi-cpus", kSize, window_, {.min_size = 1, .max_size = 4})) {}

void AcpiCpus::reset() {
  const std::lock_guard lock(lock_);
  state_ = State{};
}

uint64_t AcpiCpus::read(uint64_t offset, unsigned) {
  const std::lock_guard lock(lock_);
  if (state_.selector >= processors_.size()) return 0;
  const Processor& selected = processors_[state_.selector];
  switch (offset) {
    case kCommandData2: return state_.command == kArchId ? selected.apic_id >> 32 : 0;
    case kStatus: return selected.enabled ? kEnabled : 0;
    case kCommandData:
      if (state_.command == kNextEvent) return state_.selector;
      return state_.command == kArchId ? selected.apic_id & UINT32_MAX : 0;
    default: return 0;
  }
}

// Without events there is nothing to acknowledge, and nothing that the system could tell of one.
void AcpiCpus::write(uint64_t offset, unsigned, uint64_t value) {
  const std::lock_guard lock(lock_);
  if (offset == kSelector) state_.selector = static_cast<uint32_t>(value);
  if (offset == kCommand && value <= kLastCommand && state_.selector < processors_.size())
    state_.command = static_cast<uint8_t>(value);
}

void AcpiCpus::save(StateWriter& writer) {
  const std::lock_guard lock(lock_);
  save_section(writer, path(), AcpiCpusV1{.selector = state_.selector, .command = state_.command});
}

void AcpiCpus::restore(StateReader& reader) {
  AcpiCpusV1 wire{};
  if (!restore_section(reader, path(), wire)) return;
  if (!require(reader, wire.command <= kLastCommand, "the command is unknown")) return;
  const std::lock_guard lock(lock_);
  state_ = {.selector = wire.selector, .command = wire.command};
}

}  // namespace kite::devices
