// MachineIo: CpuIo over the machine's two address spaces. Dispatch takes no lock to find the device; when the device
// changed a memory map, the change is applied before the access returns, with the other vCPUs parked. Writes to
// coalesced regions queue; every other access drains the queue first.
#pragma once

#include <functional>
#include <memory>

#include "accel/accelerator.h"
#include "accel/cpu_io.h"
#include "machine/coalesced_ring.h"
#include "machine/vcpu_gate.h"
#include "memory/address_space.h"

namespace kite::machine {

class MachineIo final : public CpuIo {
 public:
  MachineIo(AddressSpace& memory, AddressSpace& ports, VcpuGate& gate) : memory_(memory), ports_(ports), gate_(gate) {}
  // Before anything runs: coalesced writes wait for at most CoalescedRing::kDelayNs of this clock.
  // `queued` are those that the accelerator queues by itself, or null; it outlives the machine's threads.
  void set_clock(Clock& clock, QueuedWrites* queued = nullptr);
  // Coalesced writes that wait reach their devices; any thread that holds no device lock.
  void drain_coalesced() override;
  // A further view of memory, committed together with it.
  void set_smm_memory(AddressSpace& memory) { smm_memory_ = &memory; }
  // The board's IRQ 13 logic.
  void set_fpu_error_handler(std::function<void()> handler) { fpu_error_ = std::move(handler); }

  uint32_t pio_read(uint16_t port, unsigned size) override;
  void pio_write(uint16_t port, unsigned size, uint32_t value) override;
  size_t pio_read_many(uint16_t port, unsigned size, std::span<uint8_t> to) override;
  size_t pio_write_many(uint16_t port, unsigned size, std::span<const uint8_t> from) override;
  uint64_t mmio_read(Gpa address, unsigned size) override;
  void mmio_write(Gpa address, unsigned size, uint64_t value) override;
  uint64_t smm_read(Gpa address, unsigned size) override;
  void smm_write(Gpa address, unsigned size, uint64_t value) override;
  void exclusive(const std::function<void()>& work) override { gate_.exclusive(work); }
  void fpu_error() override;

  // Commits what devices changed in the region trees; cheap when nothing did. Any thread that holds no device lock.
  void apply_map_changes();

 private:
  uint64_t read_memory(AddressSpace& memory, Gpa address, unsigned size);
  void write_memory(AddressSpace& memory, Gpa address, unsigned size, uint64_t value);

  AddressSpace& memory_;
  AddressSpace& ports_;
  AddressSpace* smm_memory_ = nullptr;
  VcpuGate& gate_;
  std::function<void()> fpu_error_;
  std::unique_ptr<CoalescedRing> coalesced_;
};

}  // namespace kite::machine
