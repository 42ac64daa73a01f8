#include "machine/pc/kernel_irq.h"

#include "devices/section.h"

namespace kite::machine {

namespace {

struct KernelIrqStateV1 {
  static constexpr uint32_t kVersion = 1;
  std::vector<uint8_t> chips;
};

template <class Codec>
void visit(Codec& codec, KernelIrqStateV1& s) {
  codec.field(1, s.chips);
}

}  // namespace

void KernelIrq::save(StateWriter& writer) {
  KernelIrqStateV1 wire;
  if (auto state = chip_.get_state(); state) wire.chips = std::move(*state);
  devices::save_section(writer, path(), std::move(wire));
}

void KernelIrq::restore(StateReader& reader) {
  KernelIrqStateV1 wire;
  if (!devices::restore_section(reader, path(), wire)) return;
  if (const auto done = chip_.set_state(wire.chips); !done) reader.reject(done.error().message);
}

// Each processor's LINT0 decides by itself whether it takes the 8259's interrupts.
void KernelIrq::set_intr(bool level) {
  if (!level) return;
  for (Vcpu* vcpu : vcpus_) vcpu->post(request::kInterrupt);
}

void KernelIrq::nmi() {
  for (Vcpu* vcpu : vcpus_) vcpu->post_nmi();
}

void KernelIrq::pin_changed(unsigned input, const std::optional<devices::ApicMessage>& message) {
  if (!message) return chip_.set_pin(input, std::nullopt);
  const devices::MsiMessage msi = devices::msi_of(*message);
  chip_.set_pin(input, MsiWrite{.address = msi.address, .data = msi.data});
}

}  // namespace kite::machine
