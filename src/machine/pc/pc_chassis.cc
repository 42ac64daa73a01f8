#include "machine/pc/pc_chassis.h"

#include <algorithm>
#include <ctime>

#include "machine/memory_backends.h"

namespace kite::machine {

using devices::ApicCpu;

class PcChassis::CpuPort final : public ApicCpu {
 public:
  explicit CpuPort(bool smm) : smm_(smm) {}
  void connect(Vcpu& vcpu) { vcpu_ = &vcpu; }
  void interrupt() override { post(request::kInterrupt); }
  void nmi() override {
    if (vcpu_ != nullptr) vcpu_->post_nmi();
  }
  void smi() override {
    if (smm_) post(request::kSmi);
  }
  void init() override { post(request::kInit); }
  void sipi(uint8_t vector) override {
    if (vcpu_ != nullptr) vcpu_->post_sipi(vector);
  }
  [[nodiscard]] int64_t tsc_offset() const override { return vcpu_ != nullptr ? vcpu_->tsc_offset() : 0; }

 private:
  void post(uint32_t bits) {
    if (vcpu_ != nullptr) vcpu_->post(bits);
  }
  const bool smm_;  // the CPU takes SMIs
  Vcpu* vcpu_ = nullptr;
};

PcChassis::PcChassis(BoardContext context, RamSplit split)
    : context_(std::move(context)), split_(split), guest_memory_(context_.memory) {}

PcChassis::~PcChassis() {
  if (context_.console != nullptr && keyboard_ != nullptr) {
    context_.console->remove_keyboard(*keyboard_);
    context_.console->remove_pointer(*keyboard_);
  }
  for (UsbPlug& plug : usb_devices_) unplug_usb(plug);
  usb_devices_.clear();
  for (DiskPlace& disk : disks_) disk.bus->detach(*disk.device);
  disks_.clear();
}

Result<> PcChassis::build() {
  KITE_TRY(add_ram());
  KITE_ASSIGN(const PropertyMap flash, context_.types.resolve({.type = "cfi.pflash01", .id = "", .values = {}}, ""));
  KITE_ASSIGN(system_rom_, SystemRom::create({.config = context_.config.firmware,
                                              .system_memory = context_.memory.root(),
                                              .isa_memory = *pci_memory_,
                                              .use = SystemRom::use_of(context_.config),
                                              .secure_flash = flash.boolean("secure"),
                                              .incoming = context_.config.incoming}));
  add_interrupt_controllers();
  add_local_apics();
  if (context_.executor != nullptr)
    interrupt_events_ = make_interrupt_events(*context_.executor, *apic_bus_, *gsi_, context_.irq_chip);
  KITE_TRY(add_chipset());
  KITE_TRY(system_rom_->show_in(smram()));
  add_timers();
  add_isa_devices();
  add_serial_ports();
  KITE_TRY(add_board_disks());
  if (context_.config.usb) KITE_TRY(add_usb_controllers());
  for (const DeviceConfig& device : context_.config.devices) KITE_TRY(add_user_device(device));
  KITE_TRY(add_added_disks());
  KITE_TRY(tell_firmware());
  ioapic_tap_ = {.intercept_inputs = [this](std::function<void(uint32_t, bool)> tap) { gsi_->set_tap(std::move(tap)); },
                 .drive_input =
                     [this](uint32_t line, bool level) {
                       if (line < GsiLines::kLines) gsi_->set_ioapic_input(line, level);
                     }};
  return {};
}

// --- memory

Result<std::shared_ptr<RamBlock>> PcChassis::whole_memory() {
  const MachineConfig& config = context_.config;
  if (config.main_memory.empty()) return RamBlock::create("pc.ram", config.ram_bytes);
  KITE_ASSIGN(const MemoryBackend* backend, find_memory_backend(config, "-machine memory-backend", config.main_memory));
  if (backend->bytes != config.ram_bytes)
    return fail("-machine memory-backend={}: it has {} MiB and -m says {}; both have to be the same", backend->id,
                backend->bytes >> 20, config.ram_bytes >> 20);
  return make_memory(*backend);
}

// One block, or one for each NUMA node.
Result<std::shared_ptr<Region>> PcChassis::main_memory() {
  const MachineConfig& config = context_.config;
  const auto region_of = [&config](std::string name, std::shared_ptr<RamBlock> block) {
    if (!config.dump_guest_core) block->exclude_from_core_dumps();
    return Region::ram(std::move(name), std::move(block));
  };
  if (!context_.numa.has_memories()) {
    KITE_ASSIGN(auto block, whole_memory());
    return region_of("pc.ram", std::move(block));
  }
  auto all = Region::container("pc.ram", config.ram_bytes);
  uint64_t at = 0;
  for (const NumaLayout::Node& node : context_.numa.nodes) {
    KITE_ASSIGN(const MemoryBackend* backend, find_memory_backend(config, "-numa node,memdev", node.memory));
    KITE_ASSIGN(auto block, make_memory(*backend));
    all->add(at, region_of(node.memory, std::move(block)));
    at += node.bytes;
  }
  return all;
}

Result<> PcChassis::add_ram() {
  const uint64_t bytes = context_.config.ram_bytes;
  ram_low_ = bytes >= split_.most_low ? split_.split_low : bytes;
  ram_high_ = bytes - ram_low_;
  KITE_ASSIGN(ram_, main_memory());
  Region& root = context_.memory.root();
  // 0xa0000-0xfffff belongs to the host bridge, which shows RAM there as its PAM registers say.
  constexpr uint64_t kConventional = 0xa0000, kMib = 0x100000;
  root.add(0, Region::alias("ram-conventional", ram_, 0, std::min(ram_low_, kConventional)));
  if (ram_low_ > kMib) root.add(kMib, Region::alias("ram-below-4g", ram_, kMib, ram_low_ - kMib));
  if (ram_high_ != 0) root.add(kFourGib, Region::alias("ram-above-4g", ram_, ram_low_, ram_high_));
  pci_memory_ = Region::container("pci", uint64_t{1} << 52);
  root.add(0, pci_memory_, -1);
  return {};
}

std::vector<boot::E820Entry> PcChassis::e820() const {
  using Type = boot::E820Type;
  constexpr uint64_t kEbda = 0x9fc00, kBios = 0xf0000, kMib = 0x100000;
  const uint64_t acpi = ram_low_ - kAcpiBytes;
  std::vector<boot::E820Entry> map = {{0, kEbda, Type::kRam},
                                      {kEbda, 0xa0000 - kEbda, Type::kReserved},
                                      {kBios, kMib - kBios, Type::kReserved},
                                      {kMib, acpi - kMib, Type::kRam},
                                      {acpi, kAcpiBytes, Type::kAcpi},
                                      {0xfeffc000, 0x4000, Type::kReserved},
                                      {0xfffc0000, 0x40000, Type::kReserved}};
  for (const boot::E820Entry& range : reserved_ranges()) map.push_back(range);
  if (ram_high_ != 0) map.push_back({kFourGib, ram_high_, Type::kRam});
  return map;
}

// --- interrupts

void PcChassis::add_interrupt_controllers() {
  IrqChip* const chip = context_.irq_chip;
  apic_bus_ = std::make_unique<devices::ApicBus>();
  apic_bus_->set_memory(guest_memory_);
  context_.memory.root().add(devices::ApicBus::kMessageBase, apic_bus_->message_region());
  if (chip != nullptr) {
    kernel_irq_ = std::make_unique<KernelIrq>(*chip, vcpus_);
    apic_bus_->set_remote(*kernel_irq_);
  }
  if (chip != nullptr && chip->has_io_controllers()) {
    gsi_ = std::make_unique<GsiLines>(*chip);
    return;
  }
  pic_ = std::make_unique<devices::Pic>("pic", apic_bus_->intr_line());
  apic_bus_->set_ext_int(*pic_);
  ioapic_ = std::make_unique<devices::IoApic>("ioapic", devices::IoApicConfig{}, *apic_bus_);
  gsi_ = std::make_unique<GsiLines>(*pic_, *ioapic_);
  map_port(0x20, pic_->master_ports());
  map_port(0xa0, pic_->slave_ports());
  map_port(0x4d0, pic_->elcr_ports());
  context_.memory.root().add(kIoApicBase, ioapic_->region());
  if (chip == nullptr) return;
  ioapic_->set_pin_listener(*kernel_irq_);
  chip->set_eoi_listener([this](uint8_t vector) { apic_bus_->end_of_interrupt(vector); });
}

void PcChassis::add_local_apics() {
  for (uint32_t index = 0; index < context_.config.cpu_count; ++index) {
    cpu_ports_.push_back(std::make_unique<CpuPort>(context_.smm));
    if (kernel_irq_ != nullptr) continue;
    const devices::CpuApicConfig config{.id = context_.config.topology.apic_id(index),
                                        .bootstrap = index == 0,
                                        .x2apic = context_.cpu.has(x86::FeatureWord::k1Ecx, 21),
                                        .tsc_deadline = context_.cpu.has(x86::FeatureWord::k1Ecx, 24),
                                        .tsc_hz = context_.tsc_hz};
    apics_.push_back(std::make_unique<devices::CpuApic>(fmt::format("apic{}", index), config, *apic_bus_,
                                                        *cpu_ports_.back(), context_.clock));
  }
}

void PcChassis::connect_cpu(uint32_t index, Vcpu& vcpu) {
  cpu_ports_[index]->connect(vcpu);
  vcpus_.push_back(&vcpu);
}

void PcChassis::soft_reset() {
  for (Vcpu* vcpu : vcpus_) vcpu->post(request::kInit);
}

void PcChassis::smi(bool all) {
  for (Vcpu* vcpu : std::span(vcpus_).first(all ? vcpus_.size() : std::min<size_t>(vcpus_.size(), 1)))
    vcpu->post(request::kSmi);
}

Board::IrqTap* PcChassis::irq_tap(std::string_view path) {
  return path == "ioapic" || path.ends_with("/ioapic") ? &ioapic_tap_ : nullptr;
}

// --- ISA

int64_t PcChassis::rtc_offset() const {
  constexpr int64_t kSecond = 1'000'000'000;
  const RtcConfig& config = context_.config.rtc;
  const int64_t host_now = context_.realtime_clock.now();
  int64_t shown = host_now;
  if (config.base == RtcConfig::Base::kDate) {
    shown = config.date_seconds * kSecond;
  } else if (config.base == RtcConfig::Base::kLocaltime) {
    const time_t seconds = static_cast<time_t>(host_now / kSecond);
    tm local{};
    localtime_r(&seconds, &local);
    shown += local.tm_gmtoff * kSecond;
  }
  const bool on_host_clock = config.clock == RtcConfig::ClockSource::kHost;
  return shown - (on_host_clock ? host_now : context_.clock.now());
}

void PcChassis::add_timers() {
  using Lines = LegacyTimerLines;
  IrqChip* const timer = context_.irq_chip != nullptr && context_.irq_chip->has_timer() ? context_.irq_chip : nullptr;
  legacy_timers_ = std::make_unique<Lines>(isa_source(0), isa_source(8), timer);
  legacy_timers_->set_rtc_tap([this] { rtc_interrupt(); });
  const bool host_time = context_.config.rtc.clock == RtcConfig::ClockSource::kHost;
  if (timer == nullptr) {
    pit_ = std::make_unique<devices::Pit>("pit", legacy_timers_->line(Lines::kPit), context_.clock);
    map_port(0x40, pit_->counter_ports());
    map_port(0x61, pit_->speaker_port());
  }
  rtc_ = std::make_unique<devices::Rtc>(
      "rtc", devices::RtcConfig{.offset_ns = rtc_offset(), .replay_missed = context_.config.rtc.replay_missed},
      legacy_timers_->line(Lines::kRtc), host_time ? context_.realtime_clock : context_.clock);
  map_port(0x70, rtc_->ports());
  map_port(0x72, rtc_->extended_ports());
  if (!context_.config.hpet) return;
  hpet_ = std::make_unique<devices::Hpet>("hpet", devices::HpetConfig{.routes = 0x00ff0000},
                                          devices::Hpet::Wiring{.ioapic = gsi_.get(),
                                                                .legacy_irq0 = legacy_timers_->line(Lines::kHpet0),
                                                                .legacy_irq8 = legacy_timers_->line(Lines::kHpet1),
                                                                .apic_bus = apic_bus_.get(),
                                                                .legacy = legacy_timers_.get()},
                                          context_.clock);
  context_.memory.root().add(kHpetBase, hpet_->region());
}

void PcChassis::add_isa_devices() {
  keyboard_ = std::make_unique<devices::I8042>(
      "i8042", devices::I8042::Wiring{
                   .keyboard_irq = isa_source(1), .mouse_irq = isa_source(12), .reset = context_.requests.reset});
  if (context_.console != nullptr) {
    context_.console->add_keyboard(*keyboard_);
    context_.console->add_pointer(*keyboard_);
  }
  port92_ = std::make_unique<devices::Port92>("port92", context_.requests.reset);
  fpu_error_ = std::make_unique<devices::FpuError>("fpu-error", isa_source(13));
  fw_cfg_ = std::make_unique<devices::FwCfg>("fw_cfg", guest_memory_);
  dma_ = std::make_unique<devices::I8237>("dma", guest_memory_);
  map_port(0x00, dma_->byte_ports());
  map_port(0x80, dma_->page_ports());
  map_port(0xc0, dma_->word_ports());
  map_port(0x60, keyboard_->data_region());
  map_port(0x64, keyboard_->command_region());
  map_port(0x92, port92_->region());
  map_port(0xf0, fpu_error_->region());
  map_port(0x510, fw_cfg_->port_region());
  map_port(0x514, fw_cfg_->dma_region());
}

void PcChassis::add_serial_ports() {
  const auto& ports = context_.config.serial_ports;
  for (uint8_t index = 0; index < ports.size() && index < std::size(kSerialPlaces); ++index) {
    if (ports[index] == nullptr) continue;
    const SerialPlace place = kSerialPlaces[index];
    serial_.push_back(std::make_unique<devices::IsaSerial>(fmt::format("serial{}", index), isa_source(place.irq),
                                                           context_.clock, ports[index]));
    serial_ports_.push_back(index);
    map_port(place.port, serial_.back()->region());
  }
}

std::vector<bus::Device*> PcChassis::devices() {
  std::vector<bus::Device*> all;
  for (bus::Device* chip : std::initializer_list<bus::Device*>{kernel_irq_.get(), pic_.get(), ioapic_.get()})
    if (chip != nullptr) all.push_back(chip);
  for (auto& apic : apics_) all.push_back(apic.get());
  for (bus::Device* device : chipset()) all.push_back(device);
  if (pit_) all.push_back(pit_.get());
  const std::initializer_list<bus::Device*> rest = {rtc_.get(),    dma_.get(),       keyboard_.get(),
                                                    port92_.get(), fpu_error_.get(), fw_cfg_.get()};
  all.insert(all.end(), rest);
  if (hpet_) all.push_back(hpet_.get());
  for (auto& port : serial_) all.push_back(port.get());
  for (auto& device : user_devices_) all.push_back(device.get());
  for (auto& plug : usb_devices_) all.push_back(plug.device.get());
  for (auto& disk : disks_) all.push_back(disk.device.get());
  for (bus::Device* chip : system_rom_->chips()) all.push_back(chip);
  return all;
}

}  // namespace kite::machine
