#include "devices/e1000/e1000.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "support/bytes.h"

namespace kite::devices {

using namespace e1000;
using net::Delivery;

namespace {

// 13.4.30, 13.4.31, 13.4.41, 13.4.44: units of the delays; 13.4.18: of the throttle.
constexpr int64_t kDelayNs = 1024, kThrottleNs = 256;
constexpr uint32_t kPacketBufferKib = 64;

}  // namespace

Result<std::unique_ptr<E1000>> E1000::create(std::string path, Config config, const Wiring& wiring) {
  const std::vector<uint8_t> rom = std::move(config.rom);
  std::unique_ptr<E1000> card(new E1000(std::move(path), std::move(config), wiring));
  KITE_TRY(card->add_rom(rom));
  return card;
}

E1000::E1000(std::string path, Config config, const Wiring& wiring)
    : PciDevice(std::move(path), {.vendor = kVendorId, .device = kDeviceId, .revision = 3, .class_code = 0x020000}),
      memory_(wiring.memory),
      clock_(wiring.clock),
      home_(wiring.home),
      backend_(config.backend),
      memory_window_(*this, &E1000::read_memory, &E1000::write_memory),
      port_window_(*this, &E1000::read_ports, &E1000::write_ports),
      self_(std::make_shared<E1000*>(this)),
      eeprom_(config.mac),
      timer_(clock_, [this] { fire(); }) {
  constexpr AccessRule kRule{.min_size = 4, .max_size = 4};  // 13.2.1: double words
  declare_bar(0, Region::io("e1000", kMemoryBytes, memory_window_, kRule), {.size = kMemoryBytes});
  declare_bar(1, Region::io("e1000-io", kPortBytes, port_window_, kRule), {.size = kPortBytes, .io = true});
  set_interrupt_pin(1);
  phy_.reset(false);
  reset_mac();
  if (backend_ == nullptr) return;
  backend_->set_client(this);
  phy_.reset(backend_->link_up());
  update_link();
}

Result<> E1000::add_rom(const std::vector<uint8_t>& image) {
  if (image.empty()) return {};
  if (image.size() > kMostRom)
    return fail("{}: the card's ROM has {} bytes; at most {} fit", path(), image.size(), kMostRom);
  KITE_ASSIGN(auto block,
              RamBlock::create(path() + ".rom", std::max<uint64_t>(std::bit_ceil(image.size()), kPageSize)));
  std::ranges::copy(image, block->host());
  declare_rom(Region::rom("e1000.rom", std::move(block)));
  return {};
}

E1000::~E1000() {
  *self_ = nullptr;
  if (backend_ != nullptr) backend_->set_client(nullptr);
}

// --- life

void E1000::reset() {
  reset_config();
  const std::lock_guard lock(lock_);
  phy_.reset(backend_ != nullptr && backend_->link_up());
  reset_mac();
}

// 13.4.1, 14.4: the PHY, the EEPROM's wires and the configuration space stay as they are.
void E1000::reset_mac() {
  ++life_;
  const int64_t negotiation = state_.deadlines[kNegotiation];
  state_.registers.reset();
  state_.registers.set_mac(eeprom_.mac());
  state_.port_address = 0;
  state_.plain = state_.segmented = {};
  state_.packet = {};
  state_.deadlines = {};
  if (phy_.state().negotiating) state_.deadlines[kNegotiation] = negotiation;
  update_link();
  state_.registers[ICR] = 0;
  drive_interrupt();
  arm();
}

void E1000::start() {
  {
    const std::lock_guard lock(lock_);
    running_ = true;
    arm();
  }
  ask_for_both();
}

void E1000::stop() {
  const std::lock_guard lock(lock_);
  running_ = false;
  timer_.disarm();
}

void E1000::config_written(uint16_t offset, unsigned size, uint32_t) {
  // Bus mastering may be on now.
  if (offset <= bus::pci::kCommand && offset + size > bus::pci::kCommand) ask_for_both();
}

void E1000::ask_to_transmit() {
  if (transmit_asked_.exchange(true, std::memory_order_acq_rel)) return;
  home_.post([self = self_] {
    if (*self != nullptr) (*self)->transmit();
  });
}

void E1000::ask_to_receive() {
  if (receive_asked_.exchange(true, std::memory_order_acq_rel)) return;
  home_.post([self = self_] {
    if (*self == nullptr) return;
    (*self)->receive_asked_.store(false, std::memory_order_release);
    if ((*self)->backend_ != nullptr) (*self)->backend_->accept_input();
  });
}

// --- registers

uint64_t E1000::read_memory(uint64_t offset, unsigned) {
  const std::lock_guard lock(lock_);
  return read_register(static_cast<uint32_t>(offset));
}

void E1000::write_memory(uint64_t offset, unsigned, uint64_t value) {
  const std::lock_guard lock(lock_);
  write_register(static_cast<uint32_t>(offset), static_cast<uint32_t>(value));
}

uint64_t E1000::read_ports(uint64_t offset, unsigned) {
  const std::lock_guard lock(lock_);
  if (offset == IOADDR) return state_.port_address;
  return offset == IODATA ? read_register(state_.port_address) : 0;
}

void E1000::write_ports(uint64_t offset, unsigned, uint64_t value) {
  const std::lock_guard lock(lock_);
  if (offset == IOADDR) state_.port_address = static_cast<uint32_t>(value) & (kMemoryBytes - 4);
  if (offset == IODATA) write_register(state_.port_address, static_cast<uint32_t>(value));
}

uint32_t E1000::read_register(uint32_t offset) {
  if (offset >= kRegisterEnd) return 0;
  if (offset >= kStatistics && offset < kStatisticsEnd) return state_.registers.take_statistic(offset);
  if (offset == EECD) {
    const uint32_t value = state_.registers[EECD];
    return value | kEepromPresent | (eeprom_.out() ? kEepromOut : 0) |
           ((value & kEepromRequest) != 0 ? kEepromGrant : 0);
  }
  if (offset == ICR) {  // 13.4.17: reading clears
    const uint32_t causes = std::exchange(state_.registers[ICR], 0);
    drive_interrupt();
    return causes;
  }
  return state_.registers[offset];
}

void E1000::write_register(uint32_t offset, uint32_t value) {
  if (offset >= kRegisterEnd) return;
  E1000Registers& registers = state_.registers;
  registers.write(offset, value);
  switch (offset) {
    case CTRL: write_control(value); break;
    case EECD: write_eecd(value); break;
    case EERD:  // 13.4.4: the word is there at once
      if ((value & kReadStart) != 0)
        registers[EERD] = uint32_t{eeprom_.word(value >> 8 & 0xff)} << 16 | (value & 0xff00) | kReadDone;
      break;
    case CTRL_EXT:
      if ((value & kEepromReset) != 0) registers.set_mac(eeprom_.mac());
      registers[CTRL_EXT] &= ~kEepromReset;
      break;
    case MDIC: write_mdic(value); break;
    case PBA:  // 13.4.16: the transmitter has what is left
      registers[PBA] = (value & 0x7f) | (kPacketBufferKib - std::min(value & 0x7f, kPacketBufferKib)) << 16;
      break;
    case ICR:
      registers[ICR] &= ~value;
      drive_interrupt();
      break;
    case ICS: raise(value & kCauses); break;
    case IMS:
      registers[IMS] |= value & kCauses;
      drive_interrupt();
      break;
    case IMC:
      registers[IMS] &= ~value;
      drive_interrupt();
      break;
    case RDTR:
      if ((value & kFlush) != 0) end_delay(kRxPacket, kRxAbsolute, kRxTimer);
      break;
    case TIDV:
      if ((value & kFlush) != 0) end_delay(kTxPacket, kTxAbsolute, kTxWritten);
      break;
    case RDT: ask_to_receive(); break;
    case RCTL: ask_for_both(); break;  // it may loop now
    case TDBAL:
    case TDBAH:
    case TDLEN:
    case TDH:
    case TDT:
    case TCTL: ask_to_transmit(); break;
    default: break;
  }
}

void E1000::write_control(uint32_t value) {
  if ((value & kReset) != 0) return reset_mac();
  // 13.4.1: the PHY is held while the bit is set, and begins anew when it is cleared; it has done so at once here.
  if ((value & kPhyReset) != 0) {
    phy_.soft_reset();
    update_link();
  }
}

void E1000::write_eecd(uint32_t value) {
  eeprom_.drive((value & kEepromSelect) != 0, (value & kEepromClock) != 0, (value & kEepromIn) != 0);
}

// 13.4.7. Anything that is no transfer to the one PHY there is ends with an error.
void E1000::write_mdic(uint32_t value) {
  const uint32_t number = value >> 16 & 0x1f, phy = value >> 21 & 0x1f, operation = value >> 26 & 3;
  uint32_t result = (value & ~(kMdiError | 0x8000'0000)) | kMdiReady;
  if (phy != kPhyAddress || (operation != kMdiRead && operation != kMdiWrite)) {
    result |= kMdiError;
  } else if (operation == kMdiRead) {
    result = (result & 0xffff0000) | phy_.read(number);
  } else {
    phy_.write(number, static_cast<uint16_t>(value));
    update_link();
    ask_to_transmit();  // it may loop now
  }
  state_.registers[MDIC] = result;
  if ((value & kMdiInterrupt) != 0) raise(kMdiDone);
}

E1000::Ring E1000::ring(uint32_t base) const {
  const E1000Registers& registers = state_.registers;
  return {.head = registers[base + (RDH - RDBAL)],
          .tail = registers[base + (RDT - RDBAL)],
          .count = static_cast<uint32_t>(registers[base + (RDLEN - RDBAL)] / sizeof(Descriptor))};
}

// --- interrupts

void E1000::raise(uint32_t causes) {
  state_.registers[ICR] |= causes;
  drive_interrupt();
}

// 13.4.18: the line does not rise again before the throttle's time has passed since it last did.
void E1000::drive_interrupt() {
  const bool pending = (state_.registers[ICR] & state_.registers[IMS]) != 0;
  const bool throttled = !state_.line && state_.deadlines[kThrottle] > clock_.now();
  const bool level = pending && !throttled;
  if (level && !state_.line) {
    const uint32_t interval = state_.registers[ITR];
    interval != 0 ? set_deadline(kThrottle, interval * kThrottleNs) : void(state_.deadlines[kThrottle] = 0);
  }
  if (pending && throttled) arm();
  state_.line = level;
  set_intx(level);
}

// 3.2.7.1, 3.4.3: each packet begins the delay anew; the absolute timer bounds it from the first one on.
void E1000::delay_interrupt(Deadline packet, uint32_t delay, Deadline absolute, uint32_t most, uint32_t cause) {
  if (delay == 0) return end_delay(packet, absolute, cause);
  set_deadline(packet, delay * kDelayNs);
  if (most != 0 && state_.deadlines[absolute] == 0) set_deadline(absolute, most * kDelayNs);
  arm();
}

void E1000::end_delay(Deadline packet, Deadline absolute, uint32_t cause) {
  state_.deadlines[packet] = state_.deadlines[absolute] = 0;
  raise(cause);
}

void E1000::arm() {
  // The throttle's end matters while it holds an interrupt back.
  const bool held = !state_.line && (state_.registers[ICR] & state_.registers[IMS]) != 0;
  int64_t first = Clock::kNever;
  for (unsigned i = 0; i < kDeadlines; ++i)
    if (state_.deadlines[i] != 0 && (i != kThrottle || held)) first = std::min(first, state_.deadlines[i]);
  if (!running_ || first == Clock::kNever)
    timer_.disarm();
  else if (timer_.deadline() != first)
    timer_.arm_at(first);
}

void E1000::fire() {
  const std::lock_guard lock(lock_);
  if (!running_) return;
  const int64_t now = clock_.now();
  const auto due = [&](Deadline deadline) {
    return state_.deadlines[deadline] != 0 && state_.deadlines[deadline] <= now;
  };
  if (due(kThrottle)) state_.deadlines[kThrottle] = 0;
  if (due(kNegotiation)) {
    state_.deadlines[kNegotiation] = 0;
    phy_.end_negotiation();
    update_link();
  }
  if (due(kRxPacket) || due(kRxAbsolute)) end_delay(kRxPacket, kRxAbsolute, kRxTimer);
  if (due(kTxPacket) || due(kTxAbsolute)) end_delay(kTxPacket, kTxAbsolute, kTxWritten);
  drive_interrupt();
  arm();
}

// --- the link

// STATUS tells of the PHY; a link that comes or goes is a cause. 13.4.2, 13.4.17.
void E1000::update_link() {
  if (phy_.take_start()) {
    set_deadline(kNegotiation, kNegotiationNs);
    arm();
  }
  if (!phy_.state().negotiating) state_.deadlines[kNegotiation] = 0;
  uint32_t& status = state_.registers[STATUS];
  const uint32_t before = status;
  status &= ~(kFullDuplex | kLinkUp | kSpeed | kDetectedSpeed);
  const uint32_t speed = phy_.speed();  // what was detected says 11b of 1000, as drivers know it
  status |= speed << kSpeedShift | (speed == 2 ? kDetectedSpeed : speed << kDetectedShift);
  if (phy_.full_duplex()) status |= kFullDuplex;
  if (phy_.link()) status |= kLinkUp;
  if (((status ^ before) & kLinkUp) == 0) return;
  raise(kLinkChange);
  ask_for_both();
}

void E1000::link_changed() {
  const std::lock_guard lock(lock_);
  phy_.set_cable(backend_ != nullptr && backend_->link_up());
  update_link();
}

void E1000::backend_gone() {
  backend_ = nullptr;
  link_changed();
}

net::NetClient::Description E1000::describe() const {
  const std::lock_guard lock(lock_);
  return {.name = path(), .model = "e1000", .mac = state_.registers.mac()};
}

// 13.4.22, [IEEE 802.3] 22.2.4.1.2: what is sent comes back, and the cable sees nothing of it.
bool E1000::loops() const { return phy_.loops() || (state_.registers[RCTL] & kLoopback) == kLoopback; }

bool E1000::carries() const { return may_master() && (loops() || (state_.registers[STATUS] & kLinkUp) != 0); }

}  // namespace kite::devices
