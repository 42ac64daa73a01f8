// Options about firmware: which image, in which flash chips, and what it is told.
#include <algorithm>
#include <numeric>

#include "boot/acpi.h"
#include "boot/image_bytes.h"
#include "main/option_values.h"
#include "support/bytes.h"
#include "support/log.h"
#include "support/suggest.h"

namespace kite::main {

namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

constexpr uint64_t kMostFileBytes = 64 << 20;

Failure unknown(std::string_view option, std::string_view key, std::span<const std::string_view> known) {
  return fail("-{}: no such setting '{}'{}", option, key, suggestion(key, known));
}

template <class T>
Result<T> number(std::string_view option, std::string_view key, std::string_view value) {
  const auto parsed = parse_unsigned(value);
  if (!parsed) return fail("-{} {}: {}", option, key, parsed.error().message);
  if (*parsed > std::numeric_limits<T>::max())
    return fail("-{} {}={}: at most {}", option, key, value, std::numeric_limits<T>::max());
  return static_cast<T>(*parsed);
}

}  // namespace

// --- -drive if=pflash

Result<> apply_flash(OptionContext& context, std::string_view option, const Pairs& pairs) {
  static constexpr std::string_view kKnown[] = {"if",       "file",      "format", "unit",    "index",
                                                "readonly", "read-only", "id",     "snapshot"};
  machine::FlashConfig flash;
  std::optional<size_t> unit;
  auto& chips = context.plan.machine.firmware.flash;
  for (const auto& [key, value] : pairs) {
    if (key == "if" || key == "id") continue;
    if (key == "file") {
      flash.path = value;
    } else if (key == "format") {
      if (value != "raw")
        return fail("-{} if=pflash,format={}: a flash chip is a raw file; use format=raw", option, value);
    } else if (key == "unit" || key == "index") {
      KITE_ASSIGN(unit, number<size_t>(option, key, value));
      if (*unit >= chips.size())
        return fail("-{} if=pflash,{}={}: the board has two flash chips, 0 and 1", option, key, value);
    } else if (key == "readonly" || key == "read-only") {
      auto parsed = parse_bool(value);
      if (!parsed) return fail("-{} {}: {}", option, key, parsed.error().message);
      flash.read_only = *parsed;
    } else if (key == "snapshot") {
      return fail("-{} if=pflash,snapshot=on: a flash chip writes to its file; give it a copy", option);
    } else {
      return unknown(option, key, kKnown);
    }
  }
  if (flash.path.empty()) return fail("-{} if=pflash: name the file: file=PATH", option);
  if (!unit) unit = chips[0] ? 1 : 0;
  if (chips[*unit]) return fail("-{} if=pflash: unit {} is taken by '{}'", option, *unit, chips[*unit]->path);
  chips[*unit] = std::move(flash);
  return {};
}

Result<> apply_pflash(OptionContext& context, std::string_view text) {
  return apply_flash(context, "pflash", {{"file", std::string(text)}});
}

namespace {

// Takes the -blockdev of this name out of the plan.
Result<block::BlockOptions> take_node(LaunchPlan& plan, std::string_view option, const std::string& name) {
  for (auto node = plan.nodes.begin(); node != plan.nodes.end(); ++node) {
    if (*node->find("node-name") != name) continue;
    block::BlockOptions taken = std::move(*node);
    plan.nodes.erase(node);
    return taken;
  }
  return fail("-machine {}={}: there is no -blockdev with that node-name", option, name);
}

// A raw node over a file, or a file: the chip keeps its own descriptor of it.
Result<machine::FlashConfig> flash_of_node(LaunchPlan& plan, std::string_view option, const std::string& name) {
  KITE_ASSIGN(block::BlockOptions node, take_node(plan, option, name));
  KITE_ASSIGN(const bool read_only, node.take_bool("read-only", false));
  std::string driver = node.take_string("driver");
  if (driver == "raw") {
    block::BlockOptions below = node.take_child("file");
    if (const std::string* const reference = below.find(""); reference != nullptr) {
      KITE_ASSIGN(block::BlockOptions named, take_node(plan, option, std::string(*reference)));
      below = std::move(named);
    }
    node = std::move(below);
    driver = node.take_string("driver", "file");
  }
  machine::FlashConfig flash{.path = node.take_string("filename"), .read_only = read_only};
  if (driver != "file" || flash.path.empty())
    return fail("-machine {}={}: a flash chip is a raw file; use driver raw over driver file", option, name);
  return flash;
}

}  // namespace

Result<> resolve_flash(LaunchPlan& plan) {
  auto& chips = plan.machine.firmware.flash;
  for (size_t unit = 0; unit < chips.size(); ++unit) {
    const std::string option = fmt::format("pflash{}", unit);
    const std::string& name = plan.flash_nodes[unit];
    if (name.empty()) continue;
    if (chips[unit]) return fail("-machine {}={}: unit {} is taken by '{}'", option, name, unit, chips[unit]->path);
    KITE_ASSIGN(chips[unit], flash_of_node(plan, option, name));
  }
  return {};
}

// --- -fw_cfg

Result<> apply_fw_cfg(OptionContext& context, std::string_view text) {
  static constexpr std::string_view kKnown[] = {"name", "file", "string"};
  std::string name;
  std::optional<std::vector<uint8_t>> bytes;
  KITE_ASSIGN(const Pairs pairs, parse_options(text, "name"));
  for (const auto& [key, value] : pairs) {
    if (key == "name") {
      name = value;
      continue;
    }
    if (key != "file" && key != "string") return unknown("fw_cfg", key, kKnown);
    if (bytes) return fail("-fw_cfg {}: give either file= or string=, once", text);
    if (key == "string") {
      bytes.emplace(value.begin(), value.end());
      continue;
    }
    auto read = boot::read_file(value, "fw_cfg file", kMostFileBytes);
    if (!read) return fail("-fw_cfg {}: {}", name, read.error().message);
    bytes = std::move(*read);
  }
  if (name.empty()) return fail("-fw_cfg {}: name the file: -fw_cfg name=opt/org.example/NAME,string=TEXT", text);
  if (!bytes) return fail("-fw_cfg {}: say what is in it: file=PATH or string=TEXT", name);
  if (!name.starts_with("opt/"))
    log::warn("-fw_cfg {}: names outside of opt/ belong to the machine; firmware may misread it", name);
  context.plan.machine.firmware.files.emplace_back(std::move(name), std::move(*bytes));
  return {};
}

// --- -acpitable

namespace {

// The fields of a table's header that the option can set: where they are and how long.
struct HeaderField {
  std::string_view key;
  size_t offset, bytes;
  bool is_text;
};
constexpr HeaderField kHeaderFields[] = {{"sig", 0, 4, true},
                                         {"rev", 8, 1, false},
                                         {"oem_id", 10, 6, true},
                                         {"oem_table_id", 16, 8, true},
                                         {"oem_rev", 24, 4, false},
                                         {"asl_compiler_id", 28, 4, true},
                                         {"asl_compiler_rev", 32, 4, false}};
constexpr size_t kHeaderBytes = 36;

Result<> set_header_field(std::vector<uint8_t>& table, const HeaderField& field, std::string_view value) {
  uint8_t* at = table.data() + field.offset;
  if (!field.is_text) {
    KITE_ASSIGN(const uint64_t parsed, number<uint32_t>("acpitable", field.key, value));
    if (field.bytes == 1 && parsed > 255) return fail("-acpitable {}={}: at most 255", field.key, value);
    store_le(at, field.bytes, parsed);
    return {};
  }
  if (value.size() > field.bytes) return fail("-acpitable {}={}: at most {} characters", field.key, value, field.bytes);
  std::fill_n(at, field.bytes, ' ');
  std::ranges::copy(value, at);
  return {};
}

Result<> append_files(std::vector<uint8_t>& bytes, std::string_view list) {
  while (!list.empty()) {
    const size_t colon = list.find(':');
    auto read = boot::read_file(std::string(list.substr(0, colon)), "ACPI table", kMostFileBytes);
    if (!read) return fail("-acpitable: {}", read.error().message);
    bytes.insert(bytes.end(), read->begin(), read->end());
    list = colon == std::string_view::npos ? std::string_view{} : list.substr(colon + 1);
  }
  return {};
}

}  // namespace

Result<> apply_acpi_table(OptionContext& context, std::string_view text) {
  KITE_ASSIGN(const Pairs pairs, parse_options(text, ""));
  std::vector<uint8_t> table;
  for (const auto& [key, value] : pairs) {
    if (key != "file" && key != "data") continue;
    if (!table.empty()) return fail("-acpitable {}: give either file= or data=, once", text);
    if (key == "data") table.resize(kHeaderBytes);
    KITE_TRY(append_files(table, value));
  }
  if (table.size() < kHeaderBytes)
    return fail("-acpitable {}: file= names a whole table, data= what follows its header of {} bytes", text,
                kHeaderBytes);
  for (const auto& [key, value] : pairs) {
    if (key == "file" || key == "data") continue;
    const auto field = std::ranges::find(kHeaderFields, key, &HeaderField::key);
    if (field == std::end(kHeaderFields)) {
      std::vector<std::string_view> known = {"file", "data"};
      for (const HeaderField& each : kHeaderFields) known.push_back(each.key);
      return unknown("acpitable", key, known);
    }
    KITE_TRY(set_header_field(table, *field, value));
  }
  if (table[0] == 0) return fail("-acpitable {}: name the table's signature: sig=XXXX", text);
  store(&table[4], static_cast<uint32_t>(table.size()));
  table[9] = 0;
  table[9] = static_cast<uint8_t>(-std::accumulate(table.begin(), table.end(), 0));
  if (auto good = boot::check_acpi_table(table); !good) return fail("-acpitable {}: {}", text, good.error().message);
  context.plan.machine.firmware.acpi_tables.push_back(std::move(table));
  return {};
}

// --- -smbios

namespace {

struct SmbiosText {
  std::string_view key;
  std::string* target;
};

Result<> set_texts(const Pairs& pairs, std::string_view type, std::initializer_list<SmbiosText> texts,
                   const std::function<Result<bool>(std::string_view key, const std::string& value)>& other) {
  for (const auto& [key, value] : pairs) {
    if (key == "type") continue;
    const auto text = std::ranges::find(texts, key, &SmbiosText::key);
    if (text != texts.end()) {
      *text->target = value;
      continue;
    }
    KITE_ASSIGN(const bool taken, other(key, value));
    if (taken) continue;
    std::vector<std::string_view> known;
    for (const SmbiosText& each : texts) known.push_back(each.key);
    return unknown(fmt::format("smbios type={}", type), key, known);
  }
  return {};
}

Result<bool> nothing_else(std::string_view, const std::string&) { return false; }

Result<std::array<uint8_t, 2>> parse_release(const std::string& value) {
  const size_t dot = value.find('.');
  if (dot == std::string::npos) return fail("-smbios release={}: it looks like 1.2", value);
  KITE_ASSIGN(const uint8_t major, number<uint8_t>("smbios", "release", value.substr(0, dot)));
  KITE_ASSIGN(const uint8_t minor, number<uint8_t>("smbios", "release", value.substr(dot + 1)));
  return std::array{major, minor};
}

Result<> smbios_bios(boot::SmbiosConfig& config, const Pairs& pairs) {
  auto& bios = config.bios;
  bios.given = true;
  return set_texts(pairs, "0", {{"vendor", &bios.vendor}, {"version", &bios.version}, {"date", &bios.date}},
                   [&](std::string_view key, const std::string& value) -> Result<bool> {
                     if (key == "release") {
                       KITE_ASSIGN(bios.release, parse_release(value));
                       return true;
                     }
                     if (key != "uefi") return false;
                     KITE_ASSIGN(bios.uefi, parse_bool(value));
                     return true;
                   });
}

Result<> smbios_system(boot::SmbiosConfig& config, const Pairs& pairs) {
  auto& system = config.system;
  return set_texts(pairs, "1",
                   {{"manufacturer", &system.manufacturer},
                    {"product", &system.product},
                    {"version", &system.version},
                    {"serial", &system.serial},
                    {"sku", &system.sku},
                    {"family", &system.family}},
                   [&](std::string_view key, const std::string& value) -> Result<bool> {
                     if (key != "uuid") return false;
                     KITE_ASSIGN(system.uuid, parse_uuid("smbios type=1,uuid", value));
                     return true;
                   });
}

Result<> smbios_board(boot::SmbiosConfig& config, const Pairs& pairs) {
  auto& board = config.board;
  board.given = true;
  return set_texts(pairs, "2",
                   {{"manufacturer", &board.manufacturer},
                    {"product", &board.product},
                    {"version", &board.version},
                    {"serial", &board.serial},
                    {"asset", &board.asset},
                    {"location", &board.location}},
                   nothing_else);
}

Result<> smbios_chassis(boot::SmbiosConfig& config, const Pairs& pairs) {
  auto& chassis = config.chassis;
  return set_texts(pairs, "3",
                   {{"manufacturer", &chassis.manufacturer},
                    {"version", &chassis.version},
                    {"serial", &chassis.serial},
                    {"asset", &chassis.asset},
                    {"sku", &chassis.sku}},
                   nothing_else);
}

Result<> smbios_processor(boot::SmbiosConfig& config, const Pairs& pairs) {
  auto& cpu = config.processor;
  return set_texts(pairs, "4",
                   {{"sock_pfx", &cpu.socket_prefix},
                    {"manufacturer", &cpu.manufacturer},
                    {"version", &cpu.version},
                    {"serial", &cpu.serial},
                    {"asset", &cpu.asset},
                    {"part", &cpu.part}},
                   [&](std::string_view key, const std::string& value) -> Result<bool> {
                     if (key == "max-speed") {
                       KITE_ASSIGN(cpu.max_speed, number<uint16_t>("smbios type=4", key, value));
                     } else if (key == "current-speed") {
                       KITE_ASSIGN(cpu.current_speed, number<uint16_t>("smbios type=4", key, value));
                     } else if (key == "processor-id") {
                       KITE_ASSIGN(cpu.processor_id, number<uint64_t>("smbios type=4", key, value));
                     } else {
                       return false;
                     }
                     return true;
                   });
}

Result<> smbios_oem_strings(boot::SmbiosConfig& config, const Pairs& pairs) {
  constexpr size_t kMost = 255;
  std::string none;
  return set_texts(pairs, "11", {}, [&](std::string_view key, const std::string& value) -> Result<bool> {
    if (key != "value" && key != "path") return false;
    std::string text = value;
    if (key == "path") {
      KITE_ASSIGN(const auto bytes, boot::read_file(value, "OEM string", 0xffff));
      text.assign(bytes.begin(), bytes.end());
    }
    if (text.empty() || text.find('\0') != std::string::npos)
      return fail("-smbios type=11,{}={}: a string has at least one byte and no zero in it", key, value);
    if (config.oem_strings.size() == kMost) return fail("-smbios type=11: there is room for {} strings", kMost);
    config.oem_strings.push_back(std::move(text));
    return true;
  });
}

Result<> smbios_memory(boot::SmbiosConfig& config, const Pairs& pairs) {
  auto& memory = config.memory;
  return set_texts(pairs, "17",
                   {{"loc_pfx", &memory.locator_prefix},
                    {"bank", &memory.bank},
                    {"manufacturer", &memory.manufacturer},
                    {"serial", &memory.serial},
                    {"asset", &memory.asset},
                    {"part", &memory.part}},
                   [&](std::string_view key, const std::string& value) -> Result<bool> {
                     if (key != "speed") return false;
                     KITE_ASSIGN(memory.speed, number<uint16_t>("smbios type=17", key, value));
                     return true;
                   });
}

Result<> smbios_file(boot::SmbiosConfig& config, const std::string& path) {
  auto bytes = boot::read_file(path, "SMBIOS structure", 0xffff);
  if (!bytes) return fail("-smbios file={}: {}", path, bytes.error().message);
  if (auto good = boot::check_smbios_structure(*bytes); !good)
    return fail("-smbios file={}: {}", path, good.error().message);
  config.structures.push_back(std::move(*bytes));
  return {};
}

}  // namespace

Result<> apply_smbios(OptionContext& context, std::string_view text) {
  using Apply = Result<> (*)(boot::SmbiosConfig&, const Pairs&);
  static constexpr std::pair<std::string_view, Apply> kTypes[] = {
      {"0", smbios_bios},      {"1", smbios_system},       {"2", smbios_board},  {"3", smbios_chassis},
      {"4", smbios_processor}, {"11", smbios_oem_strings}, {"17", smbios_memory}};
  auto& config = context.plan.machine.firmware.smbios;
  KITE_ASSIGN(const Pairs pairs, parse_options(text, ""));
  std::string_view type;
  for (const auto& [key, value] : pairs) {
    if (key == "file") {
      if (pairs.size() != 1) return fail("-smbios {}: file= stands alone", text);
      return smbios_file(config, value);
    }
    if (key == "type") type = value;
  }
  const auto known = std::ranges::find(kTypes, type, [](const auto& item) { return item.first; });
  if (known == std::end(kTypes)) return fail("-smbios {}: begin with type=0, 1, 2, 3, 4, 11 or 17, or file=PATH", text);
  return known->second(config, pairs);
}

}  // namespace kite::main
