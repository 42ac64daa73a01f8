// What drivers do with each device, and do wrong: the sequences that random single accesses would take years to find.
#include "hostile/hostile_board.h"
#include "support/bytes.h"

namespace kite::hostile {

namespace {

constexpr uint64_t kIoApic = 0xfec00000;
constexpr uint64_t kHpet = 0xfed00000;
constexpr uint16_t kSerialPorts[] = {0x3f8, 0x3f8, 0x3f8, 0x2f8, 0x3e8, 0x2e8};
constexpr uint8_t kTestdev = 0x10, kIsaBridge = 0x08, kPower = 0x0b;  // devfn
constexpr uint8_t kRtcTime[] = {0x00, 0x02, 0x04, 0x06, 0x07, 0x08, 0x09, 0x32};
constexpr uint8_t kRtcAlarm[] = {0x01, 0x03, 0x05};
constexpr uint8_t kMouseData[] = {200, 100, 80, 3, 0, 1, 2, 10};
constexpr uint8_t kKeyboardController[] = {0xa7, 0xa8, 0xa9, 0xaa, 0xab, 0xad, 0xae, 0xc0,
                                           0xd0, 0xd1, 0xd2, 0xd3, 0xdd, 0xdf, 0xe0};
constexpr uint8_t kBridgeRegisters[] = {0x4c, 0x4e, 0x69, 0x6a, 0x76, 0x82};

}  // namespace

// --- interrupt controllers

void HostileBoard::pic() {
  const uint16_t base = flip() ? 0x20 : 0xa0;
  const auto data = static_cast<uint16_t>(base + 1);
  const auto initialize = [&] {
    const uint8_t icw1 = static_cast<uint8_t>(0x10 | (byte() & 0x0f));
    out(base, icw1);
    for (unsigned left = below(4); left > 0; --left) out(data, byte());
  };
  switch (below(8)) {
    case 0: return initialize();
    case 1:  // as a kernel does it
      out(base, 0x11);
      out(data, 0x20);
      out(data, base == 0x20 ? 4 : 2);
      out(data, flip() ? 1 : byte());
      return out(data, 0);
    case 2: return out(data, byte());                  // OCW1
    case 3: return out(base, byte() & 0xe7);           // OCW2
    case 4: return out(base, 0x08 | (byte() & 0x67));  // OCW3
    case 5:
      out(base, 0x0c);  // poll
      in(base);
      return;
    case 6: return out(static_cast<uint16_t>(0x4d0 + below(2)), byte());
    default: in(base); in(data);
  }
}

void HostileBoard::ioapic() {
  const auto put = [this](uint8_t index, uint32_t data) {
    machine_->io().mmio_write(kIoApic, 4, index);
    machine_->io().mmio_write(kIoApic + 0x10, 4, data);
  };
  const uint32_t pin = below(24);
  const auto low = static_cast<uint8_t>(0x10 + 2 * pin);
  switch (below(6)) {
    case 0: return put(byte(), value());
    case 1:
    case 2: {  // unmasked, edge or level, either destination mode
      const uint32_t target = flip() ? below(4) << 24 : value();
      put(static_cast<uint8_t>(low + 1), target);
      return put(low, source_.take<uint16_t>() & 0xfeff);
    }
    case 3:
      machine_->io().mmio_write(kIoApic, 4, byte());
      machine_->io().mmio_read(kIoApic + 0x10, 4);
      return;
    case 4: return machine_->io().mmio_write(kIoApic + 0x40, 4, byte());
    default:  // the pc-testdev pulls the pin
      out(static_cast<uint16_t>(0x2000 + pin), flip() ? 1 : 0);
  }
}

void HostileBoard::apic() {
  LocalApic& apic = *machine_->board().local_apic(below(2));
  const uint32_t offset = below(0x40) * 16;
  switch (below(8)) {
    case 0: apic.mmio_read(offset + below(16)); return;
    case 1: return apic.mmio_write(offset, value());
    case 2: {
      uint64_t read = 0;
      apic.msr_read(0x800 + below(256), read);
      return;
    }
    case 3: apic.msr_write(0x800 + below(256), uint64_t{below(8) == 0 ? value() : 0} << 32 | value()); return;
    case 4: apic.set_base(0xfee00000 | uint32_t{byte()} << 8 | (flip() ? 0x800u : 0u)); return;
    case 5: apic.set_cr8(static_cast<uint8_t>(below(16))); return;
    case 6: return apic.mmio_write(0xf0, 0x100 | byte());
    default: return apic.mmio_write(0x320 + 0x10 * below(6), uint32_t{byte() & 1u} << 16 | source_.take<uint16_t>());
  }
}

void HostileBoard::apic_timer() {
  LocalApic& apic = *machine_->board().local_apic(below(2));
  const uint32_t mode = below(4);
  apic.mmio_write(0xf0, 0x1ff);
  apic.mmio_write(0x320, mode << 17 | (byte() | 0x20u));
  apic.mmio_write(0x3e0, byte());
  if (mode == 2)
    apic.set_tsc_deadline(flip() ? value() : source_.take<uint64_t>());
  else
    apic.mmio_write(0x380, below(4) == 0 ? value() : source_.take<uint16_t>());
  pass_time(int64_t{1} << below(22));
  apic.mmio_read(0x390);
  (void)apic.tsc_deadline();
}

void HostileBoard::apic_message() {
  LocalApic& apic = *machine_->board().local_apic(below(2));
  if (flip()) {  // a device's message
    const uint64_t address = 0xfee00000 | uint64_t{below(4)} << 12 | (byte() & 0x0c);
    return machine_->io().mmio_write(address, 4, source_.take<uint16_t>());
  }
  const uint32_t command = uint32_t{byte()} << 12 | (source_.take<uint16_t>() & 0xfff);
  if (flip()) {
    apic.mmio_write(0x310, flip() ? below(4) << 24 : value());
    apic.mmio_write(0x300, command & 0xcffff);
  } else {
    apic.msr_write(0x830, uint64_t{flip() ? below(3) : value()} << 32 | command);
  }
}

// --- timers and the clock

void HostileBoard::pit() {
  const uint32_t counter = below(3);
  const auto port = static_cast<uint16_t>(0x40 + counter);
  switch (below(6)) {
    case 0: out(0x43, byte()); break;
    case 1: out(0x43, 0xc0 | (byte() & 0x3f)); break;  // read-back
    case 2: out(0x43, counter << 6); break;            // latch
    case 3: out(0x61, byte()); break;                  // gate of counter 2
    default: {
      const uint32_t access = 1 + below(3);
      out(0x43, counter << 6 | access << 4 | (byte() & 0x0f));
      if ((access & 1) != 0) out(port, byte());
      if ((access & 2) != 0) out(port, below(8));
      if (counter == 2 && flip()) out(0x61, byte() & 3);
      pass_time(int64_t{1} << below(24));
      break;
    }
  }
  for (unsigned reads = below(4); reads > 0; --reads) in(port);
}

void HostileBoard::rtc() {
  const auto put = [this](uint8_t index, uint8_t data) {
    out(0x70, index);
    out(0x71, data);
  };
  switch (below(8)) {
    case 0: return put(byte(), byte());
    case 1: return put(0x0a, static_cast<uint8_t>(0x20 | (byte() & 0x8f)));  // rate
    case 2: return put(0x0b, byte());
    case 3: {  // the clock is set, perhaps to nonsense
      const auto format = static_cast<uint8_t>(byte() & 0x07);
      put(0x0b, static_cast<uint8_t>(0x80 | format));
      for (unsigned count = below(8); count > 0; --count) put(pick(kRtcTime), byte());
      return put(0x0b, static_cast<uint8_t>(format | (byte() & 0x70)));
    }
    case 4:  // an alarm, each part perhaps "any"
      for (const uint8_t part : kRtcAlarm) put(part, flip() ? 0xff : static_cast<uint8_t>(byte() % 60));
      return put(0x0b, static_cast<uint8_t>(0x20 | (byte() & 0x57)));
    case 5: {
      out(0x70, 0x0c);
      in(0x71);
      return;
    }
    case 6: out(0x72, byte()); return flip() ? out(0x73, byte()) : static_cast<void>(in(0x73));
    default: out(0x70, below(14)); in(0x71);
  }
}

void HostileBoard::hpet() {
  const auto put = [this](uint64_t reg, uint64_t data, unsigned size) {
    machine_->io().mmio_write(kHpet + reg, size, data);
  };
  const uint64_t timer = 0x100 + 0x20 * uint64_t{below(4)};
  const uint64_t period = uint64_t{1} << below(24);
  switch (below(6)) {
    case 0: return put(0x10, byte() & 3, 8);                                  // counting, legacy replacement
    case 1: return put(timer + below(0x20), value(), 1u << below(4));         // any register of a timer
    case 2: return put(0xf0, flip() ? value() : uint64_t{value()} << 32, 8);  // the counter
    case 3: {
      put(0x20, value(), 4);  // interrupts that are done
      machine_->io().mmio_read(kHpet + below(0x180), 1u << below(4));
      return;
    }
    default: break;
  }
  // A timer as a kernel starts it: one-shot or periodic, edge or level, to a pin or as a message.
  put(0x10, 0, 4);
  put(timer, source_.take<uint16_t>() | 4u, 8);
  put(timer + 0x10, uint64_t{0xfee00000} << 32 | source_.take<uint16_t>(), 8);
  put(timer + 8, machine_->io().mmio_read(kHpet + 0xf0, 8) + period, flip() ? 8 : 4);
  if (flip()) put(timer + 8, period, 8);  // the period follows the first comparator
  put(0x10, 1 | (byte() & 2), 4);
  pass_time(int64_t{1} << below(24));
}

// --- the serial lines and the keyboard controller

void HostileBoard::uart() {
  const uint16_t base = pick(kSerialPorts);
  const auto put = [&](unsigned reg, uint8_t data) { out(static_cast<uint16_t>(base + reg), data); };
  switch (below(8)) {
    case 0: {  // the divisor latch
      const uint8_t format = byte();
      put(3, static_cast<uint8_t>(0x80 | format));
      put(0, byte());
      put(1, static_cast<uint8_t>(below(4)));
      return put(3, format & 0x7f);
    }
    case 1: return put(2, byte());  // FIFO control
    case 2: return put(1, byte());  // interrupts
    case 3: return put(4, byte());  // modem control
    case 4:                         // loopback
      put(4, static_cast<uint8_t>(0x10 | (byte() & 0x0f)));
      for (unsigned count = below(20); count > 0; --count) put(0, byte());
      pass_time(int64_t{1} << below(24));
      break;
    case 5:
      for (unsigned count = below(40); count > 0; --count) put(0, 0x41);
      break;
    default: pass_time(int64_t{1} << below(24)); break;
  }
  for (unsigned reads = below(10); reads > 0; --reads) in(static_cast<uint16_t>(base + below(8)));
}

void HostileBoard::i8042() {
  switch (below(8)) {
    case 0: out(0x64, byte()); break;
    case 1: out(0x60, byte()); break;
    case 2:  // the command byte
      out(0x64, 0x60);
      out(0x60, byte());
      break;
    case 3:  // a keyboard command, with its data
      out(0x60, 0xed + below(19));
      if (flip()) out(0x60, byte());
      break;
    case 4:  // a mouse command, with its data
      out(0x64, 0xd4);
      out(0x60, 0xe6 + below(26));
      if (flip()) break;
      out(0x64, 0xd4);
      out(0x60, pick(kMouseData));
      break;
    case 5:  // the wheel's knock
      for (const uint8_t rate : {uint8_t{200}, flip() ? uint8_t{100} : uint8_t{200}, uint8_t{80}}) {
        for (const uint8_t data : {uint8_t{0xf3}, rate}) {
          out(0x64, 0xd4);
          out(0x60, data);
        }
      }
      break;
    case 6:
      out(0x64, pick(kKeyboardController));
      out(0x60, byte());
      break;
    default: keys(); break;
  }
  for (unsigned reads = below(6); reads > 0; --reads) in(flip() ? 0x60 : 0x64);
}

// --- firmware configuration

void HostileBoard::fw_cfg() {
  out(0x510, below(8) == 0 ? source_.take<uint16_t>() : below(0x30) | (flip() ? 0x8000u : 0u), 2);
  for (unsigned reads = below(16); reads > 0; --reads) in(0x511, width());
  if (flip()) out(0x511, byte());
}

void HostileBoard::fw_cfg_dma() {
  const uint32_t structure = below(16) == 0 ? value() : source_.take<uint16_t>();
  const uint32_t control = (below(4) == 0 ? value() : below(0x30)) << 16 | below(32);
  const uint32_t length = below(8) == 0 ? value() : source_.take<uint16_t>() % 9000;
  const uint64_t address = below(8) == 0 ? source_.take<uint64_t>() : source_.take<uint32_t>() & 0x1fffff;
  const auto store = [&](uint64_t at, uint32_t field) {
    machine_->io().mmio_write(structure + at, 4, __builtin_bswap32(field));
  };
  store(0, control);
  store(4, length);
  store(8, static_cast<uint32_t>(address >> 32));
  store(12, static_cast<uint32_t>(address));
  if (below(16) == 0) out(0x514, value(), 4);
  out(0x518, __builtin_bswap32(structure), 4);
  if (flip()) in(static_cast<uint16_t>(0x514 + below(8)), width());
}

// --- PCI

void HostileBoard::pci_bars() {
  const bool ports = flip();
  uint32_t place = ports ? 0xc000 : 0xc0000000;
  if (below(4) == 0) place = value();  // over RAM, over the interrupt controllers, at the end of the address space
  config_write(kTestdev, ports ? 0x14 : 0x10, place, 4);
  config_write(kTestdev, 0x04, byte(), 2);
  config_read(kTestdev, ports ? 0x14 : 0x10, 4);
  const uint32_t select = below(4);
  const uint32_t target = ports ? 128 : 2048;
  for (const uint32_t offset : {uint32_t{0}, uint32_t{1}, uint32_t{4}, 8 + below(24), target + below(8)}) {
    const uint32_t data = offset == 0 ? select : offset >= target ? (flip() ? 0xfa : byte()) : byte();
    if (ports) {
      out(static_cast<uint16_t>(place + offset), data, width());
      in(static_cast<uint16_t>(place + offset), width());
    } else {
      machine_->io().mmio_write(uint64_t{place} + offset, width(), data);
      machine_->io().mmio_read(uint64_t{place} + offset, width());
    }
  }
}

void HostileBoard::bridge() {
  switch (below(4)) {
    case 0: config_write(0, static_cast<uint8_t>(0x59 + below(7)), byte(), 1); break;  // shadow RAM
    case 1: config_write(0, 0x72, byte(), 1); break;                                   // SMRAM
    case 2: config_write(kIsaBridge, static_cast<uint8_t>(0x60 + below(4)), byte(), 1); break;
    default: config_write(kIsaBridge, pick(kBridgeRegisters), value(), width()); break;
  }
  const uint64_t address = 0xa0000 + uint64_t{below(96)} * 4096;
  machine_->io().mmio_write(address, 4, value());
  machine_->io().mmio_read(address, 4);
}

void HostileBoard::power_management() {
  const auto base = static_cast<uint16_t>(below(16) == 0 ? source_.take<uint16_t>() & 0xffc0 : 0x600);
  config_write(kPower, 0x40, base | 1u, 4);
  config_write(kPower, 0x80, below(16) != 0 ? 1 : byte(), 1);
  const auto put = [&](unsigned reg, uint32_t data) { out(static_cast<uint16_t>(base + reg), data, 2); };
  switch (below(8)) {
    case 0: put(0, value()); break;  // status
    case 1: put(2, value()); break;  // enable
    case 2: put(4, value() & 0xdfff); break;
    case 3: put(4, 0x2000 | (byte() & 0x1fu) << 8 | (byte() & 7u)); break;  // sleep
    case 4: out(static_cast<uint16_t>(base + below(64)), value(), width()); break;
    case 5: out(static_cast<uint16_t>(0xafe0 + below(4)), byte(), width()); break;
    case 6: out(0xb2, flip() ? 0xf0 + below(2) : byte()); break;
    default: in(static_cast<uint16_t>(base + below(64)), width()); break;
  }
  if (flip()) machine_->board().power_button();
}

void HostileBoard::resets() {
  switch (below(6)) {
    case 0: return out(0xcf9, byte());
    case 1: return out(0x92, byte());
    case 2: return out(0x64, 0xf0 + below(16));
    case 3: return out(0xcf9, flip() ? 6 : 4);
    case 4: return out(static_cast<uint16_t>(0xf4 + below(4)), value(), width());
    default: return out(0xf0, byte());
  }
}

void HostileBoard::test_devices() {
  switch (below(6)) {
    case 0: return out(static_cast<uint16_t>(0xe0 + below(12)), value(), width());
    case 1: in(static_cast<uint16_t>(0xe0 + below(12)), width()); return;
    case 2: return out(0xe4, below(2) == 0 ? 0xff000000 : value(), 4);
    case 3: return out(static_cast<uint16_t>(0x2000 + below(24)), value(), width());
    case 4: return out(0x402, byte(), width());
    default: {
      const uint64_t address = 0xff000000 + below(0x10000);
      machine_->io().mmio_write(address, width(), value());
      machine_->io().mmio_read(address, width());
    }
  }
}

}  // namespace kite::hostile
