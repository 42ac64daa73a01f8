// A small machine on /dev/kvm for the guests of this folder: RAM, a port device that keeps what the guest writes, a
// memory device, and interrupt controllers as the mode wants them.
#pragma once

#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "accel/kvm/kvm_accelerator.h"
#include "accel/kvm/kvm_vcpu.h"
#include "devices/apic/apic_bus.h"
#include "devices/apic/cpu_apic.h"
#include "devices/ioapic/io_apic.h"
#include "devices/pic/pic.h"
#include "machine/machine_io.h"
#include "machine/pc/gsi.h"
#include "machine/pc/kernel_irq.h"
#include "machine/vcpu_gate.h"
#include "memory/address_space.h"

namespace kite::kvm_test {

struct Options {
  KernelIrqchip irqchip = KernelIrqchip::kOn;
  uint32_t cpus = 1;
  uint32_t dirty_ring_entries = 0;
  std::string cpu = "max";
};

// Why there is no /dev/kvm here, or "".
const std::string& why_no_kvm();

class GuestMachine {
 public:
  static constexpr uint64_t kRamBytes = 0xd0000;  // the guest's; the devices and a ROM follow
  static constexpr uint64_t kMmio = 0xd0000, kMmioBytes = 0x10000, kRom = 0xe0000;
  static constexpr uint16_t kResult = 0x10, kReady = 0x11, kPattern = 0x80, kDone = 0xf0;

  explicit GuestMachine(const Options& options);
  ~GuestMachine();

  // Puts tests/kvm/guests/NAME.S, made for this mode (16, 32, 64), in place.
  void load(const std::string& name, int mode);
  // Called on the vCPU's thread when the guest writes READY: the test does its part.
  void on_ready(std::function<void(uint32_t value)> part) { ready_ = std::move(part); }
  // Runs every vCPU until the guest writes DONE or one stops for a reason of its own; answers that reason, or nothing
  // after DONE. A guest that does neither within twenty seconds fails the test.
  std::optional<HaltReason> run();
  // The same in steps: begin(), then end(), from the test's thread.
  void begin();
  std::optional<HaltReason> end();
  // Any thread: as if the guest had written DONE.
  void stop();

  // What the guest wrote to RESULT, as hexadecimal numbers: "11 2211 44332211".
  [[nodiscard]] std::string results();
  // What it did to the memory device: "w4@30=88776655 r1@51".
  [[nodiscard]] std::string mmio_log();

  // Interrupt input 0-23, whoever has it.
  void set_line(uint32_t gsi, bool level) { gsi_->set_irq(gsi, level); }
  void send_msi(uint64_t address, uint32_t data) { apic_bus_.send_msi(address, data); }
  [[nodiscard]] bus::MsiSink& messages() { return apic_bus_; }
  [[nodiscard]] bus::IrqSink& lines() { return *gsi_; }

  [[nodiscard]] KvmAccelerator& accelerator() { return *accelerator_; }
  [[nodiscard]] KvmVcpu& vcpu(size_t index = 0) { return static_cast<KvmVcpu&>(*vcpus_[index]); }
  [[nodiscard]] uint64_t exits(uint32_t reason, size_t index = 0) {
    return vcpu(index).exit_counts().by_reason[reason].load();
  }
  [[nodiscard]] machine::MachineIo& io() { return io_; }
  [[nodiscard]] machine::VcpuGate& gate() { return gate_; }
  [[nodiscard]] AddressSpace& memory() { return memory_; }
  [[nodiscard]] AddressSpace& ports() { return ports_; }
  [[nodiscard]] const std::shared_ptr<RamBlock>& ram() const { return ram_; }
  [[nodiscard]] const std::shared_ptr<Region>& ram_region() const { return ram_region_; }
  [[nodiscard]] const std::shared_ptr<Region>& mmio_region() const { return mmio_region_; }
  [[nodiscard]] const std::shared_ptr<Region>& port_region() const { return port_region_; }
  [[nodiscard]] VirtualClock& clock() { return clock_; }
  [[nodiscard]] KernelIrqchip irqchip() const { return options_.irqchip; }

 private:
  class PortDevice;
  class MmioDevice;
  class CpuPort;

  void add_memory();
  void add_interrupt_controllers();
  void add_vcpus();
  void run_vcpu(size_t index);
  void finish(std::optional<HaltReason> reason);

  const Options options_;
  AddressSpace memory_{"memory", uint64_t{1} << 52};
  AddressSpace ports_{"io", 65536};
  VirtualClock clock_;
  machine::VcpuGate gate_;
  machine::MachineIo io_{memory_, ports_, gate_};
  x86::CpuSpec cpu_;
  std::shared_ptr<RamBlock> ram_, rom_;
  std::shared_ptr<Region> ram_region_, mmio_region_, port_region_;
  std::unique_ptr<PortDevice> port_device_;
  std::unique_ptr<MmioDevice> mmio_device_;
  std::unique_ptr<KvmAccelerator> accelerator_;
  std::vector<Vcpu*> vcpu_list_;
  devices::ApicBus apic_bus_;
  std::unique_ptr<machine::KernelIrq> kernel_irq_;
  std::unique_ptr<devices::Pic> pic_;
  std::unique_ptr<devices::IoApic> ioapic_;
  std::unique_ptr<machine::GsiLines> gsi_;
  std::vector<std::unique_ptr<CpuPort>> cpu_ports_;
  std::vector<std::unique_ptr<devices::CpuApic>> apics_;
  std::vector<std::unique_ptr<Vcpu>> vcpus_;
  std::function<void(uint32_t)> ready_;
  std::vector<std::thread> threads_;

  std::mutex mutex_;
  std::condition_variable changed_;
  bool finished_ = false;
  std::optional<HaltReason> reason_;
  std::string results_, mmio_log_;
};

}  // namespace kite::kvm_test
