// info, map, measure, snapshot: what images are and contain.
#include <getopt.h>
#include <sys/time.h>
#include <time.h>

#include <algorithm>
#include <set>

#include "block/file_node.h"
#include "img/commands.h"

namespace kite::img {

using namespace block;

namespace {

constexpr int kLongBase = 256;
enum Long : int { kOutput = kLongBase, kObject, kImageOpts, kBackingChain, kStartOffset, kMaxLength, kSize };

std::string snapshot_line(const SnapshotInfo& info) {
  const time_t date = info.date_seconds;
  tm local{};
  ::localtime_r(&date, &local);
  char when[32];
  std::strftime(when, sizeof when, "%Y-%m-%d %H:%M:%S", &local);
  const uint64_t ms = info.vm_clock_ns / 1'000'000;
  const uint64_t seconds = ms / 1000;
  const std::string clock =
      fmt::format("{:02}:{:02}:{:02}.{:03}", seconds / 3600, seconds / 60 % 60, seconds % 60, ms % 1000);
  const std::string icount = info.icount ? std::to_string(*info.icount) : "";
  char text[512];
  std::snprintf(text, sizeof text, "%-10s%-18s%7s%20s%13s%11s", info.id.c_str(), info.name.c_str(),
                size_text(info.vm_state_bytes).c_str(), when, clock.c_str(), icount.c_str());
  return text;
}

void print_snapshots(const std::vector<SnapshotInfo>& snapshots) {
  std::printf("Snapshot list:\n%-10s%-18s%7s%20s%13s%11s\n", "ID", "TAG", "VM SIZE", "DATE", "VM CLOCK", "ICOUNT");
  for (const SnapshotInfo& info : snapshots) std::printf("%s\n", snapshot_line(info).c_str());
}

std::string shown_name(const std::string& key) {
  std::string name = key;
  std::ranges::replace(name, '-', ' ');
  return name;
}

std::vector<std::string> flags_of(const BitmapInfo& bitmap) {
  std::vector<std::string> flags;
  if (bitmap.in_use) flags.emplace_back("in-use");
  if (bitmap.enabled) flags.emplace_back("auto");
  return flags;
}

void print_bitmaps(const std::vector<BitmapInfo>& bitmaps) {
  std::printf("    bitmaps:\n");
  for (size_t i = 0; i < bitmaps.size(); ++i) {
    std::printf("        [%zu]:\n            flags:\n", i);
    const std::vector<std::string> flags = flags_of(bitmaps[i]);
    for (size_t flag = 0; flag < flags.size(); ++flag)
      std::printf("                [%zu]: %s\n", flag, flags[flag].c_str());
    std::printf("            name: %s\n            granularity: %llu\n", bitmaps[i].name.c_str(),
                static_cast<unsigned long long>(bitmaps[i].granularity));
  }
}

Json bitmaps_json(const std::vector<BitmapInfo>& bitmaps) {
  std::vector<Json> items;
  for (const BitmapInfo& bitmap : bitmaps) {
    std::vector<Json> flags;
    for (const std::string& flag : flags_of(bitmap)) flags.emplace_back(flag);
    items.push_back(Json::object(
        {{"flags", Json::array(std::move(flags))}, {"name", bitmap.name}, {"granularity", bitmap.granularity}}));
  }
  return Json::array(std::move(items));
}

// Bitmaps are told of before this.
constexpr std::string_view kBehindBitmaps = "refcount-bits";

struct Described {
  std::string filename;
  std::string format;
  uint64_t bytes = 0;
  uint64_t disk_bytes = 0;
  ImageInfo image;
  std::string full_backing;
};

// An image that a file's name alone says all about.
bool is_plain_file(const BlockNode& node) {
  const BlockNode* file = node.file();
  if (file == nullptr || dynamic_cast<const FileNode*>(file) == nullptr) return false;
  return dynamic_cast<const FormatNode*>(&node) != nullptr || (node.driver() == "raw" && node.growable());
}

Described describe(const Image& image, std::string filename) {
  Described described;
  described.filename = std::move(filename);
  described.format = image.node().driver();
  described.bytes = image.length();
  described.disk_bytes = image.node().allocated_bytes();
  if (FormatNode* format = image.format()) described.image = format->image_info();
  const std::string& backing = described.image.backing_filename;
  if (!backing.empty())
    described.full_backing = backing.starts_with("json:") ? backing : resolve_relative(described.filename, backing);
  return described;
}

void print_human(const Described& info) {
  std::printf("image: %s\nfile format: %s\nvirtual size: %s (%llu bytes)\ndisk size: %s\n", info.filename.c_str(),
              info.format.c_str(), size_text(info.bytes).c_str(), static_cast<unsigned long long>(info.bytes),
              size_text(info.disk_bytes).c_str());
  if (info.image.encrypted) std::printf("encrypted: yes\n");
  if (info.image.cluster_bytes != 0)
    std::printf("cluster_size: %llu\n", static_cast<unsigned long long>(info.image.cluster_bytes));
  if (info.image.dirty) std::printf("cleanly shut down: no\n");
  if (!info.image.backing_filename.empty()) {
    std::printf("backing file: %s", info.image.backing_filename.c_str());
    if (info.full_backing != info.image.backing_filename) std::printf(" (actual path: %s)", info.full_backing.c_str());
    std::printf("\n");
    if (!info.image.backing_format.empty()) std::printf("backing file format: %s\n", info.image.backing_format.c_str());
  }
  if (!info.image.snapshots.empty()) print_snapshots(info.image.snapshots);
  if (!info.image.has_format_specific) return;
  std::printf("Format specific information:\n");
  for (const auto& [key, value] : info.image.format_specific) {
    if (key == kBehindBitmaps && !info.image.bitmaps.empty()) print_bitmaps(info.image.bitmaps);
    std::string text;
    if (const auto* flag = std::get_if<bool>(&value)) text = *flag ? "true" : "false";
    if (const auto* number = std::get_if<uint64_t>(&value)) text = std::to_string(*number);
    if (const auto* string = std::get_if<std::string>(&value)) text = *string;
    std::printf("    %s: %s\n", shown_name(key).c_str(), text.c_str());
  }
}

Json to_json(const Described& info) {
  Json::Members members{{"virtual-size", info.bytes},
                        {"filename", info.filename},
                        {"format", info.format},
                        {"actual-size", info.disk_bytes}};
  const ImageInfo& image = info.image;
  if (image.cluster_bytes != 0) members.emplace_back("cluster-size", image.cluster_bytes);
  if (!image.backing_filename.empty()) {
    members.emplace_back("full-backing-filename", info.full_backing);
    members.emplace_back("backing-filename", image.backing_filename);
    if (!image.backing_format.empty()) members.emplace_back("backing-filename-format", image.backing_format);
  }
  if (image.has_format_specific) {
    Json::Members data;
    for (const auto& [key, value] : image.format_specific) {
      if (key == kBehindBitmaps && !image.bitmaps.empty()) data.emplace_back("bitmaps", bitmaps_json(image.bitmaps));
      data.emplace_back(key, std::visit([](const auto& held) { return Json(held); }, value));
    }
    members.emplace_back("format-specific",
                         Json::object({{"type", info.format}, {"data", Json::object(std::move(data))}}));
  }
  members.emplace_back("dirty-flag", image.dirty);
  if (!image.snapshots.empty()) {
    std::vector<Json> items;
    for (const SnapshotInfo& snapshot : image.snapshots) {
      Json::Members fields{{"vm-clock-nsec", snapshot.vm_clock_ns % 1'000'000'000},
                           {"name", snapshot.name},
                           {"date-sec", uint64_t{snapshot.date_seconds}},
                           {"date-nsec", uint64_t{snapshot.date_nanoseconds}},
                           {"vm-clock-sec", snapshot.vm_clock_ns / 1'000'000'000},
                           {"id", snapshot.id},
                           {"vm-state-size", snapshot.vm_state_bytes}};
      if (snapshot.icount) fields.emplace_back("icount", *snapshot.icount);
      items.push_back(Json::object(std::move(fields)));
    }
    members.emplace_back("snapshots", Json::array(std::move(items)));
  }
  return Json::object(std::move(members));
}

}  // namespace

int command_info(Session& session, Argv argv) {
  static constexpr option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                      {"format", required_argument, nullptr, 'f'},
                                      {"output", required_argument, nullptr, kOutput},
                                      {"backing-chain", no_argument, nullptr, kBackingChain},
                                      {"object", required_argument, nullptr, kObject},
                                      {"image-opts", no_argument, nullptr, kImageOpts},
                                      {"force-share", no_argument, nullptr, 'U'},
                                      {nullptr, 0, nullptr, 0}};
  OpenRequest request{.no_backing = true};
  std::string output = "human";
  bool chain = false;
  bool help = false;
  const bool parsed = parse_arguments(session, argv, ":hf:U", kLongs, [&](int letter, const char* text) {
    switch (letter) {
      case 'h': help = true; return true;
      case 'f': request.format = text; return true;
      case 'U': request.force_share = true; return true;
      case kOutput: output = text; return true;
      case kBackingChain: chain = true; return true;
      case kImageOpts: request.image_opts = true; return true;
      default: return false;
    }
  });
  if (help) return show_help(session);
  if (!parsed) return wrong_use(session, "unrecognized option or missing argument");
  const auto names = operands(argv);
  if (names.size() != 1) return wrong_use(session, "Expecting one image file name");
  const auto kind = parse_output(session, output);
  if (!kind) return 1;
  request.filename = names[0];
  std::vector<Described> all;
  std::set<std::string> seen;
  while (true) {
    if (!seen.insert(request.filename).second) {
      return session.complain(fmt::format("Backing file '{}' creates an infinite loop.", request.filename));
    }
    auto image = open_image(session, request);
    if (!image) return session.complain(image.error().message);
    const bool plain = !request.image_opts && !(request.filename.starts_with("json:") && is_plain_file(image->node()));
    all.push_back(describe(*image, plain ? request.filename : image->node().filename()));
    const Described& last = all.back();
    if (!chain || last.full_backing.empty()) break;
    request.filename = last.full_backing;
    request.format = last.image.backing_format;
    request.image_opts = false;
  }
  if (*kind == Output::kJson) {
    std::vector<Json> items;
    for (const Described& described : all) items.push_back(to_json(described));
    std::printf("%s\n", chain ? Json::array(std::move(items)).text().c_str() : items.front().text().c_str());
    return 0;
  }
  for (size_t i = 0; i < all.size(); ++i) {
    if (i != 0) std::printf("\n");
    print_human(all[i]);
  }
  return 0;
}

namespace {

struct MapEntry {
  uint64_t start = 0, length = 0;
  ChainStatus chain;
  std::string file;

  [[nodiscard]] bool continues(const MapEntry& next) const {
    const BlockStatus& a = chain.status;
    const BlockStatus& b = next.chain.status;
    if (a.zero != b.zero || a.data != b.data || chain.present != next.chain.present || chain.depth != next.chain.depth)
      return false;
    if (a.compressed != b.compressed || a.has_offset != b.has_offset || file != next.file) return false;
    return !a.has_offset || a.offset + length == b.offset;
  }
};

void print_entry(const MapEntry& entry, Output output, bool first) {
  const BlockStatus& status = entry.chain.status;
  if (output == Output::kHuman) {
    if (status.data && !status.zero && status.has_offset) {
      std::printf("%#-16llx%#-16llx%#-16llx%s\n", static_cast<unsigned long long>(entry.start),
                  static_cast<unsigned long long>(entry.length), static_cast<unsigned long long>(status.offset),
                  entry.file.c_str());
    }
    return;
  }
  const auto text = [](bool value) { return value ? "true" : "false"; };
  std::printf("%s{ \"start\": %llu, \"length\": %llu, \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s",
              first ? "[" : ",\n", static_cast<unsigned long long>(entry.start),
              static_cast<unsigned long long>(entry.length), entry.chain.depth, text(entry.chain.present),
              text(status.zero), text(status.data));
  if (status.has_offset) std::printf(", \"offset\": %llu", static_cast<unsigned long long>(status.offset));
  std::printf("}");
}

int print_map(Session& session, BlockNode& node, uint64_t start, uint64_t end, Output output) {
  std::optional<MapEntry> last;
  bool first = true;
  if (output == Output::kHuman) std::printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
  for (uint64_t at = start; at < end;) {
    const auto chain = session.await(chain_status(node, at, end - at));
    if (!chain)
      return session.complain(fmt::format("Failed to read image metadata: {}", errno_text(chain.error().code)));
    MapEntry entry{.start = at, .length = chain->bytes, .chain = *chain, .file = {}};
    if (chain->status.has_offset && chain->status.file != nullptr) entry.file = chain->status.file->filename();
    if (output == Output::kHuman && chain->status.data && !chain->status.zero && !chain->status.has_offset) {
      return session.complain("File contains external, encrypted or compressed clusters.");
    }
    at += chain->bytes;
    if (last && last->continues(entry)) {
      last->length += entry.length;
      continue;
    }
    if (last) {
      print_entry(*last, output, first);
      first = false;
    }
    last = entry;
  }
  if (last) print_entry(*last, output, first);
  if (output == Output::kJson) std::printf(last ? "]\n" : "[]\n");
  return 0;
}

}  // namespace

int command_map(Session& session, Argv argv) {
  static constexpr option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                      {"format", required_argument, nullptr, 'f'},
                                      {"output", required_argument, nullptr, kOutput},
                                      {"object", required_argument, nullptr, kObject},
                                      {"image-opts", no_argument, nullptr, kImageOpts},
                                      {"force-share", no_argument, nullptr, 'U'},
                                      {"start-offset", required_argument, nullptr, 's'},
                                      {"max-length", required_argument, nullptr, 'l'},
                                      {nullptr, 0, nullptr, 0}};
  OpenRequest request;
  std::string output = "human";
  uint64_t start = 0;
  uint64_t length = ~uint64_t{0};
  bool help = false;
  bool said = false;
  const bool parsed = parse_arguments(session, argv, ":f:s:l:hU", kLongs, [&](int letter, const char* text) {
    const auto size = [&](const char* what, uint64_t& to) {
      const auto value = tool_size(session, what, text);
      said = !value;
      to = value.value_or(0);
      return value.has_value();
    };
    switch (letter) {
      case 'h': help = true; return true;
      case 'f': request.format = text; return true;
      case 'U': request.force_share = true; return true;
      case kOutput: output = text; return true;
      case kImageOpts: request.image_opts = true; return true;
      case 's': return size("start offset", start);
      case 'l': return size("max length", length);
      default: return false;
    }
  });
  if (help) return show_help(session);
  if (!parsed) return said ? 1 : wrong_use(session, "unrecognized option or missing argument");
  const auto names = operands(argv);
  if (names.size() != 1) return wrong_use(session, "Expecting one image file name");
  const auto kind = parse_output(session, output);
  if (!kind) return 1;
  request.filename = names[0];
  auto image = open_image(session, request);
  if (!image) return session.complain(image.error().message);
  const uint64_t end = image->length();
  start = std::min(start, end);
  return print_map(session, image->node(), start, length < end - start ? start + length : end, *kind);
}

int command_snapshot(Session& session, Argv argv) {
  static constexpr option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                      {"object", required_argument, nullptr, kObject},
                                      {"image-opts", no_argument, nullptr, kImageOpts},
                                      {"force-share", no_argument, nullptr, 'U'},
                                      {nullptr, 0, nullptr, 0}};
  OpenRequest request;
  char action = 0;
  std::string name;
  bool help = false;
  bool twice = false;
  const bool parsed = parse_arguments(session, argv, ":la:c:d:hqU", kLongs, [&](int letter, const char* text) {
    switch (letter) {
      case 'h': help = true; return true;
      case 'q': return true;
      case 'U': request.force_share = true; return true;
      case kImageOpts: request.image_opts = true; return true;
      case 'l':
      case 'a':
      case 'c':
      case 'd':
        twice = action != 0;
        action = static_cast<char>(letter);
        name = text == nullptr ? "" : text;
        return !twice;
      default: return false;
    }
  });
  if (help) return show_help(session);
  if (twice) return wrong_use(session, "Cannot mix '-l', '-a', '-c', '-d'");
  if (!parsed) return wrong_use(session, "unrecognized option or missing argument");
  const auto names = operands(argv);
  if (names.size() != 1) return wrong_use(session, "Expecting one image file name");
  request.filename = names[0];
  request.writable = action != 'l' && action != 0;
  auto image = open_image(session, request);
  if (!image) return session.complain(image.error().message);
  FormatNode* format = image->format();
  if (action == 'l' || action == 0) {
    if (format != nullptr && !format->image_info().snapshots.empty()) print_snapshots(format->image_info().snapshots);
    return 0;
  }
  if (format == nullptr) {
    const char* verb = action == 'c' ? "create" : action == 'a' ? "apply" : "delete";
    return session.complain(fmt::format("Could not {} snapshot '{}': -95 (Operation not supported)", verb, name));
  }
  Result<> done;
  if (action == 'c') {
    timeval now{};
    ::gettimeofday(&now, nullptr);
    SnapshotInfo info{.name = name, .date_seconds = static_cast<uint32_t>(now.tv_sec), .icount = 0};
    info.date_nanoseconds = static_cast<uint32_t>(now.tv_usec) * 1000;
    done = session.await(format->snapshot_create(std::move(info)));
    if (!done) return session.complain(fmt::format("Could not create snapshot '{}': {}", name, done.error().message));
  } else if (action == 'a') {
    done = session.await(format->snapshot_apply(name));
    if (!done) return session.complain(fmt::format("Could not apply snapshot '{}': {}", name, done.error().message));
  } else {
    done = session.await(format->snapshot_delete(name));
    if (!done) return session.complain(fmt::format("Could not delete snapshot '{}': {}", name, done.error().message));
  }
  return 0;
}

namespace {

// Bytes of the image that need room in a target whose unit of allocation is `unit` bytes.
Result<uint64_t> allocated_bytes(Session& session, Image& image, uint64_t unit) {
  const uint64_t bytes = image.length();
  uint64_t data = 0, counted_to = 0;
  for (uint64_t at = 0; at < bytes;) {
    const auto chain = session.await(chain_status(image.node(), at, bytes - at));
    if (!chain) return fail("Failed to read image metadata: {}", errno_text(chain.error().code));
    if (chain->status.data && !chain->status.zero) {
      const uint64_t from = std::max(counted_to, at / unit * unit);
      const uint64_t to = (at + chain->bytes + unit - 1) / unit * unit;
      if (to > from) data += to - from;
      counted_to = std::max(counted_to, to);
    }
    at += chain->bytes;
  }
  return data;
}

}  // namespace

int command_measure(Session& session, Argv argv) {
  static constexpr option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                      {"object", required_argument, nullptr, kObject},
                                      {"image-opts", no_argument, nullptr, kImageOpts},
                                      {"output", required_argument, nullptr, kOutput},
                                      {"size", required_argument, nullptr, kSize},
                                      {"force-share", no_argument, nullptr, 'U'},
                                      {nullptr, 0, nullptr, 0}};
  OpenRequest request;
  std::string output = "human";
  std::string target = "raw";
  std::string snapshot;
  std::optional<uint64_t> size;
  BlockOptions options;
  bool help = false;
  bool said = false;
  const bool parsed = parse_arguments(session, argv, ":hf:l:o:O:U", kLongs, [&](int letter, const char* text) {
    switch (letter) {
      case 'h': help = true; return true;
      case 'f': request.format = text; return true;
      case 'l': snapshot = text; return true;
      case 'O': target = text; return true;
      case 'U': request.force_share = true; return true;
      case 'o': return !(said = !add_options(session, options, text));
      case kOutput: output = text; return true;
      case kImageOpts: request.image_opts = true; return true;
      case kSize: size = tool_size(session, "image size", text); return !(said = !size);
      default: return false;
    }
  });
  if (help) return show_help(session);
  if (!parsed) return said ? 1 : wrong_use(session, "unrecognized option or missing argument");
  const auto kind = parse_output(session, output);
  if (!kind) return 1;
  const auto names = operands(argv);
  if (names.size() > 1) return session.complain("At most one filename argument is allowed.");
  if (names.empty() == !size) {
    return session.complain(names.empty() ? "Either --size N or one filename must be specified."
                                          : "--size N cannot be used together with a filename.");
  }
  const ImageFormat* format = find_image_format(target);
  if (format == nullptr) return session.complain(fmt::format("Unknown file format '{}'", target));
  uint64_t data = 0;
  uint64_t bytes = size.value_or(0);
  if (!names.empty()) {
    request.filename = names[0];
    auto image = open_image(session, request);
    if (!image) return session.complain(image.error().message);
    if (!snapshot.empty()) {
      if (image->format() == nullptr) return session.complain("Failed to load snapshot: the format has none");
      if (const auto loaded = session.await(image->format()->snapshot_load(snapshot)); !loaded) {
        return session.complain(fmt::format("Failed to load snapshot: {}", loaded.error().message));
      }
    }
    bytes = image->length();
    const auto cluster = format->cluster_bytes(options);
    if (!cluster) return session.complain(cluster.error().message);
    const auto counted = allocated_bytes(session, *image, std::max<uint64_t>(*cluster, 1));
    if (!counted) return session.complain(counted.error().message);
    data = *counted;
  }
  const auto measured = format->measure(bytes, data, options);
  if (!measured) return session.complain(measured.error().message);
  if (*kind == Output::kJson) {
    std::printf("%s\n", Json::object({{"required", measured->required}, {"fully-allocated", measured->fully_allocated}})
                            .text()
                            .c_str());
  } else {
    std::printf("required size: %llu\nfully allocated size: %llu\n",
                static_cast<unsigned long long>(measured->required),
                static_cast<unsigned long long>(measured->fully_allocated));
  }
  return 0;
}

}  // namespace kite::img
