#include "machine/firmware/firmware_tables.h"

#include <algorithm>

#include "boot/acpi_loader.h"
#include "boot/option_rom/option_rom.h"
#include "devices/fw_cfg/fw_cfg_regs.h"
#include "support/bytes.h"

namespace kite::machine {

namespace {

namespace keys = devices::fw_cfg_regs;

// Firmware loads every ROM under genroms/ and names its boot entry so.
constexpr const char* kKernelRomFile = "genroms/kite-kernel.bin";
constexpr const char* kKernelRomPath = "/rom@genroms/kite-kernel.bin";

constexpr uint64_t kMib = 1 << 20, kFourGib = uint64_t{1} << 32;

std::vector<uint8_t> little_endian(uint64_t value, size_t bytes) {
  std::vector<uint8_t> data(bytes);
  store_le(data.data(), bytes, value);
  return data;
}

// Node count, node of each CPU by its APIC id, memory of each node.
std::vector<uint8_t> numa_numbers(const FirmwareFacts& facts, uint32_t apic_ids) {
  const auto& nodes = facts.numa.nodes;
  std::vector<uint8_t> numbers(sizeof(uint64_t) * (1 + size_t{apic_ids} + nodes.size()));
  const auto put = [&numbers](size_t at, uint64_t value) { store(&numbers[sizeof(uint64_t) * at], value); };
  put(0, nodes.size());
  for (uint32_t cpu = 0; cpu < facts.numa.node_of_cpu.size(); ++cpu)
    put(1 + facts.config.topology.apic_id(cpu), facts.numa.node_of_cpu[cpu]);
  for (size_t node = 0; node < nodes.size(); ++node) put(1 + apic_ids + node, nodes[node].bytes);
  return numbers;
}

void add_numbers(devices::FwCfg& fw_cfg, const FirmwareFacts& facts) {
  const MachineConfig& config = facts.config;
  const uint32_t apic_ids = config.topology.apic_id(config.max_cpus - 1) + 1;
  fw_cfg.add_bytes(keys::kUuid, {config.uuid.begin(), config.uuid.end()});
  fw_cfg.add_u64(keys::kRamSize, config.ram_bytes);
  fw_cfg.add_u16(keys::kNographic, config.graphic ? 0 : 1);
  fw_cfg.add_u16(keys::kCpuCount, static_cast<uint16_t>(config.cpu_count));
  fw_cfg.add_u16(keys::kMaxCpus, static_cast<uint16_t>(apic_ids));
  fw_cfg.add_u16(keys::kBootMenu, config.boot.menu ? 1 : 0);
  fw_cfg.add_u32(keys::kIrq0Override, 1);  // the timer is at the IOAPIC's input 2
  fw_cfg.add_bytes(keys::kNuma, numa_numbers(facts, apic_ids));
}

// [FW_CFG] "etc/e820": what is RAM, and what firmware must not use for anything. Firmware divides the RAM further.
std::vector<uint8_t> memory_map(const FirmwareFacts& facts) {
  std::vector<boot::E820Entry> entries = facts.reserved;
  entries.push_back({0, facts.ram_low, boot::E820Type::kRam});
  if (facts.ram_high != 0) entries.push_back({kFourGib, facts.ram_high, boot::E820Type::kRam});
  std::vector<uint8_t> map;
  for (const boot::E820Entry& entry : entries) {
    const size_t at = map.size();
    map.resize(at + 20);
    store(map.data() + at, entry.base);
    store(map.data() + at + 8, entry.size);
    store(map.data() + at + 16, static_cast<uint32_t>(entry.type));
  }
  return map;
}

// One byte a sleeping state, S0 to S5: bit 7 says that it is offered, the rest is what SLP_TYP selects it.
std::vector<uint8_t> system_states(const boot::AcpiConfig& acpi) {
  constexpr uint8_t kOffered = 0x80;
  const auto state = [](bool offered, uint8_t type) { return static_cast<uint8_t>(offered ? kOffered | type : 0); };
  return {kOffered, 0, 0, state(acpi.suspend_to_ram, 1), state(acpi.suspend_to_disk, 2), kOffered};
}

Result<> add_acpi(devices::FwCfg& fw_cfg, const FirmwareFacts& facts) {
  boot::AcpiTables tables = boot::build_acpi(facts.acpi());
  KITE_TRY(fw_cfg.add_file(boot::kAcpiLoaderFile, boot::acpi_loader_script(tables)));
  KITE_TRY(fw_cfg.add_file(boot::kAcpiRsdpFile, std::move(tables.rsdp)));
  KITE_TRY(fw_cfg.add_file(boot::kAcpiTablesFile, std::move(tables.blob)));
  fw_cfg.refresh_file(boot::kAcpiTablesFile, [acpi = facts.acpi] { return boot::build_acpi(acpi()).blob; });
  return fw_cfg.add_file("etc/system-states", system_states(facts.acpi()));
}

Result<> add_smbios(devices::FwCfg& fw_cfg, const FirmwareFacts& facts) {
  const x86::CpuTopology& topology = facts.config.topology;
  const boot::SmbiosMachine machine{.product = facts.product,
                                    .uuid = facts.config.uuid,
                                    .sockets = topology.sockets,
                                    .cores = topology.dies * topology.cores,
                                    .threads = topology.threads,
                                    .ram_low = facts.ram_low,
                                    .ram_high = facts.ram_high,
                                    .cpuid_signature = facts.cpu.signature(),
                                    .cpuid_features = facts.cpu.features[static_cast<size_t>(x86::FeatureWord::k1Edx)]};
  boot::SmbiosTables tables = boot::build_smbios(facts.config.firmware.smbios, machine);
  KITE_TRY(fw_cfg.add_file("etc/smbios/smbios-tables", std::move(tables.structures)));
  return fw_cfg.add_file("etc/smbios/smbios-anchor", std::move(tables.anchor));
}

Result<> add_boot_files(devices::FwCfg& fw_cfg, const BootConfig& boot) {
  if (boot.splash_time_ms >= 0)
    KITE_TRY(fw_cfg.add_file("etc/boot-menu-wait", little_endian(static_cast<uint64_t>(boot.splash_time_ms), 2)));
  const auto timeout = static_cast<uint64_t>(boot.reboot_timeout_ms);  // -1: all ones
  KITE_TRY(fw_cfg.add_file("etc/boot-fail-wait", little_endian(timeout, 4)));
  return {};
}

}  // namespace

Result<> tell_boot_order(devices::FwCfg& fw_cfg, const BootConfig& boot, const BootOrder& order) {
  // A file that is there stays, emptier.
  if (order.has_geometry() || !fw_cfg.file("bios-geometry").empty())
    KITE_TRY(fw_cfg.set_file("bios-geometry", order.geometry_file()));
  if (order.empty() && !boot.strict && fw_cfg.file("bootorder").empty()) return {};
  return fw_cfg.set_file("bootorder", order.file(boot.strict));
}

Result<> fill_fw_cfg(devices::FwCfg& fw_cfg, const FirmwareFacts& facts, const BootOrder& order) {
  add_numbers(fw_cfg, facts);
  KITE_TRY(fw_cfg.add_file("etc/e820", memory_map(facts)));
  KITE_TRY(add_boot_files(fw_cfg, facts.config.boot));
  KITE_TRY(tell_boot_order(fw_cfg, facts.config.boot, order));
  if (facts.config.acpi) KITE_TRY(add_acpi(fw_cfg, facts));
  KITE_TRY(add_smbios(fw_cfg, facts));
  for (const auto& [name, bytes] : facts.config.firmware.files) {
    if (auto added = fw_cfg.add_file(name, bytes); !added) return fail("-fw_cfg {}", added.error().message);
  }
  return {};
}

Result<> offer_kernel(devices::FwCfg& fw_cfg, const FirmwareFacts& facts, BootOrder& order) {
  // Where a kernel may be loaded: not where a BIOS keeps its tables at the end of RAM, nor where the ROM works.
  constexpr uint64_t kFirmwareBytes = kMib, kRomWork = 0x80000, kConventionalEnd = 0x90000;
  using Type = boot::E820Type;
  const MachineConfig& config = facts.config;
  boot::KernelRequest request{.kernel_path = config.kernel_path,
                              .initrd_path = config.initrd_path,
                              .command_line = config.command_line,
                              .ram_below_4g = facts.ram_low,
                              .ram_above_4g = facts.ram_high,
                              .e820 = {{0, kRomWork, Type::kRam},
                                       {kRomWork, kConventionalEnd - kRomWork, Type::kReserved},
                                       {kMib, facts.ram_low - kMib - kFirmwareBytes, Type::kRam}}};
  if (facts.ram_high != 0) request.e820.push_back({kFourGib, facts.ram_high, Type::kRam});
  KITE_ASSIGN(boot::FirmwareKernel kernel, boot::kernel_for_firmware(request));
  const auto size = [](const std::vector<uint8_t>& bytes) { return static_cast<uint32_t>(bytes.size()); };
  // OVMF looks at the kernel's size first, and can start only what is Linux.
  if (kernel.entry == 0) fw_cfg.add_u32(keys::kKernelSize, size(kernel.kernel));
  fw_cfg.add_u32(keys::kKernelEntry, kernel.entry);
  fw_cfg.add_u32(keys::kKernelAddress, kernel.kernel_address);
  fw_cfg.add_u32(keys::kSetupAddress, kernel.setup_address);
  fw_cfg.add_u32(keys::kSetupSize, size(kernel.setup));
  fw_cfg.add_u32(keys::kCommandLineAddress, kernel.command_line_address);
  fw_cfg.add_u32(keys::kCommandLineSize, size(kernel.command_line));
  fw_cfg.add_u32(keys::kInitrdSize, size(kernel.initrd));
  fw_cfg.add_bytes(keys::kKernelData, std::move(kernel.kernel));
  fw_cfg.add_bytes(keys::kSetupData, std::move(kernel.setup));
  fw_cfg.add_bytes(keys::kCommandLineData, std::move(kernel.command_line));
  fw_cfg.add_bytes(keys::kInitrdData, std::move(kernel.initrd));
  order.prefer(kKernelRomPath);
  return fw_cfg.add_file(kKernelRomFile, boot::kernel_option_rom());
}

// --- CMOS

void set_boot_order(devices::Rtc& rtc, const BootConfig& boot, const std::string& order) {
  // A nibble a device, first in the low half of 0x3d; bit 0 of 0x38 skips the floppy signature check.
  const auto code = [](char letter) {
    return letter == 'a' || letter == 'b' ? 1u : letter == 'c' ? 2u : letter == 'd' ? 3u : letter == 'n' ? 4u : 0u;
  };
  const auto nibble = [&](size_t at) { return at < order.size() ? code(order[at]) : 0u; };
  rtc.set_cmos(0x3d, static_cast<uint8_t>(nibble(1) << 4 | nibble(0)));
  rtc.set_cmos(0x38, static_cast<uint8_t>(nibble(2) << 4 | (boot.check_floppies ? 0 : 1)));
}

void fill_cmos(devices::Rtc& rtc, const FirmwareFacts& facts) {
  const auto set16 = [&rtc](uint8_t index, uint64_t value) {
    rtc.set_cmos(index, static_cast<uint8_t>(value));
    rtc.set_cmos(static_cast<uint8_t>(index + 1), static_cast<uint8_t>(value >> 8));
  };
  const uint64_t extended_kib = std::min<uint64_t>((facts.ram_low - kMib) / 1024, 0xffff);
  const uint64_t above_16m = facts.ram_low > 16 * kMib ? (facts.ram_low - 16 * kMib) / 65536 : 0;
  const uint64_t above_4g = facts.ram_high / 65536;
  set16(0x15, 640);  // base memory, KiB
  set16(0x17, extended_kib);
  set16(0x30, extended_kib);
  set16(0x34, std::min<uint64_t>(above_16m, 0xffff));
  set16(0x5b, above_4g);
  rtc.set_cmos(0x5d, static_cast<uint8_t>(above_4g >> 16));
  rtc.set_cmos(0x5f, static_cast<uint8_t>(facts.config.cpu_count - 1));
  // Equipment: coprocessor, PS/2 mouse, floppy drives; no video.
  const unsigned drives = (facts.floppies >> 4 != 0 ? 1u : 0u) + ((facts.floppies & 0xf) != 0 ? 1u : 0u);
  rtc.set_cmos(0x10, facts.floppies);
  rtc.set_cmos(0x14, static_cast<uint8_t>(0x06 | (drives == 0 ? 0u : (drives - 1) << 6 | 1u)));
  const BootConfig& boot = facts.config.boot;
  set_boot_order(rtc, boot, boot.once.empty() ? boot.order : boot.once);
}

}  // namespace kite::machine
