#include "machine/drive_spec.h"

#include <algorithm>
#include <array>

#include "object/object_type.h"
#include "support/suggest.h"

namespace kite::machine {

namespace {

using block::BlockOptions;

constexpr std::array<std::string_view, 5> kInterfaces{"ide", "scsi", "virtio", "floppy", "none"};

// Limits as short names of old and as the throttle filter names them.
struct Renamed {
  std::string_view from, to;
};
constexpr Renamed kOldNames[] = {
    {"bps", "throttling.bps-total"},
    {"bps_rd", "throttling.bps-read"},
    {"bps_wr", "throttling.bps-write"},
    {"bps_max", "throttling.bps-total-max"},
    {"bps_rd_max", "throttling.bps-read-max"},
    {"bps_wr_max", "throttling.bps-write-max"},
    {"iops", "throttling.iops-total"},
    {"iops_rd", "throttling.iops-read"},
    {"iops_wr", "throttling.iops-write"},
    {"iops_max", "throttling.iops-total-max"},
    {"iops_rd_max", "throttling.iops-read-max"},
    {"iops_wr_max", "throttling.iops-write-max"},
    {"iops_size", "throttling.iops-size"},
    {"group", "throttling.group"},
    {"readonly", "read-only"},
};

Result<DriveInterface> parse_interface(const std::string& name) {
  const auto found = std::ranges::find(kInterfaces, name);
  if (found != kInterfaces.end()) return static_cast<DriveInterface>(found - kInterfaces.begin());
  if (name == "sd" || name == "mtd" || name == "xen")
    return fail("if={}: this version of Kite has no such interface; a PC has ide, scsi, virtio, floppy, pflash, none",
                name);
  return fail("if={}: unsupported bus type{}", name, suggestion(name, kInterfaces));
}

Result<std::optional<unsigned>> take_number(BlockOptions& options, std::string_view name) {
  constexpr uint64_t kMost = 255;
  if (!options.has(name)) return std::optional<unsigned>{};
  KITE_ASSIGN(const uint64_t value, options.take_unsigned(name, 0, 0, kMost));
  return std::optional<unsigned>(static_cast<unsigned>(value));
}

// How many units a bus of the interface has; 0: there is one bus, as long as you like.
unsigned units_of(DriveInterface interface, unsigned ide_units) {
  switch (interface) {
    case DriveInterface::kIde: return ide_units;
    case DriveInterface::kScsi: return 7;
    default: return 0;
  }
}

Result<> place(DriveSpec& spec, BlockOptions& options, const DrivePlan& plan) {
  KITE_ASSIGN(const auto bus, take_number(options, "bus"));
  KITE_ASSIGN(const auto unit, take_number(options, "unit"));
  KITE_ASSIGN(const auto index, take_number(options, "index"));
  const unsigned units = units_of(spec.interface, plan.ide_units);
  if (index && (bus || unit)) return fail("index cannot be used with bus and unit");
  const auto taken = [&](unsigned b, unsigned u) {
    return std::ranges::any_of(plan.drives, [&](const DriveSpec& other) {
      return other.interface == spec.interface && other.bus == b && other.unit == u;
    });
  };
  spec.bus = bus.value_or(0);
  spec.unit = unit.value_or(0);
  if (index) {
    spec.bus = units == 0 ? 0 : *index / units;
    spec.unit = units == 0 ? *index : *index % units;
  } else if (!unit) {
    while (taken(spec.bus, spec.unit)) {
      ++spec.unit;
      if (units == 0 || spec.unit < units) continue;
      spec.unit = 0;
      ++spec.bus;
    }
  }
  if (units != 0 && spec.unit >= units) return fail("unit {} too big (max is {})", spec.unit, units - 1);
  if (taken(spec.bus, spec.unit))
    return fail("drive with bus={}, unit={} (index={}) exists", spec.bus, spec.unit,
                index.value_or(units == 0 ? spec.unit : spec.bus * units + spec.unit));
  return {};
}

std::string generated_id(const DriveSpec& spec, unsigned ide_units) {
  const std::string_view name = drive_interface_name(spec.interface);
  const bool has_media = spec.interface == DriveInterface::kIde || spec.interface == DriveInterface::kScsi;
  const std::string_view media = !has_media ? "" : spec.cdrom ? "-cd" : "-hd";
  if (units_of(spec.interface, ide_units) == 0) return fmt::format("{}{}{}", name, media, spec.unit);
  return fmt::format("{}{}{}{}", name, spec.bus, media, spec.unit);
}

Result<> take_cache(DriveSpec& spec, BlockOptions& options) {
  if (const auto mode = options.take("cache")) {
    KITE_ASSIGN(spec.request.cache, block::parse_cache_mode(*mode));
  }
  block::CacheMode& cache = spec.request.cache;
  KITE_ASSIGN(cache.writeback, options.take_bool("cache.writeback", cache.writeback));
  KITE_ASSIGN(cache.direct, options.take_bool("cache.direct", cache.direct));
  KITE_ASSIGN(cache.no_flush, options.take_bool("cache.no-flush", cache.no_flush));
  spec.write_cache = cache.writeback;
  if (auto aio = options.take("aio")) {
    static constexpr std::string_view kKinds[] = {"threads", "native", "io_uring"};
    if (std::ranges::find(kKinds, *aio) == std::end(kKinds))
      return fail("invalid aio option '{}'{}", *aio, suggestion(*aio, kKinds));
    if (*aio == "native" && !cache.direct)
      return fail("aio=native was specified, but it requires cache.direct=on, which was not specified.");
    spec.request.aio = std::move(*aio);
  }
  return {};
}

Result<> take_error_policies(DriveSpec& spec, BlockOptions& options) {
  const bool can = spec.interface == DriveInterface::kIde || spec.interface == DriveInterface::kScsi ||
                   spec.interface == DriveInterface::kVirtio || spec.interface == DriveInterface::kNone;
  const auto take = [&](const char* name, block::OnError usual) -> Result<std::optional<block::OnError>> {
    const auto text = options.take(name);
    if (!text) return std::optional<block::OnError>{};
    if (!can) return fail("{} is not supported by this bus type", name);
    KITE_ASSIGN(const block::OnError policy, block::parse_on_error(name, *text, usual));
    return std::optional<block::OnError>(policy);
  };
  KITE_ASSIGN(spec.write_error, take("werror", block::OnError::kEnospc));
  KITE_ASSIGN(spec.read_error, take("rerror", block::OnError::kReport));
  if (spec.read_error == block::OnError::kEnospc)
    return fail("'enospc' invalid read error action: reading needs no space");
  return {};
}

Result<> take_media(DriveSpec& spec, BlockOptions& options) {
  const std::string media = options.take_string("media", "disk");
  if (media != "disk" && media != "cdrom") return fail("'{}' invalid media; it is disk or cdrom", media);
  spec.cdrom = media == "cdrom";
  KITE_ASSIGN(spec.request.read_only, options.take_bool("read-only", spec.cdrom));
  if (spec.cdrom && !spec.request.read_only) return fail("media=cdrom is read-only: readonly=off does not go with it");
  KITE_ASSIGN(spec.snapshot, options.take_bool("snapshot", spec.snapshot));
  KITE_ASSIGN(spec.copy_on_read, options.take_bool("copy-on-read", false));
  if (spec.copy_on_read && spec.request.read_only)
    return fail("copy-on-read=on writes to the image, which readonly=on forbids");
  return {};
}

}  // namespace

std::string_view drive_interface_name(DriveInterface interface) { return kInterfaces[static_cast<size_t>(interface)]; }

Result<DriveSpec> parse_drive(const std::vector<std::pair<std::string, std::string>>& pairs, const DrivePlan& plan) {
  BlockOptions options;
  for (const auto& [name, value] : pairs) {
    const auto* const old = std::ranges::find(kOldNames, name, &Renamed::from);
    const std::string key = old == std::end(kOldNames) ? name : std::string(old->to);
    if (old != std::end(kOldNames) && options.has(key))
      return fail("'{}' and its alias '{}' can't be used at the same time", key, name);
    options.set(key, value);
  }
  DriveSpec spec;
  spec.snapshot = plan.snapshot;
  spec.is_default = plan.is_default;
  KITE_ASSIGN(spec.interface, parse_interface(options.take_string("if", "ide")));
  KITE_TRY(take_media(spec, options));
  KITE_TRY(place(spec, options, plan));
  spec.id = options.take_string("id");
  if (spec.id.empty())
    spec.id = generated_id(spec, plan.ide_units);
  else if (!valid_id(spec.id))
    return fail("id={}: an id is a letter, then letters, digits, '-', '.', '_'", spec.id);
  KITE_TRY(take_cache(spec, options));
  KITE_TRY(take_error_policies(spec, options));
  KITE_ASSIGN(spec.throttle, block::take_throttle_limits(options, "throttling."));
  spec.throttle_group = options.take_string("throttling.group");
  spec.request.format = options.take_string("format");
  if (options.has("driver")) {
    if (!spec.request.format.empty()) return fail("Cannot specify both 'driver' and 'format'");
    spec.request.format = options.take_string("driver");
  }
  if (!spec.request.format.empty() && block::find_driver(spec.request.format) == nullptr) {
    std::vector<std::string_view> known;
    for (const block::Driver& driver : block::drivers()) known.push_back(driver.name);
    return fail("'{}' invalid format{}", spec.request.format, suggestion(spec.request.format, known));
  }
  if (const std::string* file = options.find("file"); file != nullptr) {
    spec.request.filename = *file;
    options.erase("file");
  }
  options.set_default("discard", "ignore");
  spec.request.discard_unmap = false;
  const bool only_common = std::ranges::all_of(options.all(), [](const auto& option) {
    return option.first == "discard" || option.first == "detect-zeroes" || option.first == "auto-read-only";
  });
  spec.has_image = !spec.request.filename.empty() || !only_common ||
                   (!spec.request.format.empty() && block::find_driver(spec.request.format)->is_protocol);
  if (!spec.has_image && !spec.request.format.empty() && spec.interface != DriveInterface::kFloppy && !spec.cdrom &&
      spec.interface != DriveInterface::kNone)
    return fail("format={}: a drive without file= has no format", spec.request.format);
  spec.request.options = std::move(options);
  return spec;
}

}  // namespace kite::machine
