#include "hostile/hostile_board.h"

#include <algorithm>

#include "devices/types.h"

namespace kite::hostile {

namespace {

constexpr uint64_t kRamBytes = 2 << 20;
constexpr uint32_t kCpus = 2;

// First port and how many follow.
struct Ports {
  uint16_t first, count;
};
constexpr Ports kPorts[] = {{0x20, 2},  {0xa0, 2},  {0x4d0, 2},  {0x40, 4},  {0x60, 8},    {0x70, 4},
                            {0x92, 1},  {0xb2, 2},  {0xcf8, 8},  {0x3f8, 8}, {0x2f8, 8},   {0x3e8, 8},
                            {0x2e8, 8}, {0x402, 1}, {0x510, 16}, {0xf0, 2},  {0xf4, 4},    {0x600, 64},
                            {0xe0, 12}, {0xcf9, 1}, {0xafe0, 4}, {0xe9, 1},  {0x2000, 32}, {0xc000, 256}};
constexpr uint64_t kPages[] = {0xfec00000, 0xfed00000, 0xfee00000, 0xfee01000, 0xff000000,
                               0xc0000000, 0xa0000,    0xc0000,    0xe0000,    0xf0000,
                               0xfffff000, 0,          0x1ff000,   0x200000,   1ull << 51};
constexpr uint8_t kFunctions[] = {0x00, 0x08, 0x0b, 0x10, 0x09, 0x30, 0x38, 0xff};
constexpr uint8_t kConfigRegisters[] = {0x00, 0x04, 0x06, 0x0c, 0x10, 0x14, 0x30, 0x3c, 0x40, 0x44, 0x4c, 0x59,
                                        0x5a, 0x5d, 0x5f, 0x60, 0x61, 0x62, 0x63, 0x72, 0x80, 0x82, 0xf0, 0xff};

Result<machine::DeviceConfig> user_device(const TypeRegistry& types, std::string_view text) {
  KITE_ASSIGN(const auto options, parse_object_options(text, "driver"));
  KITE_ASSIGN(auto properties, types.resolve(options, "-device"));
  return machine::DeviceConfig{.type = options.type, .id = options.id, .properties = std::move(properties)};
}

std::vector<uint8_t> saved(bus::Device& device) {
  StateWriter writer;
  device.save(writer);
  return writer.take();
}

Result<> restored(bus::Device& device, std::span<const uint8_t> state) {
  StateReader reader(state);
  device.restore(reader);
  return reader.finish();
}

}  // namespace

const HostileBoard::Weighted HostileBoard::kActions[] = {
    {10, &HostileBoard::any_port},
    {6, &HostileBoard::any_memory},
    {6, &HostileBoard::any_config},
    {16, &HostileBoard::time},
    {8, &HostileBoard::take_interrupts},
    {5, &HostileBoard::console},
    {3, &HostileBoard::keys},
    {2, &HostileBoard::host_event},
    {1, &HostileBoard::save_and_restore},
    {1, &HostileBoard::damaged_state},
    {8, &HostileBoard::pic},
    {8, &HostileBoard::pit},
    {7, &HostileBoard::rtc},
    {5, &HostileBoard::hpet},
    {9, &HostileBoard::uart},
    {8, &HostileBoard::i8042},
    {2, &HostileBoard::fw_cfg},
    {4, &HostileBoard::fw_cfg_dma},
    {7, &HostileBoard::ioapic},
    {7, &HostileBoard::apic},
    {6, &HostileBoard::apic_timer},
    {5, &HostileBoard::apic_message},
    {4, &HostileBoard::pci_bars},
    {4, &HostileBoard::bridge},
    {6, &HostileBoard::power_management},
    {1, &HostileBoard::resets},
    {14, &HostileBoard::q35},
    {5, &HostileBoard::test_devices},
    {30, &HostileBoard::virtio},
};

HostileBoard::HostileBoard()
    : consoles_{HostileConsole("serial0"), HostileConsole("serial1"), HostileConsole("serial2"),
                HostileConsole("serial3"), HostileConsole("log"),     HostileConsole("port"),
                HostileConsole("console")} {}

HostileBoard::~HostileBoard() = default;

Result<std::unique_ptr<HostileBoard>> HostileBoard::create(std::string board_name) {
  std::unique_ptr<HostileBoard> board(new HostileBoard);
  KITE_TRY(board->build(std::move(board_name)));
  return board;
}

Result<> HostileBoard::build(std::string board) {
  q35_ = board != "pc";
  devices::register_device_types(types_);
  KITE_ASSIGN(executor_, Executor::create("hostile"));
  machine::MachineConfig config;
  config.board = std::move(board);
  config.accelerators = {"qtest"};
  config.cpu_model = "max";
  config.ram_bytes = kRamBytes;
  config.cpu_count = config.max_cpus = kCpus;
  config.no_shutdown = true;
  // Seconds before a new century, on the manual clock.
  config.rtc = {.base = machine::RtcConfig::Base::kDate,
                .date_seconds = 946'684'797,
                .clock = machine::RtcConfig::ClockSource::kVirtual};
  for (size_t port = 0; port < 4; ++port) config.serial_ports.push_back(&consoles_[port]);
  std::vector<const char*> added = {"pc-testdev",
                                    "pci-testdev",
                                    "isa-debug-exit,iobase=0xf4,iosize=4",
                                    "isa-debugcon",
                                    "virtio-balloon-pci,addr=10,free-page-reporting=on,packed=on",
                                    "virtio-rng-pci,addr=11,rng=zeroes,max-bytes=4096,period=10",
                                    "virtio-serial-pci,addr=12,id=ports,max_ports=4",
                                    "virtserialport,name=org.kite.port",
                                    "virtconsole",
                                    "virtio-gpu-pci,addr=13,id=screen,max_hostmem=1M",
                                    "qemu-xhci,id=xhci,addr=6",
                                    "usb-tablet,bus=xhci.0",
                                    "piix3-usb-uhci,id=uhci,addr=7",
                                    "usb-kbd,bus=uhci.0"};
  if (q35_) {
    const auto express = q35_devices();
    added.insert(added.end(), express.begin(), express.end());
  }
  for (const char* text : added) {
    KITE_ASSIGN(auto device, user_device(types_, text));
    if (device.type == "isa-debugcon") device.chardev = &consoles_[4];
    if (device.type == "virtserialport") device.chardev = &consoles_[5];
    if (device.type == "virtconsole") device.chardev = &consoles_[6];
    config.devices.push_back(std::move(device));
  }
  // The same bytes are to do the same: no real random numbers.
  entropy_ = std::make_unique<entropy::EntropyRegistry>(*executor_);
  PropertyMap zeroes;
  zeroes.set("filename", std::string("/dev/zero"));
  KITE_TRY(entropy_->add("rng-random", "zeroes", zeroes));
  KITE_ASSIGN(machine_, machine::Machine::create(config, {.executor = *executor_,
                                                          .types = types_,
                                                          .exit = [this](int) { ended_ = true; },
                                                          .entropy = entropy_.get()}));
  devices_ = machine_->board().devices();
  for (bus::Device* device : devices_)
    if (auto* keyboard = dynamic_cast<devices::I8042*>(device)) keyboard_ = keyboard;
  return machine_->start();
}

uint32_t HostileBoard::value() {
  switch (below(6)) {
    case 0: return 0;
    case 1: return ~uint32_t{0};
    case 2: return uint32_t{1} << below(32);
    case 3: return byte();
    case 4: return source_.take<uint16_t>();
    default: return source_.take<uint32_t>();
  }
}

Result<> HostileBoard::run(std::span<const uint8_t> input) {
  source_ = fuzz::ByteSource(input.data(), input.size());
  steps_ = 0;
  time_left_ns_ = 3'000'000'000;  // beyond half a period of the PM timer
  outcome_ = {};
  while (!source_.empty() && outcome_) {
    act();
    settle();
    ++steps_;
  }
  if (outcome_) save_and_restore();
  return outcome_;
}

void HostileBoard::act() {
  static const unsigned total = [] {
    unsigned sum = 0;
    for (const Weighted& entry : kActions) sum += entry.weight;
    return sum;
  }();
  unsigned number = below(total);
  for (const auto& [weight, action] : kActions) {
    if (number < weight) return (this->*action)();
    number -= weight;
  }
}

// What the process around the machine does between two accesses.
void HostileBoard::settle() {
  for (HostileConsole& console : consoles_) console.turn();
  executor_->run_once(0);
  // S5 or the debug exit: the host resets the machine and lets it go on.
  if (!std::exchange(ended_, false) && machine_->state() == machine::RunState::kRunning) return;
  machine_->reset(machine::Cause::kHostQmpSystemReset);
  if (auto resumed = machine_->resume(); !resumed) outcome_ = std::move(resumed);
}

void HostileBoard::config_write(uint8_t devfn, uint8_t offset, uint32_t value, unsigned size) {
  out(0xcf8, 0x80000000 | uint32_t{devfn} << 8 | (offset & 0xfcu), 4);
  out(static_cast<uint16_t>(0xcfc + (offset & 3)), value, size);
}

uint32_t HostileBoard::config_read(uint8_t devfn, uint8_t offset, unsigned size) {
  out(0xcf8, 0x80000000 | uint32_t{devfn} << 8 | (offset & 0xfcu), 4);
  return in(static_cast<uint16_t>(0xcfc + (offset & 3)), size);
}

// --- single accesses

void HostileBoard::any_port() {
  const Ports range = pick(kPorts);
  const auto port = static_cast<uint16_t>(below(32) == 0 ? source_.take<uint16_t>() : range.first + below(range.count));
  const unsigned size = width();
  if (flip())
    in(port, size);
  else
    out(port, value(), size);
}

void HostileBoard::any_memory() {
  const uint64_t address = pick(kPages) + below(4096);
  const unsigned size = 1u << below(4);
  if (flip())
    machine_->io().mmio_read(address, size);
  else
    machine_->io().mmio_write(address, size, uint64_t{value()} << 32 | value());
}

void HostileBoard::any_config() {
  if (below(16) == 0) out(0xcf8, value(), width());
  const uint8_t devfn = pick(kFunctions);
  const uint8_t offset = flip() ? pick(kConfigRegisters) : byte();
  const unsigned size = width();
  if (below(3) == 0)
    config_read(devfn, offset, size);
  else
    config_write(devfn, offset, value(), size);
}

// --- time and interrupts

// A guest may program timers of 10 us: a run's time is bounded so that its work is.
void HostileBoard::pass_time(int64_t ns) {
  const int64_t passing = std::min(ns, time_left_ns_);
  time_left_ns_ -= passing;
  machine_->manual_clock()->advance(passing);
}

void HostileBoard::time() {
  switch (below(8)) {
    case 0: return pass_time(int64_t{1} << below(32));
    case 1: return pass_time(source_.take<uint32_t>() % 1'000'000'000);
    case 2:
    case 3: return pass_time(source_.take<uint16_t>());
    default: break;
  }
  const int64_t deadline = machine_->manual_clock()->next_deadline();
  if (deadline == Clock::kNever) return;
  pass_time(std::max<int64_t>(deadline - machine_->manual_clock()->now(), 0));
}

void HostileBoard::take_interrupts() {
  const uint32_t cpu = below(kCpus);
  LocalApic& apic = *machine_->board().local_apic(cpu);
  for (unsigned count = 1 + below(4); count > 0 && apic.has_interrupt(); --count) {
    (void)apic.acknowledge();
    const uint8_t endings = byte();
    if ((endings & 1) != 0) apic.mmio_write(0xb0, 0);
    if ((endings & 2) != 0) apic.msr_write(0x80b, 0);
    if ((endings & 4) != 0) out(0xa0, 0x20);
    if ((endings & 8) != 0) out(0x20, 0x20);
  }
}

// --- the host

void HostileBoard::console() {
  HostileConsole& console = consoles_[below(8) < 5 ? 0 : below(static_cast<uint32_t>(consoles_.size()))];
  switch (below(8)) {
    case 0: return console.send_break();
    case 1: return console.set_open(flip());
    case 2: return console.set_room(flip() ? below(20) : SIZE_MAX);
    default: {
      const std::array<uint8_t, 40> text{byte(), byte(), byte()};
      return console.type(std::span(text).first(1 + below(text.size())));
    }
  }
}

void HostileBoard::keys() {
  const auto number = source_.take<uint32_t>();
  const auto code = static_cast<uint16_t>((number & 0x100) != 0 ? 0xe000 | (number & 0x7f) : number & 0xff);
  if (flip())
    keyboard_->key_event(static_cast<devices::Key>(code), (number & 0x200) != 0);
  else
    keyboard_->mouse_event(static_cast<int16_t>(number), static_cast<int16_t>(number >> 16),
                           static_cast<int8_t>(number >> 8), static_cast<uint8_t>(number >> 4));
}

void HostileBoard::host_event() {
  switch (below(6)) {
    case 0: return machine_->request_powerdown();
    case 1: return machine_->request_nmi();
    case 2: return machine_->board().fpu_error();
    case 3: return machine_->request_reset(machine::Cause::kHostQmpSystemReset);
    default: break;
  }
  machine_->pause();
  if (flip()) any_port();
  if (auto resumed = machine_->resume(); !resumed) outcome_ = std::move(resumed);
}

Result<> HostileBoard::check_state(bus::Device& device) {
  const auto before = saved(device);
  if (auto done = restored(device, before); !done)
    return fail("{} refuses its own state: {}", device.path(), done.error().message);
  if (saved(device) != before) return fail("{} is not what it was after save and restore", device.path());
  return {};
}

void HostileBoard::save_and_restore() {
  machine_->pause();
  devices_ = machine_->board().devices();
  for (bus::Device* device : devices_) {
    outcome_ = check_state(*device);
    if (!outcome_) return;
  }
  machine_->io().apply_map_changes();
  if (auto resumed = machine_->resume(); !resumed) outcome_ = std::move(resumed);
}

void HostileBoard::damaged_state() {
  machine_->pause();
  devices_ = machine_->board().devices();
  bus::Device& device = *devices_[below(static_cast<uint32_t>(devices_.size()))];
  const auto before = saved(device);
  auto damaged = before;
  for (unsigned count = 1 + below(3); count > 0; --count)
    damaged[source_.take<uint16_t>() % damaged.size()] ^= static_cast<uint8_t>(1u << below(8));
  if (below(8) == 0) damaged.resize(source_.take<uint16_t>() % damaged.size());
  if (restored(device, damaged)) {
    outcome_ = check_state(device);
  } else if (saved(device) != before) {
    outcome_ = fail("{} refused a state and changed all the same", device.path());
  }
  machine_->io().apply_map_changes();
  if (auto resumed = machine_->resume(); !resumed && outcome_) outcome_ = std::move(resumed);
}

}  // namespace kite::hostile
