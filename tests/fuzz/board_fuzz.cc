// A hostile guest at the devices of the pc board: random accesses of every size to every port, register page and
// configuration register, with time passing and the host's side (keys, power button, console input) in between. At its
// end the state of every device is saved and restored into the same device, which must take it.
#include <cstdlib>

#include "chardev/chardev.h"
#include "devices/types.h"
#include "fuzz/byte_source.h"
#include "machine/machine.h"
#include "support/log.h"

namespace {

using namespace kite;  // NOLINT: a test program

constexpr uint16_t kPorts[] = {0x20,  0x21,  0xa0,  0xa1,   0x4d0, 0x4d1, 0x40,  0x41,   0x42,   0x43,  0x60,  0x61,
                               0x64,  0x70,  0x71,  0x72,   0x73,  0x92,  0xb2,  0xb3,   0xcf8,  0xcf9, 0xcfc, 0xcfd,
                               0xcfe, 0xcff, 0x3f8, 0x2f8,  0x3e8, 0x2e8, 0x510, 0x511,  0x514,  0x518, 0xf0,  0xf4,
                               0x600, 0x604, 0x608, 0xafe0, 0xe0,  0xe4,  0xe8,  0x2000, 0xc000, 0x501, 0xe9};
constexpr uint64_t kMemory[] = {0xfec00000, 0xfed00000, 0xfee00000, 0xff000000, 0xc0000000,
                                0xa0000,    0xe0000,    0xfffffff0, 0x1000};
constexpr unsigned kSizes[] = {1, 2, 4, 8};

class Board {
 public:
  static Board& get() {
    static Board board;
    return board;
  }
  void run(const uint8_t* data, size_t size);

 private:
  Board();
  void act(fuzz::ByteSource& source);
  void save_and_restore();

  TypeRegistry types_;
  std::unique_ptr<Executor> executor_;
  std::unique_ptr<ChardevRegistry> chardevs_;
  std::unique_ptr<machine::Machine> machine_;
};

template <class T>
T must(Result<T> result) {
  if (result) return std::move(*result);
  log::error("{}", result.error().message);
  std::abort();
}

Board::Board() {
  devices::register_device_types(types_);
  executor_ = must(Executor::create("fuzz"));
  chardevs_ = std::make_unique<ChardevRegistry>(*executor_, MuxHooks{});
  machine::MachineConfig config;
  config.accelerators = {"qtest"};
  config.ram_bytes = 16 << 20;
  config.cpu_count = config.max_cpus = 2;
  for (int port = 0; port < 4; ++port)
    config.serial_ports.push_back(must(chardevs_->add_legacy(fmt::format("serial{}", port), "null")));
  for (const char* text : {"pc-testdev", "pci-testdev", "isa-debug-exit,iobase=0xf4"}) {
    auto options = must(parse_object_options(text, "driver"));
    auto properties = must(types_.resolve(options, "-device"));
    config.devices.push_back({.type = options.type, .id = {}, .properties = std::move(properties)});
  }
  machine_ = must(machine::Machine::create(config, {.executor = *executor_, .types = types_, .exit = [](int) {}}));
  if (!machine_->start()) std::abort();
}

void Board::act(fuzz::ByteSource& source) {
  const uint8_t action = source.take<uint8_t>();
  const unsigned size = kSizes[source.below(4)];
  auto& io = machine_->io();
  const auto port = static_cast<uint16_t>(
      (action & 0x80) != 0 ? source.take<uint16_t>() : kPorts[source.below(std::size(kPorts))] + source.below(8));
  const uint64_t address = kMemory[source.below(std::size(kMemory))] + (source.take<uint16_t>() & 0xfff);
  LocalApic& apic = *machine_->board().local_apic(source.below(2));
  switch (action & 15) {
    case 0:
    case 1: io.pio_read(port, size == 8 ? 4 : size); break;
    case 2:
    case 3:
    case 4: io.pio_write(port, size == 8 ? 4 : size, source.take<uint32_t>()); break;
    case 5: io.mmio_read(address, size); break;
    case 6: io.mmio_write(address, size, source.take<uint64_t>()); break;
    case 7:  // PCI configuration, the likely way
      io.pio_write(0xcf8, 4, 0x80000000 | (source.take<uint32_t>() & 0x1ffc));
      io.pio_write(static_cast<uint16_t>(0xcfc + source.below(4)), size == 8 ? 1 : size, source.take<uint32_t>());
      break;
    case 8: machine_->manual_clock()->advance(source.take<uint32_t>()); break;
    case 9: machine_->manual_clock()->step(); break;
    case 10: apic.mmio_write(source.below(0x400) & ~3u, source.take<uint32_t>()); break;
    case 11: apic.mmio_read(source.below(0x400)); break;
    case 12: {
      uint64_t value = 0;
      apic.msr_read(0x800 + source.below(0x100), value);
      apic.msr_write(0x800 + source.below(0x100), source.take<uint64_t>());
      apic.set_base(source.take<uint64_t>());
      break;
    }
    case 13:
      apic.set_cr8(static_cast<uint8_t>(source.below(16)));
      apic.set_tsc_deadline(source.take<uint64_t>());
      (void)apic.acknowledge();
      break;
    case 14: machine_->request_powerdown(); break;
    default: executor_->run_once(0); break;
  }
}

void Board::save_and_restore() {
  for (bus::Device* device : machine_->board().devices()) {
    device->stop();
    StateWriter writer;
    device->save(writer);
    StateReader reader(writer.bytes());
    device->restore(reader);
    if (const auto done = reader.finish(); !done) {
      log::error("{} refuses its own state: {}", device->path(), done.error().message);
      std::abort();
    }
    device->start();
  }
}

void Board::run(const uint8_t* data, size_t size) {
  machine_->reset(machine::Cause::kHostQmpSystemReset);
  fuzz::ByteSource source(data, size);
  for (int count = 0; count < 500 && !source.empty(); ++count) act(source);
  executor_->run_once(0);
  save_and_restore();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Board::get().run(data, size);
  return 0;
}
