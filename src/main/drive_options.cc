// -drive, -blockdev and the short options for disks.
#include <algorithm>

#include "machine/board.h"
#include "main/option_values.h"

namespace kite::main {

namespace {

using Pairs = std::vector<std::pair<std::string, std::string>>;

std::string names_of_formats() {
  std::vector<std::string_view> names;
  for (const block::Driver& driver : block::drivers()) names.push_back(driver.name);
  return fmt::format("Supported formats: {}\n", fmt::join(names, " "));
}

}  // namespace

Result<> apply_drive(OptionContext& context, std::string_view text) {
  Pairs pairs;
  if (text.starts_with('{')) {
    KITE_ASSIGN(const auto options, block::BlockOptions::parse(text));
    pairs.assign(options.all().begin(), options.all().end());
  } else {
    KITE_ASSIGN(pairs, parse_options(text, ""));
  }
  for (const auto& [key, value] : pairs) {
    if (key == "if" && value == "pflash") return apply_flash(context, "drive", pairs);
    if (key == "format" && (value == "help" || value == "?")) {
      context.plan.text = names_of_formats();
      return {};
    }
  }
  context.plan.drive_options.push_back({.name = "drive", .text = std::string(text), .settings = std::move(pairs)});
  return {};
}

Result<> apply_blockdev(OptionContext& context, std::string_view text) {
  auto options = block::BlockOptions::parse(text, "driver");
  if (!options) return fail("-blockdev {}: {}", text, options.error().message);
  if (!options->has("node-name"))
    return fail("-blockdev {}: name the node: node-name=NAME, for -device drive=NAME", text);
  context.plan.nodes.push_back(std::move(*options));
  return {};
}

Result<> apply_disk(OptionContext& context, std::string_view option, std::string_view place, std::string_view file) {
  KITE_ASSIGN(Pairs pairs, parse_options(place, ""));
  pairs.emplace_back("file", file);
  context.plan.drive_options.push_back(
      {.name = std::string(option), .text = std::string(file), .settings = std::move(pairs)});
  return {};
}

namespace {

bool is_q35(const LaunchPlan& plan) {
  const machine::BoardInfo* const board = machine::find_board(plan.machine.board);
  return board != nullptr && board->name.find("q35") != std::string_view::npos;
}

bool has_device(const LaunchPlan& plan, std::initializer_list<std::string_view> types) {
  return std::ranges::any_of(plan.machine.devices,
                             [&](const auto& device) { return std::ranges::find(types, device.type) != types.end(); });
}

Result<> add_drive(LaunchPlan& plan, const DriveOption& option, machine::DrivePlan so_far) {
  so_far.drives = plan.drives;
  auto spec = machine::parse_drive(option.settings, so_far);
  if (!spec) return fail("-{} {}: {}", option.name, option.text, spec.error().message);
  const bool taken = std::ranges::any_of(plan.drives, [&](const auto& other) { return other.id == spec->id; });
  if (taken) return fail("-{} {}: the id '{}' is taken by another drive", option.name, option.text, spec->id);
  plan.drives.push_back(std::move(*spec));
  return {};
}

// An empty drive at `index`, unless something is there.
Result<> add_default(LaunchPlan& plan, machine::DriveInterface interface, unsigned bus, unsigned unit,
                     DriveOption option, machine::DrivePlan so_far) {
  const bool there = std::ranges::any_of(plan.drives, [&](const machine::DriveSpec& drive) {
    return drive.interface == interface && drive.bus == bus && drive.unit == unit;
  });
  so_far.is_default = true;
  return there ? Result<>{} : add_drive(plan, option, so_far);
}

}  // namespace

Result<> resolve_drives(LaunchPlan& plan) {
  using machine::DriveInterface;
  const bool q35 = is_q35(plan);
  const machine::DrivePlan common{.drives = {}, .ide_units = q35 ? 1u : 2u, .snapshot = plan.snapshot};
  for (const DriveOption& option : plan.drive_options) KITE_TRY(add_drive(plan, option, common));
  const machine::BoardInfo* const board = machine::find_board(plan.machine.board);
  if (!plan.defaults || board == nullptr || board->max_cpus == 0) return {};
  const DriveOption cdrom{.name = "cdrom", .text = "", .settings = {{"index", "2"}, {"media", "cdrom"}}};
  const DriveOption floppy{.name = "fda", .text = "", .settings = {{"if", "floppy"}, {"index", "0"}}};
  if (!has_device(plan, {"ide-cd", "ide-hd", "scsi-cd", "scsi-hd"}))
    KITE_TRY(add_default(plan, DriveInterface::kIde, q35 ? 2 : 1, 0, cdrom, common));
  if (!q35 && !has_device(plan, {"floppy", "isa-fdc"}))
    KITE_TRY(add_default(plan, DriveInterface::kFloppy, 0, 0, floppy, common));
  return {};
}

}  // namespace kite::main
