// A guest, a host and a state file that mean harm: random accesses to every register of every device, random input,
// saved state in the middle, damaged state. The sanitizer build watches memory; the tests watch that equal machines
// stay equal.
#include <cstdlib>
#include <random>

#include "devices/test_zoo.h"
#include "devices/virtio/test_gpu_commands.h"

namespace kite::devices {
namespace {

using namespace kite::testing;

struct Range {
  uint64_t start, size;
};
constexpr Range kPorts[] = {{0x20, 2},   {0xa0, 2},   {0x4d0, 2},   {0x40, 4},       {0x60, 2},    {0x64, 1},
                            {0x70, 4},   {0x92, 1},   {0xf0, 2},    {0xb2, 2},       {0x3f8, 8},   {0x402, 1},
                            {0xe0, 12},  {0xf4, 4},   {0x510, 2},   {0x514, 8},      {0x3f0, 6},   {0x3f4, 2},
                            {0x3f7, 1},  {0, 16},     {0x80, 16},   {0xc0, 32},      {0xcf8, 8},   {0xcf8, 8},
                            {0xcf8, 8},  {0xafe0, 4}, {0xae00, 20}, {0x600, 64},     {0x2000, 24}, {0xc000, 256},
                            {0x3b0, 48}, {0x3c0, 32}, {0x1ce, 4},   {Zoo::kUhci, 32}};
constexpr Range kMemory[] = {{0xa0000, 0x60000},
                             {Zoo::kIoApic, 0x40},
                             {Zoo::kHpet, 0x400},
                             {ApicBus::kMessageBase, 0x100000},
                             {PcTestdev::kMemoryAddress, 0x10000},
                             {0xe0000000, 0x1000},
                             {Zoo::kNvme, 0x1028},
                             {Zoo::kNvmeQueues, 0x4000},
                             {Zoo::kXhci, 0x4000},
                             {Zoo::kXhci + 0x40, 0x40},
                             {Zoo::kXhci + 0x440, 0x80},
                             {Zoo::kUsbMemory, 0x9000},
                             {Zoo::kE1000, 0x6000},
                             {Zoo::kE1000Rings, 0x3000},
                             {Zoo::kGpu, 0x40},
                             {Zoo::kGpu, 0x4000},
                             {0, Zoo::kRamSize}};
// PIRQs and ISA interrupts that no device here drives (NVMe, xHCI, e1000 and the GPU have PIRQA, UHCI PIRQD), and a
// line that does not exist.
constexpr uint32_t kFreeLines[8] = {1, 1, 2, 2, 16 + 5, 16 + 11, 16 + 15, 32};
constexpr uint64_t kPs2Data[] = {200, 200, 100, 80, 80, 3, 2, 1};
constexpr uint8_t kFunctions[] = {0x00,
                                  0x08,
                                  0x0a,
                                  0x0b,
                                  Zoo::kE1000Slot << 3,
                                  Zoo::kGpuSlot << 3,
                                  Zoo::kXhciSlot << 3,
                                  Zoo::kTestdevSlot << 3,
                                  Zoo::kNvmeSlot << 3,
                                  Zoo::kVgaSlot << 3};

class Hostile {
 public:
  explicit Hostile(uint64_t seed) : random_(seed) {}

  uint64_t below(uint64_t limit) { return random_() % limit; }
  bool chance(unsigned percent) { return below(100) < percent; }
  template <class T, size_t N>
  T pick(const T (&from)[N]) {
    return from[below(N)];
  }
  uint64_t value() {
    switch (below(5)) {
      case 0: return 0;
      case 1: return ~uint64_t{0};
      case 2: return uint64_t{1} << below(64);
      case 3: return below(256);
      default: return random_();
    }
  }

  // One thing that happens, to every machine alike; what the machines answered must be the same.
  void step(std::initializer_list<Zoo*> zoos) {
    const unsigned kind = static_cast<unsigned>(below(100));
    if (kind < 54) {
      port_access(zoos);
    } else if (kind < 55) {
      graphics(zoos);
    } else if (kind < 65) {
      config_access(zoos);
    } else if (kind < 80) {
      memory_access(zoos);
    } else if (kind < 90) {
      apic_access(zoos);
    } else if (kind < 92) {
      dma(zoos);
    } else if (kind < 94) {
      ps2_command(zoos);
    } else if (kind < 95) {
      nvme_command(zoos);
    } else if (kind < 96) {
      floppy_command(zoos);
    } else if (kind < 97) {
      usb(zoos);
    } else if (kind < 98) {
      network(zoos);
    } else {
      host_event(zoos);
    }
    for (Zoo* zoo : zoos) zoo->settle_disks(2);
  }

 private:
  template <class Read>
  void compare(std::initializer_list<Zoo*> zoos, const char* what, uint64_t where, Read read) {
    const uint64_t first = read(**zoos.begin());
    for (auto zoo = zoos.begin() + 1; zoo != zoos.end(); ++zoo)
      ASSERT_EQ(read(**zoo), first) << what << " " << std::hex << where;
  }

  void port_access(std::initializer_list<Zoo*> zoos) {
    const Range range = pick(kPorts);
    const uint64_t port = chance(1) ? below(0x10000) : range.start + below(range.size);
    if (chance(1)) open_power_management(zoos);
    const unsigned size = 1u << below(3);
    const uint64_t written = value() & 0xffffffff;
    if (chance(40)) return compare(zoos, "port", port, [&](Zoo& zoo) { return zoo.in(port, size); });
    for (Zoo* zoo : zoos) zoo->out(port, written, size);
  }

  static void open_power_management(std::initializer_list<Zoo*> zoos) {
    for (Zoo* zoo : zoos) {
      zoo->pm->config_write(0x40, 4, 0x600);
      zoo->pm->config_write(0x80, 1, 1);
    }
  }

  void config_access(std::initializer_list<Zoo*> zoos) {
    const uint64_t address = 0x80000000 | uint64_t{pick(kFunctions)} << 8 | below(64) * 4;
    const unsigned size = 1u << below(3);
    const uint64_t port = 0xcfc + below(4), written = value() & 0xffffffff;
    const bool reads = chance(30);
    for (Zoo* zoo : zoos) zoo->out(0xcf8, address, 4);
    if (reads) return compare(zoos, "config", address, [&](Zoo& zoo) { return zoo.in(port, size); });
    for (Zoo* zoo : zoos) zoo->out(port, written, size);
  }

  void memory_access(std::initializer_list<Zoo*> zoos) {
    const Range range = pick(kMemory);
    const uint64_t address = range.start + below(range.size), written = value();
    const unsigned size = 1u << below(4);
    if (chance(40)) return compare(zoos, "memory", address, [&](Zoo& zoo) { return zoo.load(address, size); });
    for (Zoo* zoo : zoos) zoo->store(address, written, size);
  }

  void apic_access(std::initializer_list<Zoo*> zoos) {
    const size_t cpu = below(Zoo::kCpus);
    const auto offset = static_cast<uint32_t>(below(0x400));
    const uint64_t written = value();
    switch (below(7)) {
      case 0: return compare(zoos, "apic", offset, [&](Zoo& zoo) { return zoo.apics[cpu]->mmio_read(offset); });
      case 1:
        for (Zoo* zoo : zoos) zoo->apics[cpu]->mmio_write(offset & ~0xfu, static_cast<uint32_t>(written));
        return;
      case 2:
        return compare(zoos, "msr", offset, [&](Zoo& zoo) {
          uint64_t read = 0;
          return zoo.apics[cpu]->msr_read(0x800 + offset / 16, read) ? read : 0;
        });
      case 3:
        return compare(zoos, "msr", offset,
                       [&](Zoo& zoo) { return zoo.apics[cpu]->msr_write(0x800 + offset / 16, written); });
      case 4:
        return compare(zoos, "apic base", written,
                       [&](Zoo& zoo) { return zoo.apics[cpu]->set_base(0xfee00000 | (written & 0xf00)); });
      case 5:
        for (Zoo* zoo : zoos) zoo->apics[cpu]->set_tsc_deadline(written & 0xffffffff);
        return;
      default: return compare(zoos, "vector", 0, [&](Zoo& zoo) { return zoo.apics[cpu]->acknowledge().value_or(0); });
    }
  }

  // fw_cfg's DMA with a structure that is mostly in RAM.
  void dma(std::initializer_list<Zoo*> zoos) {
    std::array<uint8_t, 16> structure{};
    store_be32(structure.data(), static_cast<uint32_t>(below(32) | (0x18 + below(12)) << 16));
    store_be32(structure.data() + 4, chance(90) ? static_cast<uint32_t>(below(9000)) : static_cast<uint32_t>(value()));
    store_be64(structure.data() + 8, chance(90) ? below(Zoo::kRamSize) : value());
    const auto at = static_cast<uint32_t>(below(0x90000));
    const bool high = chance(5);
    for (Zoo* zoo : zoos) {
      std::memcpy(zoo->ram->host() + at, structure.data(), structure.size());
      if (high) zoo->out(0x514, 0x01000000, 4);
      zoo->out(0x518, __builtin_bswap32(at), 4);
    }
  }

  // A command in one of the queues, mostly one that makes sense, and the doorbell.
  void nvme_command(std::initializer_list<Zoo*> zoos) {
    nvme::Command command{.opcode = static_cast<uint8_t>(below(14)),
                          .flags = static_cast<uint8_t>(chance(90) ? 0 : value()),
                          .cid = static_cast<uint16_t>(below(100)),
                          .nsid = static_cast<uint32_t>(chance(90) ? 1 : value())};
    command.prp1 = chance(90) ? below(Zoo::kRamSize / 4096) * 4096 : value();
    command.prp2 = chance(90) ? below(Zoo::kRamSize / 4096) * 4096 : value();
    const uint64_t queue = below(4), slot = below(8);
    // Queues, small numbers of blocks and identifiers are what most fields hold. The health log tells what the drive
    // has done, which a restored one has not.
    command.cdw10 = static_cast<uint32_t>(chance(50) ? 7 << 16 | below(4) : below(6));
    if (command.opcode == nvme::kGetLogPage && queue == 0) command.cdw10 = static_cast<uint32_t>(below(20) << 16 | 1);
    command.cdw11 = static_cast<uint32_t>(chance(50) ? 3 | below(4) << 16 : below(3));
    command.cdw12 = static_cast<uint32_t>(chance(90) ? below(64) : value());
    const bool sets_up = chance(10);
    for (Zoo* zoo : zoos) {
      if (sets_up) zoo->set_up_nvme();
      std::memcpy(zoo->ram->host() + Zoo::kNvmeQueues + queue * 0x2000 + slot * 64, &command, sizeof command);
      zoo->store(Zoo::kNvme + nvme::kDoorbells + queue * 8, (slot + 1) % 8, 4);
      if (slot % 2 == 0) zoo->store(Zoo::kNvme + nvme::kDoorbells + queue * 8 + 4, slot, 4);
    }
  }

  // A driver's structures, mostly such as make sense, and what makes the controllers look at them.
  uint64_t usb_address() { return chance(90) ? Zoo::kUsbMemory + below(0x1000) * 16 : value(); }
  void usb(std::initializer_list<Zoo*> zoos) {
    if (chance(15))
      for (Zoo* zoo : zoos) zoo->set_up_usb();
    for (int count = 0; count < 4; ++count) chance(30) ? usb_descriptor(zoos) : usb_trb(zoos);
    const uint64_t slot = below(2), target = 1 + below(4);
    const int64_t frames = static_cast<int64_t>(below(3)) * 1'000'000;
    for (Zoo* zoo : zoos) {
      zoo->store(Zoo::kXhci + xhci::kDoorbells + slot * 4, slot == 0 ? 0 : target, 4);
      zoo->clock.advance(frames);
    }
  }
  void usb_descriptor(std::initializer_list<Zoo*> zoos) {
    constexpr uint32_t kPids[] = {uhci::kPidIn, uhci::kPidOut, uhci::kPidSetup, 0x55};
    const bool queue = chance(30);
    const uint64_t link = chance(90) ? Zoo::usb_page(Zoo::kQueues) + below(16) * 16 : usb_address();
    const std::array<uint32_t, 4> words{
        static_cast<uint32_t>(link | below(8)),
        static_cast<uint32_t>(queue ? Zoo::usb_page(Zoo::kQueues) + below(16) * 16
                                    : uhci::kActive | below(4) << 27 | below(2) << 24),
        static_cast<uint32_t>(pick(kPids) | below(2) << 8 | below(2) << 15 | below(70) << 21),
        static_cast<uint32_t>(usb_address())};
    const uint64_t at = Zoo::usb_page(Zoo::kQueues) + (queue ? 0 : (1 + below(15)) * 16);
    for (Zoo* zoo : zoos) std::memcpy(zoo->ram->host() + at, words.data(), sizeof words);
  }
  void usb_trb(std::initializer_list<Zoo*> zoos) {
    const bool command = chance(30);
    const xhci::Trb trb{.parameter = command && chance(80) ? Zoo::usb_page(Zoo::kInput) : usb_address(),
                        .status = static_cast<uint32_t>(chance(80) ? below(70) : value()),
                        .control = static_cast<uint32_t>((command ? 9 + below(16) : below(9)) << 10 | below(64) |
                                                         below(4) << 24 | (1 + below(3)) << 16)};
    const uint64_t page = command ? Zoo::kCommandRing : Zoo::kRings + below(2);
    const uint64_t at = Zoo::usb_page(page) + below(chance(80) ? 4 : 256) * sizeof trb;
    // An input context that opens endpoints on those rings.
    const std::array<uint32_t, 2> flags{0, static_cast<uint32_t>(chance(70) ? below(32) : value())};
    const auto port = static_cast<uint32_t>(1 + below(3)), type = static_cast<uint32_t>(below(8));
    for (Zoo* zoo : zoos) {
      uint8_t* const input = zoo->ram->host() + Zoo::usb_page(Zoo::kInput);
      std::memcpy(input, flags.data(), sizeof flags);
      store(input + 0x24, port << 16);
      for (uint32_t index = 1; index < 5; ++index) {
        store(input + 0x20 + index * 0x20 + 4, (index == 1 ? 4u : type) << 3);
        store(input + 0x20 + index * 0x20 + 8, Zoo::usb_page(Zoo::kRings + index - 1) | 1);
      }
      std::memcpy(zoo->ram->host() + at, &trb, sizeof trb);
    }
  }

  // Descriptors, mostly such as make sense, the tails, and frames from the cable.
  void network(std::initializer_list<Zoo*> zoos) {
    namespace nic = e1000;
    constexpr uint32_t kRegisters[] = {nic::RCTL,  nic::TCTL,  nic::RXCSUM, nic::CTRL, nic::MDIC, nic::EECD,
                                       nic::ITR,   nic::RDTR,  nic::RADV,   nic::TIDV, nic::TADV, nic::RDH,
                                       nic::RDLEN, nic::TDLEN, nic::RAH,    nic::IMS,  nic::ICR,  nic::ICS};
    const bool sets_up = chance(25), full = chance(10), cut = chance(2);
    const uint64_t index = below(16), commands = below(256) | (chance(70) ? nic::kEnd | nic::kReport : 0);
    const bool context = chance(30);
    const uint64_t address = context ? value() : chance(90) ? Zoo::kE1000Rings + 0x2000 + below(0x1000) : value();
    const uint64_t rest = (chance(90) ? below(600) : below(0x100000)) | commands << 24 |
                          (context ? uint64_t{nic::kExtended} << 24 : below(2) << 20) | below(0x100) << 40 |
                          (chance(80) ? below(200) : value()) << 48;
    const uint32_t offset = pick(kRegisters);
    const uint64_t written = value();
    const bool pokes = chance(30);
    std::vector<uint8_t> frame(chance(95) ? below(300) : below(20'000));
    for (uint8_t& byte : frame) byte = static_cast<uint8_t>(random_());
    if (chance(50) && frame.size() > 14) store_be16(&frame[12], chance(50) ? 0x0800 : 0x8100);
    for (Zoo* zoo : zoos) {
      if (sets_up) zoo->set_up_e1000();
      if (pokes) zoo->store(Zoo::kE1000 + offset, written, 4);
      store(zoo->ram->host() + Zoo::kE1000Rings + 0x1000 + index * 16, address);
      store(zoo->ram->host() + Zoo::kE1000Rings + 0x1000 + index * 16 + 8, rest);
      zoo->store(Zoo::kE1000 + nic::TDT, (index + 1) % 16, 4);
      zoo->store(Zoo::kE1000 + nic::RDT, index, 4);
      zoo->cable->full = full;
      zoo->cable->client()->writable();
      // Not by way of the back end, which would keep it for later: that is not the guest's state.
      static_cast<void>(zoo->cable->client()->receive(frame));
      if (cut) zoo->cable->set_link(net::NetBackend::End::kHost, !zoo->cable->link_up());
      zoo->cable->sent.clear();
    }
  }

  // Some commands of a driver's.
  void graphics(std::initializer_list<Zoo*> zoos) {
    if (chance(15))
      for (Zoo* zoo : zoos) zoo->set_up_gpu();
    for (int count = 0; count < 6; ++count) {
      auto words =
          gpu_command([this](uint64_t bound) { return static_cast<uint32_t>(below(bound)); }, Zoo::kGpuPictures);
      if (chance(10)) words[below(words.size())] = static_cast<uint32_t>(value());
      const uint64_t queue = words[0] >= virtio_gpu::kUpdateCursor ? 1 : 0, room = uint64_t{8} << below(8);
      for (Zoo* zoo : zoos) {
        std::memcpy(zoo->ram->host() + Zoo::kGpuRequest, words.data(), words.size() * sizeof words[0]);
        zoo->offer_gpu(queue, words.size() * sizeof words[0], room);
        zoo->settle_disks(2);
      }
    }
  }

  // The bytes of a read, a write, a format, with the DMA channel open.
  void floppy_command(std::initializer_list<Zoo*> zoos) {
    constexpr uint8_t kCommands[] = {0xe6, 0xc5, 0x4d, 0x46, 0x4a, 0x0f, 0x16, 0x42};
    const std::array<uint8_t, 9> bytes{pick(kCommands),
                                       static_cast<uint8_t>(below(2) << 2),
                                       static_cast<uint8_t>(below(3)),
                                       static_cast<uint8_t>(below(2)),
                                       static_cast<uint8_t>(1 + below(18)),
                                       2,
                                       static_cast<uint8_t>(chance(80) ? 18 : value()),
                                       0x1b,
                                       0xff};
    const uint64_t mode = chance(50) ? 0x46 : 0x4a;
    for (Zoo* zoo : zoos) {
      zoo->out(0x3f2, 0x0c, 1);
      zoo->out(0x3f7, 0, 1);
      zoo->out(0x0b, mode, 1);
      zoo->out(0x0a, 2, 1);
      for (const uint8_t byte : bytes) zoo->out(0x3f5, byte, 1);
    }
  }

  // Something for the keyboard or the mouse that is a command, or the data of one.
  void ps2_command(std::initializer_list<Zoo*> zoos) {
    const bool to_mouse = chance(60);
    const uint64_t byte = chance(70) ? 0xe6 + below(26) : pick(kPs2Data);
    const bool read = chance(80);
    for (Zoo* zoo : zoos) {
      if (to_mouse) zoo->out(0x64, 0xd4, 1);
      zoo->out(0x60, byte, 1);
    }
    for (int i = 0; read && i < 6; ++i) compare(zoos, "ps/2 byte", byte, [](Zoo& zoo) { return zoo.in(0x60, 1); });
  }

  void host_event(std::initializer_list<Zoo*> zoos) {
    const auto number = static_cast<int32_t>(random_());
    const unsigned kind = static_cast<unsigned>(below(20));
    const std::string text(below(40), static_cast<char>(number));
    for (Zoo* zoo : zoos) {
      switch (kind) {
        case 0: zoo->keyboard->key_event(static_cast<Key>(number & 0x7f), (number & 0x80) != 0); break;
        case 1: zoo->keyboard->key_event(static_cast<Key>(0xe000 | (number & 0x7f)), (number & 0x80) != 0); break;
        case 2: zoo->keyboard->mouse_event(number, -(number >> 1), number >> 24, static_cast<uint8_t>(number)); break;
        case 3: zoo->console.type(text); break;
        case 4: zoo->console.send_break(); break;
        case 5: zoo->console.set_room(static_cast<size_t>(number & 0xf)); break;
        case 6: zoo->console.set_open((number & 1) != 0); break;
        case 7: zoo->log.set_room(static_cast<size_t>(number & 0xff)); break;
        case 8: zoo->pm->press_power_button(); break;
        case 9: zoo->pm->raise_gpe(static_cast<unsigned>(number) % 20); break;
        case 11: zoo->hotplug->plugged(static_cast<uint8_t>(number), static_cast<uint8_t>(number >> 8) & 31); break;
        case 12: zoo->hotplug->request_unplug(number & 1, static_cast<uint8_t>(number >> 8) & 31); break;
        case 10: zoo->piix3->set_irq(kFreeLines[static_cast<uint32_t>(number) % 8], (number & 0x100) != 0); break;
        case 13: zoo->fpu_error->ferr(); break;
        case 14: zoo->usb_keyboard->key(static_cast<Key>(number & 0x7f), (number & 0x80) != 0); break;
        case 15: zoo->tablet->place(number & 0xffff, number >> 16, number & 3, static_cast<uint8_t>(number)); break;
        case 16: zoo->mouse->move(number, number >> 8, number & 3, static_cast<uint8_t>(number)); break;
        default: zoo->clock.advance(number & 0x1fffff); break;
      }
    }
  }

  std::mt19937_64 random_;
};

// Puts away what is no part of the guest's state: what a chardev holds.
void settle(Zoo& zoo) {
  zoo.console.set_open(true);
  zoo.console.set_room(SIZE_MAX);
  zoo.log.set_room(SIZE_MAX);
  zoo.cable->full = false;
  zoo.cable->client()->writable();
  zoo.memory.commit();
  zoo.gpu->device().kick_all();  // as a restored device does it
  zoo.settle_disks();
  for (int i = 0; i < 100'000 && !zoo.console.waiting_input().empty(); ++i) {
    write_reg(zoo.serial->region(), uart_regs::kMcr, 0);
    write_reg(zoo.serial->region(), uart_regs::kLcr, 0);
    read_reg(zoo.serial->region(), uart_regs::kRbr);
  }
}

// The device whose saved state differs, with the byte; empty when none does.
std::string first_difference(Zoo& one, Zoo& other) {
  for (size_t i = 0; i < one.all.size(); ++i) {
    const auto a = saved_state(*one.all[i]), b = saved_state(*other.all[i]);
    const auto at = std::ranges::mismatch(a, b);
    if (at.in1 != a.end() || at.in2 != b.end())
      return fmt::format("{} at byte {}", one.all[i]->path(), at.in1 - a.begin());
  }
  return "";
}

TEST(HostileGuestTest, RandomAccessesHarmNothing) {
  Hostile hostile(1);
  Zoo zoo;
  for (int i = 0; i < 200'000; ++i) {
    hostile.step({&zoo});
    if (i % 20'000 == 0) zoo.reset();
  }
}

TEST(HostileGuestTest, RestoredMachinesGoOnIdentically) {
  const uint64_t seeds = std::getenv("KITE_LONG") != nullptr ? 3'000 : 40;
  for (uint64_t seed = 1; seed <= seeds; ++seed) {
    Hostile hostile(seed);
    Zoo original;
    for (int i = 0; i < 4'000; ++i) hostile.step({&original});
    settle(original);

    Zoo copy;
    copy.clock.advance_to(original.clock.now());
    copy.cable->set_link(net::NetBackend::End::kHost, original.cable->link_up());
    std::memcpy(copy.ram->host(), original.ram->host(), Zoo::kRamSize);
    for (size_t i = 0; i < original.disks.size(); ++i) {
      std::vector<uint8_t> content(original.disks[i]->length());
      original.disks[i]->copy_out(0, block::IoSlice(std::span(content)));
      copy.disks[i]->copy_in(0, block::IoSlice(std::span(content)));
    }
    const auto state = original.save();
    const auto restored = copy.restore(state);
    ASSERT_TRUE(restored) << "seed " << seed << ": " << restored.error().message;
    ASSERT_EQ(first_difference(original, copy), "") << "restored, seed " << seed;

    for (int i = 0; i < 4'000 && !::testing::Test::HasFatalFailure(); ++i) hostile.step({&original, &copy});
    ASSERT_FALSE(::testing::Test::HasFatalFailure()) << "seed " << seed;
    EXPECT_EQ(std::memcmp(copy.ram->host(), original.ram->host(), Zoo::kRamSize), 0) << "seed " << seed;
    ASSERT_EQ(first_difference(original, copy), "") << "at the end, seed " << seed;
  }
}

TEST(HostileGuestTest, DamagedStateIsRefusedOrHarmless) {
  Hostile hostile(99);
  Zoo zoo;
  for (int round = 0; round < 300; ++round) {
    for (int i = 0; i < 100; ++i) hostile.step({&zoo});
    auto state = zoo.save();
    for (uint64_t i = hostile.below(4); i < 4; ++i)
      state[hostile.below(state.size())] = static_cast<uint8_t>(hostile.value());
    if (hostile.chance(20)) state.resize(hostile.below(state.size()));
    static_cast<void>(zoo.restore(state));
  }
}

// Device by device: a state that is refused leaves the device as it was.
TEST(HostileGuestTest, RefusedStateChangesNothing) {
  Hostile hostile(7);
  Zoo zoo;
  unsigned refused = 0;
  for (int round = 0; round < 200; ++round) {
    for (int i = 0; i < 50; ++i) hostile.step({&zoo});
    for (bus::Device* device : zoo.all) {
      const auto before = saved_state(*device);
      auto damaged = before;
      damaged[hostile.below(damaged.size())] ^= static_cast<uint8_t>(1u << hostile.below(8));
      if (restore_state(*device, damaged)) continue;
      ++refused;
      ASSERT_EQ(saved_state(*device), before) << device->path();
    }
  }
  EXPECT_GT(refused, 100U);
}

}  // namespace
}  // namespace kite::devices
