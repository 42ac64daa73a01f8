#include "machine/pc/pc_chassis.h"

#include <algorithm>
#include <ctime>

#include "support/bytes.h"

namespace kite::machine {

using devices::ApicCpu;

namespace {

// fw_cfg's numbered entries [fw_cfg specification].
enum FwCfgKey : uint16_t {
  kUuid = 0x02,
  kRamSize = 0x03,
  kNoGraphic = 0x04,
  kCpuCount = 0x05,
  kNuma = 0x0d,
  kBootMenu = 0x0e,
  kMaxCpus = 0x0f,
  kIrq0Override = 0x8002,
};

std::vector<uint8_t> little_endian(uint64_t value, size_t bytes) {
  std::vector<uint8_t> data(bytes);
  store_le(data.data(), bytes, value);
  return data;
}

}  // namespace

class PcChassis::CpuPort final : public ApicCpu {
 public:
  void connect(Vcpu& vcpu) { vcpu_ = &vcpu; }
  void interrupt() override { post(request::kInterrupt); }
  void nmi() override { post(request::kNmi); }
  void init() override { post(request::kInit); }
  void sipi(uint8_t vector) override {
    if (vcpu_ != nullptr) vcpu_->post_sipi(vector);
  }
  [[nodiscard]] int64_t tsc_offset() const override { return vcpu_ != nullptr ? vcpu_->tsc_offset() : 0; }

 private:
  void post(uint32_t bits) {
    if (vcpu_ != nullptr) vcpu_->post(bits);
  }
  Vcpu* vcpu_ = nullptr;
};

PcChassis::PcChassis(BoardContext context, RamSplit split)
    : context_(std::move(context)), split_(split), guest_memory_(context_.memory) {}

PcChassis::~PcChassis() = default;

Result<> PcChassis::build() {
  KITE_TRY(add_ram());
  add_interrupt_controllers();
  add_local_apics();
  KITE_TRY(add_chipset());
  add_timers();
  add_isa_devices();
  add_serial_ports();
  KITE_TRY(fill_fw_cfg());
  fill_cmos();
  for (const DeviceConfig& device : context_.config.devices) KITE_TRY(add_user_device(device));
  ioapic_tap_ = {.intercept_inputs = [this](std::function<void(uint32_t, bool)> tap) { gsi_->set_tap(std::move(tap)); },
                 .drive_input =
                     [this](uint32_t line, bool level) {
                       if (line < GsiLines::kLines) gsi_->set_ioapic_input(line, level);
                     }};
  return {};
}

// --- memory

Result<> PcChassis::add_ram() {
  const uint64_t bytes = context_.config.ram_bytes;
  ram_low_ = bytes >= split_.most_low ? split_.split_low : bytes;
  ram_high_ = bytes - ram_low_;
  KITE_ASSIGN(auto block, RamBlock::create("pc.ram", bytes));
  ram_ = Region::ram("pc.ram", std::move(block));
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
  apic_bus_ = std::make_unique<devices::ApicBus>();
  pic_ = std::make_unique<devices::Pic>("pic", apic_bus_->intr_line());
  apic_bus_->set_ext_int(*pic_);
  ioapic_ = std::make_unique<devices::IoApic>("ioapic", devices::IoApicConfig{}, *apic_bus_);
  gsi_ = std::make_unique<GsiLines>(*pic_, *ioapic_);
  map_port(0x20, pic_->master_ports());
  map_port(0xa0, pic_->slave_ports());
  map_port(0x4d0, pic_->elcr_ports());
  context_.memory.root().add(kIoApicBase, ioapic_->region());
  context_.memory.root().add(devices::ApicBus::kMessageBase, apic_bus_->message_region());
}

void PcChassis::add_local_apics() {
  for (uint32_t index = 0; index < context_.config.cpu_count; ++index) {
    cpu_ports_.push_back(std::make_unique<CpuPort>());
    const devices::CpuApicConfig config{.id = index,
                                        .bootstrap = index == 0,
                                        .x2apic = context_.cpu.has(x86::FeatureWord::k1Ecx, 21),
                                        .tsc_deadline = context_.cpu.has(x86::FeatureWord::k1Ecx, 24)};
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
  legacy_timers_ = std::make_unique<Lines>(isa_source(0), isa_source(8));
  const bool host_time = context_.config.rtc.clock == RtcConfig::ClockSource::kHost;
  pit_ = std::make_unique<devices::Pit>("pit", legacy_timers_->line(Lines::kPit), context_.clock);
  rtc_ = std::make_unique<devices::Rtc>("rtc", devices::RtcConfig{.offset_ns = rtc_offset()},
                                        legacy_timers_->line(Lines::kRtc),
                                        host_time ? context_.realtime_clock : context_.clock);
  map_port(0x40, pit_->counter_ports());
  map_port(0x61, pit_->speaker_port());
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
  port92_ = std::make_unique<devices::Port92>("port92", context_.requests.reset);
  fpu_error_ = std::make_unique<devices::FpuError>("fpu-error", isa_source(13));
  fw_cfg_ = std::make_unique<devices::FwCfg>("fw_cfg", guest_memory_);
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

// --- what firmware and kernels ask

Result<> PcChassis::fill_fw_cfg() {
  const MachineConfig& config = context_.config;
  fw_cfg_->add_bytes(kUuid, {config.uuid.begin(), config.uuid.end()});
  fw_cfg_->add_u64(kRamSize, config.ram_bytes);
  fw_cfg_->add_u16(kNoGraphic, config.graphic ? 0 : 1);
  fw_cfg_->add_u16(kCpuCount, static_cast<uint16_t>(config.cpu_count));
  fw_cfg_->add_u16(kMaxCpus, static_cast<uint16_t>(config.max_cpus));
  fw_cfg_->add_u16(kBootMenu, config.boot.menu ? 1 : 0);
  fw_cfg_->add_u32(kIrq0Override, 1);  // the timer is at the IOAPIC's input 2
  // One memory node, which has no table: the node count, then a node number for each CPU, all zero.
  fw_cfg_->add_bytes(kNuma, std::vector<uint8_t>(8 * (1 + size_t{config.max_cpus})));

  std::vector<uint8_t> map;
  for (const boot::E820Entry& entry : e820()) {
    const size_t at = map.size();
    map.resize(at + 20);
    store(map.data() + at, entry.base);
    store(map.data() + at + 8, entry.size);
    store(map.data() + at + 16, static_cast<uint32_t>(entry.type));
  }
  KITE_TRY(fw_cfg_->add_file("etc/e820", std::move(map)));
  if (config.boot.splash_time_ms >= 0)
    KITE_TRY(
        fw_cfg_->add_file("etc/boot-menu-wait", little_endian(static_cast<uint64_t>(config.boot.splash_time_ms), 2)));
  const uint64_t reboot_timeout = static_cast<uint64_t>(config.boot.reboot_timeout_ms);  // -1: all ones
  return fw_cfg_->add_file("etc/boot-fail-wait", little_endian(reboot_timeout, 4));
}

void PcChassis::fill_cmos() {
  const auto set16 = [this](uint8_t index, uint64_t value) {
    rtc_->set_cmos(index, static_cast<uint8_t>(value));
    rtc_->set_cmos(static_cast<uint8_t>(index + 1), static_cast<uint8_t>(value >> 8));
  };
  constexpr uint64_t kMib = 1 << 20;
  const uint64_t extended_kib = std::min<uint64_t>((ram_low_ - kMib) / 1024, 0xffff);
  const uint64_t above_16m = ram_low_ > 16 * kMib ? (ram_low_ - 16 * kMib) / 65536 : 0;
  const uint64_t above_4g = ram_high_ / 65536;
  set16(0x15, 640);  // base memory, KiB
  set16(0x17, extended_kib);
  set16(0x30, extended_kib);
  set16(0x34, std::min<uint64_t>(above_16m, 0xffff));
  set16(0x5b, above_4g);
  rtc_->set_cmos(0x5d, static_cast<uint8_t>(above_4g >> 16));
  rtc_->set_cmos(0x5f, static_cast<uint8_t>(context_.config.cpu_count - 1));
  rtc_->set_cmos(0x14, 0x06);  // equipment: coprocessor, PS/2 mouse; no floppy, no video
  // Boot order: a nibble a device, first in the low half of 0x3d; bit 0 of 0x38 skips the floppy signature check.
  const auto code = [](char letter) {
    return letter == 'a' ? 1u : letter == 'c' ? 2u : letter == 'd' ? 3u : letter == 'n' ? 4u : 0u;
  };
  const std::string& order = context_.config.boot.order;
  const auto nibble = [&](size_t at) { return at < order.size() ? code(order[at]) : 0u; };
  rtc_->set_cmos(0x3d, static_cast<uint8_t>(nibble(1) << 4 | nibble(0)));
  rtc_->set_cmos(0x38, static_cast<uint8_t>(nibble(2) << 4));
}

std::vector<bus::Device*> PcChassis::devices() {
  std::vector<bus::Device*> all = {pic_.get(), ioapic_.get()};
  for (auto& apic : apics_) all.push_back(apic.get());
  for (bus::Device* device : chipset()) all.push_back(device);
  const std::initializer_list<bus::Device*> rest = {pit_.get(),    rtc_.get(),       keyboard_.get(),
                                                    port92_.get(), fpu_error_.get(), fw_cfg_.get()};
  all.insert(all.end(), rest);
  if (hpet_) all.push_back(hpet_.get());
  for (auto& port : serial_) all.push_back(port.get());
  for (auto& device : user_devices_) all.push_back(device.get());
  return all;
}

}  // namespace kite::machine
