// Every device of the room in one made-up machine, for tests that treat them all alike.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "async/executor.h"
#include "block/drive.h"
#include "block/plain_nodes.h"
#include "devices/acpi_cpus/acpi_cpus.h"
#include "devices/acpi_pci_hotplug/acpi_pci_hotplug.h"
#include "devices/apic/apic_bus.h"
#include "devices/apic/cpu_apic.h"
#include "devices/debug_exit/debug_exit.h"
#include "devices/debugcon/debugcon.h"
#include "devices/e1000/test_e1000.h"
#include "devices/fdc/fdc.h"
#include "devices/fdc/fdc_types.h"
#include "devices/fpu_error/fpu_error.h"
#include "devices/fw_cfg/fw_cfg.h"
#include "devices/hpet/hpet.h"
#include "devices/i440fx/i440fx.h"
#include "devices/i8042/i8042.h"
#include "devices/i8237/i8237.h"
#include "devices/ioapic/io_apic.h"
#include "devices/nvme/nvme_controller.h"
#include "devices/pc_testdev/pc_testdev.h"
#include "devices/pci_testdev/pci_testdev.h"
#include "devices/pic/pic.h"
#include "devices/piix3/piix3.h"
#include "devices/piix4_pm/piix4_pm.h"
#include "devices/pit/pit.h"
#include "devices/port92/port92.h"
#include "devices/rtc/rtc.h"
#include "devices/serial/isa_serial.h"
#include "devices/test_device.h"
#include "devices/test_ports.h"
#include "devices/uhci/uhci.h"
#include "devices/usb/test_usb.h"
#include "devices/usb/usb_hid.h"
#include "devices/vga/vga.h"
#include "devices/virtio/virtio_gpu.h"
#include "devices/virtio/virtio_pci.h"
#include "devices/xhci/xhci.h"

namespace kite::testing {

class Zoo {
 public:
  static constexpr uint64_t kRamSize = 2 << 20;
  static constexpr uint64_t kIoApic = 0xfec00000;
  static constexpr uint64_t kHpet = 0xfed00000;
  static constexpr unsigned kCpus = 2;
  static constexpr uint8_t kTestdevSlot = 4, kNvmeSlot = 5, kVgaSlot = 6, kXhciSlot = 9, kE1000Slot = 13, kGpuSlot = 17;
  // Which of two BARs at one place answers is not told by their state: these stay apart when one byte of them changes.
  static constexpr uint64_t kNvme = 0xd0000000;                           // where set_up_nvme() puts its registers
  static constexpr uint64_t kUhci = 0xd000, kXhci = 0xd1100000;           // where set_up_usb() puts theirs
  static constexpr uint64_t kE1000 = 0xd2200000, kE1000Rings = 0x1c0000;  // set_up_e1000()'s
  static constexpr uint64_t kGpu = 0xd3300000, kGpuRings = 0x1e0000, kGpuRequest = 0x1e8000;  // set_up_gpu()'s
  static constexpr uint32_t kGpuPictures = 0x140000;
  static constexpr uint64_t kFloppyBytes = 1440 * 1024, kDiskBytes = 1 << 20;

  Zoo() {
    auto block = RamBlock::create("ram", kRamSize);
    EXPECT_TRUE(block);
    ram = *block;
    auto ram_region = Region::ram("ram", ram);
    memory.root().add(0, Region::alias("low", ram_region, 0, kRamSize));
    memory.root().add(0, pci_memory, -1);
    build_interrupts();
    build_pci(ram_region);
    build_isa();
    build_disks();
    for (bus::Device* device : all) device->reset();
  }
  ~Zoo() {
    xhci->usb().detach(*tablet);
    xhci->usb().detach(*mouse);
    uhci->usb().detach(*usb_keyboard);
    settle_disks();
    nvme.reset();
    fdc->drive_bus().detach(*floppy);
    floppy.reset();
    fdc.reset();
    e1000.reset();
    gpu.reset();
    for (auto& drive : drives) EXPECT_TRUE(block::run_until_done(*executor, drive->close()));
  }

  // As the machine's dispatcher: changed maps apply before the next access.
  uint32_t in(uint64_t port, unsigned size) {
    memory.commit();
    return ports.in(port, size);
  }
  void out(uint64_t port, uint64_t value, unsigned size) {
    memory.commit();
    ports.out(port, value, size);
  }
  uint64_t load(uint64_t address, unsigned size) {
    uint64_t value = 0;
    memory.space().read(address, size, value);
    return value;
  }
  void store(uint64_t address, uint64_t value, unsigned size) { memory.space().write(address, size, value); }

  std::vector<uint8_t> save() {
    StateWriter writer;
    for (bus::Device* device : all) device->save(writer);
    return writer.take();
  }
  Result<> restore(std::span<const uint8_t> bytes) {
    StateReader reader(bytes);
    for (bus::Device* device : all) device->restore(reader);
    memory.commit();
    return reader.finish();
  }
  void reset() {
    for (bus::Device* device : all) device->reset();
  }
  // The block thread's turn: requests on their way end.
  void settle_disks(int turns = 40) {
    for (int i = 0; i < turns; ++i) executor->run_once(0);
  }
  // What a driver does first: registers at kNvme, admin queues of eight entries at kNvmeQueues.
  static constexpr uint64_t kNvmeQueues = 0x100000;
  void set_up_nvme() {
    nvme->config_write(0x10, 4, kNvme);
    nvme->config_write(0x14, 4, 0);
    nvme->config_write(0x04, 2, 6);
    store(kNvme + devices::nvme::CC, 0, 4);
    settle_disks();
    store(kNvme + devices::nvme::AQA, 0x00070007, 4);
    store(kNvme + devices::nvme::ASQ, kNvmeQueues, 8);
    store(kNvme + devices::nvme::ACQ, kNvmeQueues + 0x1000, 8);
    store(kNvme + devices::nvme::CC, 0x00460001, 4);
  }

  // Rings of 16 descriptors, receive and transmit, with buffers of 256 bytes behind them.
  void set_up_e1000() {
    using namespace devices::e1000;
    e1000->config_write(0x10, 4, kE1000);
    e1000->config_write(0x04, 2, 7);
    for (const uint32_t base : {uint32_t{RDBAL}, uint32_t{TDBAL}}) {
      store(kE1000 + base, kE1000Rings + (base == TDBAL ? 0x1000 : 0), 4);
      store(kE1000 + base + 4, 0, 4);
      store(kE1000 + base + 8, 256, 4);
      store(kE1000 + base + 0x10, 0, 4);
      store(kE1000 + base + 0x18, 0, 4);
    }
    for (uint64_t i = 0; i < 16; ++i) store_le(ram->host() + kE1000Rings + i * 16, 8, kE1000Rings + 0x2000 + i * 256);
    store(kE1000 + RCTL, kRxEnable | kAllUnicast | kBroadcast | kLongPackets | 3u << kSizeShift, 4);
    store(kE1000 + RXCSUM, kCheckIp | kCheckTcpUdp, 4);
    store(kE1000 + TCTL, kTxEnable | kPadShort, 4);
    store(kE1000 + RDT, 15, 4);
    store(kE1000 + IMS, ~0u, 4);
  }

  // Two rings of eight descriptors.
  void set_up_gpu() {
    using namespace devices::virtio_pci;
    gpu->config_write(0x20, 4, kGpu);
    gpu->config_write(0x24, 4, 0);
    gpu->config_write(0x04, 2, 6);
    for (const unsigned status : {0u, 1u, 3u}) {
      store(kGpu + kDeviceStatus, status, 1);
      settle_disks(2);
    }
    for (const unsigned half : {0u, 1u}) {
      store(kGpu + kDriverFeatureSelect, half, 4);
      store(kGpu + kDriverFeature, half == 0 ? devices::virtio_gpu::kEdid : 1, 4);
    }
    store(kGpu + kDeviceStatus, 11, 1);
    for (uint64_t queue = 0; queue < 2; ++queue) {
      const uint64_t ring = kGpuRings + queue * 0x1000;
      std::memset(ram->host() + ring, 0, 0x300);
      store(kGpu + kQueueSelect, queue, 2);
      store(kGpu + kQueueSize, 8, 2);
      store(kGpu + kQueueDescriptors, ring, 4);
      store(kGpu + kQueueDriver, ring + 0x100, 4);
      store(kGpu + kQueueDevice, ring + 0x200, 4);
      store(kGpu + kQueueEnable, 1, 2);
    }
    store(kGpu + kDeviceStatus, 15, 1);
  }
  // What lies at kGpuRequest, with room for an answer of `room` bytes behind it.
  void offer_gpu(uint64_t queue, uint64_t bytes, uint64_t room) {
    uint8_t* const ring = ram->host() + kGpuRings + queue * 0x1000;
    const auto index = kite::load<uint16_t>(ring + 0x102);
    kite::store(ring, kGpuRequest);
    kite::store(ring + 8, bytes | uint64_t{devices::virtio::kNext} << 32 | uint64_t{1} << 48);
    kite::store(ring + 16, kGpuRequest + 0x800);
    kite::store(ring + 24, room | uint64_t{devices::virtio::kWrite} << 32);
    kite::store(ring + 0x104 + index % 8 * 2, uint16_t{0});
    kite::store(ring + 0x102, static_cast<uint16_t>(index + 1));
    store(kGpu + 0x3000 + queue * 4, queue, 2);
  }

  // Controllers as their drivers leave them: schedule, rings and contexts at kUsbMemory, with nothing in them.
  static constexpr uint64_t kUsbMemory = 0x180000, kUsbPage = 0x1000;
  enum UsbPages : uint64_t {
    kFrames,
    kQueues,
    kCommandRing,
    kEventTable,
    kEventRing,
    kInput,
    kContexts,
    kOutput,
    kRings
  };
  static constexpr uint64_t usb_page(uint64_t page) { return kUsbMemory + page * kUsbPage; }
  void set_up_usb() {
    using namespace devices;
    std::memset(ram->host() + kUsbMemory, 0, 16 * kUsbPage);
    for (uint64_t entry = 0; entry < kUsbPage; entry += 4)
      store_le(ram->host() + usb_page(kFrames) + entry, 4, usb_page(kQueues) | uhci::kQueue);
    uhci->config_write(0x20, 4, kUhci);
    uhci->config_write(0x04, 2, 5);
    out(kUhci + uhci::FLBASEADD, usb_page(kFrames), 4);
    out(kUhci + uhci::PORTSC1, uhci::kPortReset, 2);
    out(kUhci + uhci::PORTSC1, uhci::kEnabled, 2);
    out(kUhci + uhci::USBINTR, 0xf, 2);
    out(kUhci + uhci::USBCMD, uhci::kRun, 2);
    xhci->config_write(0x10, 4, kXhci);
    xhci->config_write(0x14, 4, 0);
    xhci->config_write(0x04, 2, 6);
    const uint64_t operational = kXhci + xhci::kOperational, set = kXhci + xhci::kRuntime + xhci::kInterrupterSets;
    store(operational + xhci::USBCMD, xhci::kHcReset, 4);
    store(operational + xhci::CONFIG, 8, 4);
    store(operational + xhci::CRCR, usb_page(kCommandRing) | 1, 8);
    store(operational + xhci::DCBAAP, usb_page(kContexts), 8);
    for (uint64_t slot = 1; slot <= 8; ++slot)
      store_le(ram->host() + usb_page(kContexts) + slot * 8, 8, usb_page(kOutput) + slot % 2 * 0x800);
    store_le(ram->host() + usb_page(kEventTable), 8, usb_page(kEventRing));
    store_le(ram->host() + usb_page(kEventTable) + 8, 8, 64);
    store(set + xhci::ERSTSZ, 1, 4);
    store(set + xhci::ERDP, usb_page(kEventRing), 8);
    store(set + xhci::ERSTBA, usb_page(kEventTable), 8);
    store(set + xhci::IMAN, 3, 4);
    for (uint64_t port = 0; port < 2; ++port)
      store(operational + xhci::kPortRegisters + port * 16, xhci::kPower | xhci::kPortReset, 4);
    store(operational + xhci::USBCMD, xhci::kRun | xhci::kInterruptsOn, 4);
    open_usb_endpoints();
  }
  // The devices configured; slot 1 for the tablet, its control endpoint and the one that brings reports. Rings have
  // four places.
  void open_usb_endpoints() {
    using namespace devices;
    for (UsbDevice* const device : std::initializer_list<UsbDevice*>{usb_keyboard.get(), tablet.get(), mouse.get()}) {
      device->setup(usb_setup(0, 9, 1, 0, 0));
      device->in(0, {});
    }
    const auto place = [this](uint64_t page, uint64_t offset) { return ram->host() + usb_page(page) + offset; };
    for (const uint64_t page : {kCommandRing + 0, kRings + 0, kRings + 1, kRings + 2, kRings + 3})
      kite::store(place(page, 64), xhci::Trb{usb_page(page), 0, xhci::kLink << 10 | xhci::kToggle | 1});
    kite::store(place(kCommandRing, 0), xhci::Trb{0, 0, xhci::kEnableSlot << 10 | 1});
    for (const uint32_t type : {xhci::kAddressDevice, xhci::kConfigureEndpoint}) {
      const bool address = type == xhci::kAddressDevice;
      kite::store(place(kInput, 4), address ? uint32_t{3} : uint32_t{1 | 1 << 3});
      kite::store(place(kInput, 0x24), uint32_t{1} << 16);
      kite::store(place(kInput, 0x44), uint32_t{4} << 3);
      kite::store(place(kInput, 0x48), usb_page(kRings) | 1);
      kite::store(place(kInput, 0x84), uint32_t{7} << 3);
      kite::store(place(kInput, 0x88), usb_page(kRings + 1) | 1);
      kite::store(place(kCommandRing, address ? 16 : 32), xhci::Trb{usb_page(kInput), 0, type << 10 | 1 << 24 | 1});
      store(kXhci + xhci::kDoorbells, 0, 4);
    }
    EXPECT_TRUE(tablet->in_use());
  }

  ManualClock clock;
  TestSpace ports;
  TestSpace memory{uint64_t{1} << 40};
  std::shared_ptr<RamBlock> ram;
  std::shared_ptr<Region> pci_memory = Region::container("pci", uint64_t{1} << 40);
  GuestMemory guest_memory{memory.space()};
  FakeChardev console, log;
  int resets = 0, power_offs = 0, exits = 0, flushes = 0, ejects = 0;

  devices::ApicBus apic_bus;
  std::unique_ptr<devices::Pic> pic;
  std::unique_ptr<devices::IoApic> ioapic;
  std::vector<std::unique_ptr<devices::CpuApic>> apics;
  std::unique_ptr<devices::Piix3> piix3;
  std::unique_ptr<bus::PciBus> pci;
  std::unique_ptr<devices::I440fx> host_bridge;
  std::unique_ptr<devices::Piix4Pm> pm;
  std::unique_ptr<devices::AcpiPciHotplug> hotplug;
  std::unique_ptr<devices::AcpiCpus> cpus;
  std::unique_ptr<devices::PciTestdev> pci_testdev;
  std::unique_ptr<devices::Vga> vga;
  std::unique_ptr<devices::Uhci> uhci;
  std::unique_ptr<devices::Xhci> xhci;
  std::unique_ptr<devices::UsbKeyboard> usb_keyboard;
  std::unique_ptr<devices::UsbPointer> tablet, mouse;
  std::unique_ptr<devices::Pit> pit;
  std::unique_ptr<devices::Rtc> rtc;
  std::unique_ptr<devices::Hpet> hpet;
  std::unique_ptr<devices::I8042> keyboard;
  std::unique_ptr<devices::Port92> port92;
  std::unique_ptr<devices::FpuError> fpu_error;
  std::unique_ptr<devices::FwCfg> fw_cfg;
  std::unique_ptr<devices::IsaSerial> serial;
  std::unique_ptr<devices::Debugcon> debugcon;
  std::unique_ptr<devices::DebugExit> debug_exit;
  std::unique_ptr<devices::PcTestdev> pc_testdev;
  std::unique_ptr<Executor> executor;  // turned by hand
  std::vector<std::shared_ptr<block::MemoryNode>> disks;
  std::vector<std::unique_ptr<block::Drive>> drives;
  std::unique_ptr<devices::I8237> dma;
  std::unique_ptr<devices::Fdc> fdc;
  std::unique_ptr<bus::Device> floppy;
  std::unique_ptr<devices::NvmeController> nvme;
  std::unique_ptr<E1000Backend> cable;
  std::unique_ptr<devices::E1000> e1000;
  std::unique_ptr<devices::VirtioPci> gpu;
  std::vector<bus::Device*> all;  // in the order in which they are reset and saved

 private:
  // An interrupt line of the board: the 8259 and the IOAPIC hear the same.
  class Gsi final : public bus::IrqSink {
   public:
    explicit Gsi(Zoo& zoo) : zoo_(zoo) {}
    void set_irq(uint32_t line, bool level) override {
      if (line < 16) zoo_.pic->set_irq(line, level);
      zoo_.ioapic->set_irq(line == 0 ? 2 : line, level);
    }

   private:
    Zoo& zoo_;
  };
  class Cpu final : public kite::devices::ApicCpu {
   public:
    void interrupt() override {}
    void nmi() override {}
    void init() override {}
    void smi() override {}
    void sipi(uint8_t) override {}
  };

  void build_interrupts() {
    pic = add(std::make_unique<devices::Pic>("pic", apic_bus.intr_line()));
    apic_bus.set_ext_int(*pic);
    ioapic = add(std::make_unique<devices::IoApic>("ioapic", devices::IoApicConfig{}, apic_bus));
    for (uint32_t id = 0; id < kCpus; ++id) {
      const devices::CpuApicConfig config{.id = id, .bootstrap = id == 0, .x2apic = true, .tsc_deadline = true};
      apics.push_back(
          add(std::make_unique<devices::CpuApic>("apic" + std::to_string(id), config, apic_bus, cpu_, clock)));
    }
    ports.map(0x20, pic->master_ports());
    ports.map(0xa0, pic->slave_ports());
    ports.map(0x4d0, pic->elcr_ports());
    memory.map(kIoApic, ioapic->region());
    memory.map(devices::ApicBus::kMessageBase, apic_bus.message_region());
  }

  void build_pci(const std::shared_ptr<Region>& ram_region) {
    devices::Piix3::Wiring wiring{.isa_irqs = {}, .reset = [this](devices::ResetKind) { ++resets; }};
    for (uint32_t irq = 0; irq < 16; ++irq) wiring.isa_irqs[irq] = {gsi_, irq};
    piix3 = add(std::make_unique<devices::Piix3>("piix3", std::move(wiring)));
    pci = std::make_unique<bus::PciBus>(*pci_memory, ports.root(), *piix3);
    host_bridge =
        add(std::make_unique<devices::I440fx>("i440fx", devices::I440fx::Config{.cpu_count = kCpus},
                                              devices::I440fx::Wiring{.system_memory = memory.root(),
                                                                      .ram = ram_region,
                                                                      .pci = pci_memory,
                                                                      .bus = *pci,
                                                                      .reset_control = piix3->reset_control()}));
    pm = add(std::make_unique<devices::Piix4Pm>(
        "pm", devices::Piix4Pm::Wiring{
                  .clock = clock, .sci = piix3->isa_source(9), .ports = ports.root(), .sleep = [this](uint8_t type) {
                    power_offs += type == 0;
                  }}));
    hotplug = add(std::make_unique<devices::AcpiPciHotplug>(
        "hotplug", devices::AcpiPciHotplug::Wiring{.notify = [this] { pm->raise_gpe(1); },
                                                   .removable = [](unsigned bus) { return bus; },
                                                   .eject = [this](unsigned, uint32_t) { ++ejects; }}));
    cpus = add(std::make_unique<devices::AcpiCpus>(
        "cpus", std::vector<devices::AcpiCpus::Processor>{{.apic_id = 0}, {.apic_id = 1, .enabled = false}}));
    pci_testdev = add(std::make_unique<devices::PciTestdev>("pci-testdev"));
    auto card = devices::Vga::create("vga", {.memory_megs = 1, .rom = {0x55, 0xaa, 1}},
                                     {.vga = {.memory = *pci_memory, .ports = ports.root(), .clock = clock}});
    EXPECT_TRUE(card);
    vga = add(std::move(*card));
    EXPECT_TRUE(pci->attach(*vga, kVgaSlot, 0));
    EXPECT_TRUE(pci->attach(*host_bridge, 0, 0));
    EXPECT_TRUE(pci->attach(*piix3, 1, 0));
    EXPECT_TRUE(pci->attach(*pm, 1, 3));
    EXPECT_TRUE(pci->attach(*pci_testdev, kTestdevSlot, 0));
    build_usb();
    ports.map(0xcf8, host_bridge->config_ports());
    ports.map(0xafe0, pm->gpe_region());
    ports.map(0xae00, hotplug->region());
    ports.map(0xaf00, cpus->region());
    ports.map(0xb2, pm->apm_region());
  }

  void build_usb() {
    uhci = add(std::make_unique<devices::Uhci>(
        "uhci", *devices::Uhci::find_model("piix3-usb-uhci"),
        devices::Uhci::Wiring{.memory = guest_memory, .clock = clock, .bus_name = "usb-bus.0"}));
    xhci =
        add(std::make_unique<devices::Xhci>("xhci", devices::Xhci::Config{.bus_name = "xhci.0"}, guest_memory, clock));
    usb_keyboard = add(std::make_unique<devices::UsbKeyboard>("usb-keyboard", clock));
    tablet = add(std::make_unique<devices::UsbPointer>("usb-tablet", true, clock));
    mouse = add(std::make_unique<devices::UsbPointer>("usb-mouse", false, clock));
    EXPECT_TRUE(pci->attach(*uhci, 1, 2));
    EXPECT_TRUE(pci->attach(*xhci, kXhciSlot, 0));
    EXPECT_TRUE(uhci->usb().attach(*usb_keyboard, ""));
    EXPECT_TRUE(xhci->usb().attach(*tablet, ""));
    EXPECT_TRUE(xhci->usb().attach(*mouse, ""));
  }

  void build_isa() {
    pit = add(std::make_unique<devices::Pit>("pit", piix3->isa_source(0), clock));
    rtc = add(std::make_unique<devices::Rtc>("rtc", devices::RtcConfig{}, piix3->isa_source(8), clock));
    hpet = add(std::make_unique<devices::Hpet>("hpet", devices::HpetConfig{.routes = 0x00f0'0000},
                                               devices::Hpet::Wiring{.ioapic = ioapic.get(),
                                                                     .legacy_irq0 = piix3->isa_source(3),
                                                                     .legacy_irq8 = piix3->isa_source(6),
                                                                     .apic_bus = &apic_bus,
                                                                     .legacy = nullptr},
                                               clock));
    keyboard =
        add(std::make_unique<devices::I8042>("i8042", devices::I8042::Wiring{.keyboard_irq = piix3->isa_source(1),
                                                                             .mouse_irq = piix3->isa_source(12),
                                                                             .reset = [this] { ++resets; }}));
    port92 = add(std::make_unique<devices::Port92>("port92", [this] { ++resets; }));
    fpu_error = add(std::make_unique<devices::FpuError>("fpu-error", piix3->isa_source(13)));
    fw_cfg = add(std::make_unique<devices::FwCfg>("fw_cfg", guest_memory));
    EXPECT_TRUE(fw_cfg->add_file("etc/read-only", std::vector<uint8_t>(5000, 0x5a)));
    EXPECT_TRUE(fw_cfg->add_file("etc/writable", std::vector<uint8_t>(64), devices::FwCfg::FileAccess::kWritable));
    serial = add(std::make_unique<devices::IsaSerial>("serial0", piix3->isa_source(4), clock, &console));
    debugcon = add(std::make_unique<devices::Debugcon>("debugcon", devices::Debugcon::Config{}, &log));
    debug_exit =
        add(std::make_unique<devices::DebugExit>("debug-exit", devices::DebugExit::Config{}, [this](int) { ++exits; }));
    devices::PcTestdev::Wiring wiring{.lines = {}, .flush = [this](Gpa) { ++flushes; }};
    for (uint32_t line = 16; line < 20; ++line) wiring.lines[line] = {gsi_, line};
    auto made = devices::PcTestdev::create("pc-testdev", std::move(wiring));
    EXPECT_TRUE(made);
    pc_testdev = add(std::move(*made));
    map_isa();
  }

  block::Drive* make_drive(const char* name, uint64_t bytes) {
    disks.push_back(std::make_shared<block::MemoryNode>(*executor, block::NodeConfig{.name = name}, bytes));
    auto made = block::Drive::create(*executor, {.id = name}, disks.back());
    EXPECT_TRUE(made);
    drives.push_back(std::move(*made));
    return drives.back().get();
  }
  void build_disks() {
    auto made = Executor::create("zoo");
    EXPECT_TRUE(made);
    executor = std::move(*made);
    dma = add(std::make_unique<devices::I8237>("dma", guest_memory));
    fdc = add(std::make_unique<devices::Fdc>("fdc", devices::Fdc::Config{},
                                             devices::Fdc::Wiring{.irq = piix3->isa_source(6), .dma = dma.get()}));
    TypeRegistry types;
    types.add({.name = "device", .parent = "", .description = "", .bus = "", .properties = {}});
    types.add({.name = "isa-device", .parent = "device", .description = "", .bus = "", .properties = {}});
    devices::register_floppy_types(types);
    const auto properties = types.resolve({.type = "floppy", .id = "", .values = {}}, "-device");
    EXPECT_TRUE(properties);
    devices::DiskConfig config;
    config.drive = make_drive("floppy", kFloppyBytes);
    auto drive =
        fdc->drive_bus().attach({.type = "floppy", .path = "floppy0", .disk = config, .properties = *properties});
    EXPECT_TRUE(drive);
    floppy = add(std::move(*drive));
    auto controller = devices::NvmeController::create(
        "nvme", {.serial = "zoo", .name = "nvme", .queues = 4, .vectors = 5}, guest_memory);
    EXPECT_TRUE(controller);
    nvme = add(std::move(*controller));
    config.drive = make_drive("disk", kDiskBytes);
    EXPECT_TRUE(nvme->add_own_namespace(config, {.nsid = 1, .eui64 = 1}));
    EXPECT_TRUE(pci->attach(*nvme, kNvmeSlot, 0));
    cable = std::make_unique<E1000Backend>(*executor);
    auto card = devices::E1000::create("e1000", {.mac = kCardMac, .backend = cable.get(), .rom = {}},
                                       {.memory = guest_memory, .clock = clock, .home = *executor});
    EXPECT_TRUE(card);
    e1000 = add(std::move(*card));
    EXPECT_TRUE(pci->attach(*e1000, kE1000Slot, 0));
    e1000->start();
    gpu = add(std::make_unique<devices::VirtioPci>(
        "gpu",
        devices::VirtioPci::Config{
            .legacy = false, .doorbells = false, .vectors = 3, .class_code = devices::virtio_gpu::kClass},
        std::make_unique<devices::VirtioGpu>(devices::VirtioGpu::Config{.name = "gpu", .max_bytes = 256 << 10}, nullptr,
                                             guest_memory, *executor, devices::VirtioDevice::Options{})));
    EXPECT_TRUE(pci->attach(*gpu, kGpuSlot, 0));
    gpu->start();
    ports.map(0x00, dma->byte_ports());
    ports.map(0xc0, dma->word_ports());
    ports.map(0x80, dma->page_ports());
    ports.map(0x3f0, fdc->region());
    ports.map(0x3f7, fdc->input_region());
  }

  void map_isa() {
    memory.map(kHpet, hpet->region());
    ports.map(0x40, pit->counter_ports());
    ports.map(0x61, pit->speaker_port());
    ports.map(0x70, rtc->ports());
    ports.map(0x72, rtc->extended_ports());
    ports.map(0x60, keyboard->data_region());
    ports.map(0x64, keyboard->command_region());
    ports.map(0x92, port92->region());
    ports.map(0xf0, fpu_error->region());
    ports.map(0x510, fw_cfg->port_region());
    ports.map(0x514, fw_cfg->dma_region());
    ports.map(0x3f8, serial->region());
    ports.map(0x402, debugcon->region());
    ports.map(0xf4, debug_exit->region());
    ports.map(0xe0, pc_testdev->latch_region());
    ports.map(0xe4, pc_testdev->flush_region());
    ports.map(0xe8, pc_testdev->byte_latch_region());
    ports.map(0x2000, pc_testdev->line_region());
    memory.map(devices::PcTestdev::kMemoryAddress, pc_testdev->memory_region());
  }

  template <class T>
  std::unique_ptr<T> add(std::unique_ptr<T> device) {
    all.push_back(device.get());
    return device;
  }

  Gsi gsi_{*this};
  Cpu cpu_;
};

}  // namespace kite::testing
