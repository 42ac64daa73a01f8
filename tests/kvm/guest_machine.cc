#include "kvm/guest_machine.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <pthread.h>

#include <chrono>
#include <fstream>
#include <iterator>

namespace kite::kvm_test {

namespace {

Result<std::shared_ptr<KvmSystem>> open_kvm() { return KvmSystem::open(host_kvm_calls()); }

}  // namespace

const std::string& why_no_kvm() {
  static const std::string reason = [] {
    const auto system = open_kvm();
    return system ? std::string() : system.error().message;
  }();
  return reason;
}

// Ports 0x10-0xff.
class GuestMachine::PortDevice final : public IoHandler {
 public:
  explicit PortDevice(GuestMachine& machine) : machine_(machine) {}
  uint64_t io_read(uint64_t offset, unsigned size) override {
    uint64_t value = 0;
    if (offset == kPattern - kResult)
      for (unsigned i = 0; i < size; ++i) value |= uint64_t{0x11} * (i + 1) << (8 * i);
    return value;
  }
  void io_write(uint64_t offset, unsigned size, uint64_t value) override {
    if (offset == kDone - kResult) return machine_.stop();
    if (offset == kReady - kResult) {
      if (machine_.ready_) machine_.ready_(static_cast<uint32_t>(value));
      return;
    }
    if (offset != 0) return;
    const std::lock_guard lock(machine_.mutex_);
    machine_.results_ += fmt::format("{}{:0{}x}", machine_.results_.empty() ? "" : " ", value, 2 * size);
  }

 private:
  GuestMachine& machine_;
};

// Reads answer the low byte of each address; everything is logged.
class GuestMachine::MmioDevice final : public IoHandler {
 public:
  explicit MmioDevice(GuestMachine& machine) : machine_(machine) {}
  uint64_t io_read(uint64_t offset, unsigned size) override {
    log(fmt::format("r{}@{:x}", size, offset));
    uint64_t value = 0;
    for (unsigned i = 0; i < size; ++i) value |= ((offset + i) & 0xff) << (8 * i);
    return value;
  }
  void io_write(uint64_t offset, unsigned size, uint64_t value) override {
    log(fmt::format("w{}@{:x}={:x}", size, offset, value));
  }

 private:
  void log(std::string text) {
    const std::lock_guard lock(machine_.mutex_);
    machine_.mmio_log_ += (machine_.mmio_log_.empty() ? "" : " ") + text;
  }
  GuestMachine& machine_;
};

class GuestMachine::CpuPort final : public devices::ApicCpu {
 public:
  void connect(Vcpu& vcpu) { vcpu_ = &vcpu; }
  void interrupt() override { post(request::kInterrupt); }
  void nmi() override { post(request::kNmi); }
  void init() override { post(request::kInit); }
  void smi() override { post(request::kSmi); }
  void sipi(uint8_t vector) override {
    if (vcpu_ != nullptr) vcpu_->post_sipi(vector);
  }

 private:
  void post(uint32_t bits) {
    if (vcpu_ != nullptr) vcpu_->post(bits);
  }
  Vcpu* vcpu_ = nullptr;
};

GuestMachine::GuestMachine(const Options& options) : options_(options) {
  auto system = open_kvm();
  EXPECT_TRUE(system) << system.error().message;
  auto made = KvmAccelerator::create(*std::move(system),
                                     {.irqchip = options.irqchip, .dirty_ring_entries = options.dirty_ring_entries});
  EXPECT_TRUE(made) << made.error().message;
  accelerator_ = *std::move(made);
  auto cpu = x86::parse_cpu(options.cpu, accelerator_->offered_features());
  EXPECT_TRUE(cpu) << cpu.error().message;
  cpu_ = *std::move(cpu);
  clock_.resume();
  io_.set_clock(clock_, accelerator_->queued_writes());
  add_memory();
  add_interrupt_controllers();
  memory_.commit();
  ports_.commit();
  EXPECT_TRUE(accelerator_->attach_memory(memory_));
  EXPECT_TRUE(accelerator_->attach_ports(ports_));
  add_vcpus();
}

GuestMachine::~GuestMachine() {
  if (!threads_.empty()) (void)end();
}

void GuestMachine::add_memory() {
  ram_ = *RamBlock::create("ram", kRamBytes);
  rom_ = *RamBlock::create("rom", 0x1000);
  rom_->host()[0] = 0x42;
  ram_region_ = Region::ram("ram", ram_);
  port_device_ = std::make_unique<PortDevice>(*this);
  mmio_device_ = std::make_unique<MmioDevice>(*this);
  port_region_ = Region::io("ports", 0x100 - kResult, *port_device_, {.min_size = 1, .max_size = 4, .unaligned = true});
  mmio_region_ = Region::io("mmio", kMmioBytes, *mmio_device_, {.min_size = 1, .max_size = 8, .unaligned = true});
  memory_.root().add(0, ram_region_);
  memory_.root().add(kMmio, mmio_region_);
  memory_.root().add(kRom, Region::rom("rom", rom_));
  ports_.root().add(kResult, port_region_);
}

void GuestMachine::add_interrupt_controllers() {
  IrqChip* const chip = accelerator_->irq_chip();
  memory_.root().add(devices::ApicBus::kMessageBase, apic_bus_.message_region());
  if (chip != nullptr) {
    kernel_irq_ = std::make_unique<machine::KernelIrq>(*chip, vcpu_list_);
    apic_bus_.set_remote(*kernel_irq_);
  }
  if (chip != nullptr && chip->has_io_controllers()) {
    gsi_ = std::make_unique<machine::GsiLines>(*chip);
    return;
  }
  pic_ = std::make_unique<devices::Pic>("pic", apic_bus_.intr_line());
  apic_bus_.set_ext_int(*pic_);
  ioapic_ = std::make_unique<devices::IoApic>("ioapic", devices::IoApicConfig{}, apic_bus_);
  gsi_ = std::make_unique<machine::GsiLines>(*pic_, *ioapic_);
  ports_.root().add(0x20, pic_->master_ports(), 1);
  ports_.root().add(0xa0, pic_->slave_ports(), 1);
  memory_.root().add(0xfec00000, ioapic_->region(), 1);
  pic_->reset();
  ioapic_->reset();
  if (chip == nullptr) return;
  ioapic_->set_pin_listener(*kernel_irq_);
  chip->set_eoi_listener([this](uint8_t vector) { apic_bus_.end_of_interrupt(vector); });
}

void GuestMachine::add_vcpus() {
  IrqChip* const chip = accelerator_->irq_chip();
  if (chip != nullptr) chip->reset();
  for (uint32_t index = 0; index < options_.cpus; ++index) {
    cpu_ports_.push_back(std::make_unique<CpuPort>());
    LocalApic* apic = nullptr;
    if (chip == nullptr) {
      apics_.push_back(std::make_unique<devices::CpuApic>(fmt::format("apic{}", index),
                                                          devices::CpuApicConfig{.id = index,
                                                                                 .bootstrap = index == 0,
                                                                                 .x2apic = true,
                                                                                 .tsc_deadline = true,
                                                                                 .tsc_hz = accelerator_->tsc_hz()},
                                                          apic_bus_, *cpu_ports_.back(), clock_));
      apics_.back()->reset();
      apic = apics_.back().get();
    }
    auto vcpu = accelerator_->create_vcpu({.index = index,
                                           .apic_id = index,
                                           .cpu_count = options_.cpus,
                                           .cpu = &cpu_,
                                           .clock = &clock_,
                                           .tsc_hz = accelerator_->tsc_hz(),
                                           .apic = apic,
                                           .ext_int = chip != nullptr ? pic_.get() : nullptr});
    ASSERT_TRUE(vcpu) << vcpu.error().message;
    cpu_ports_.back()->connect(**vcpu);
    vcpu_list_.push_back(vcpu->get());
    gate_.add(**vcpu);
    vcpus_.push_back(*std::move(vcpu));
  }
  if (chip != nullptr) chip->program_as_firmware(0);
  for (auto& apic : apics_) apic->enter_virtual_wire_mode();
}

void GuestMachine::load(const std::string& name, int mode) {
  const std::string path = fmt::format("{}/{}{}.bin", KVM_GUEST_DIR, name, mode);
  std::ifstream file(path, std::ios::binary);
  ASSERT_TRUE(file) << path;
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  ASSERT_LE(bytes.size(), 0x8000u);
  std::copy(bytes.begin(), bytes.end(), ram_->host() + 0x8000);
  x86::ArchState state;
  vcpu().get_state(state);
  x86::SegmentRegister& cs = state.seg[static_cast<size_t>(x86::Seg::kCs)];
  cs.selector = 0;
  cs.base = 0;
  state.rip = 0x8000;
  vcpu().set_state(state);
}

void GuestMachine::finish(std::optional<HaltReason> reason) {
  {
    const std::lock_guard lock(mutex_);
    if (!finished_) reason_ = reason;
    finished_ = true;
  }
  changed_.notify_all();
}

void GuestMachine::stop() {
  finish(std::nullopt);
  gate_.close();
}

void GuestMachine::run_vcpu(size_t index) {
  pthread_setname_np(pthread_self(), fmt::format("vcpu {}", index).c_str());
  Vcpu& vcpu = *vcpus_[index];
  while (gate_.enter()) {
    const HaltReason reason = vcpu.run(io_);
    const bool ends = reason != HaltReason::kHalted && reason != HaltReason::kKicked;
    if (ends) {
      finish(reason);
      gate_.close();
    }
    gate_.leave();
    if (reason == HaltReason::kHalted) vcpu.wait_for_work();
  }
}

void GuestMachine::begin() {
  {
    const std::lock_guard lock(mutex_);
    finished_ = false;
    reason_.reset();
  }
  for (size_t index = threads_.size(); index < vcpus_.size(); ++index)
    threads_.emplace_back([this, index] { run_vcpu(index); });
  gate_.open();
}

std::optional<HaltReason> GuestMachine::end() {
  std::optional<HaltReason> reason;
  {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, std::chrono::seconds(20), [this] { return finished_; }))
        << "the guest does not end; so far: " << results_;
    reason = reason_;
  }
  gate_.shut_down();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  return reason;
}

std::optional<HaltReason> GuestMachine::run() {
  begin();
  return end();
}

std::string GuestMachine::results() {
  const std::lock_guard lock(mutex_);
  return results_;
}

std::string GuestMachine::mmio_log() {
  const std::lock_guard lock(mutex_);
  return mmio_log_;
}

}  // namespace kite::kvm_test
