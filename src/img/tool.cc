#include "img/tool.h"

#include <algorithm>
#include <cinttypes>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "block/plain_nodes.h"
#include "support/log.h"

namespace kite::img {

using namespace block;

Session::Session(std::string program) : program_(std::move(program)) {
  log::set_plain();
  Result<std::unique_ptr<Executor>> executor = Executor::create("img");
  if (!executor) {
    complain(executor.error().message);
    std::exit(1);
  }
  executor_ = std::move(*executor);
  graph_ = std::make_unique<BlockGraph>(*executor_);
}

Session::~Session() = default;

int Session::complain(std::string_view text) const {
  std::fprintf(stderr, "%s: %.*s\n", program_.c_str(), static_cast<int>(text.size()), text.data());
  return 1;
}

int Session::finish() {
  const Result<> closed = await(graph_->close_all());
  kept_.clear();
  return closed ? 0 : complain(closed.error().message);
}

namespace {

// An empty qcow2 image in memory over a node.
Task<Result<NodePtr>> open_overlay(BlockGraph& graph, NodePtr below) {
  const auto memory = std::make_shared<MemoryNode>(graph.executor(), NodeConfig{}, 0, true);
  KITE_CO_TRY(graph.adopt(memory));
  memory->set_kept(true);
  CreateRequest request;
  request.bytes = below->length();
  KITE_CO_TRY(co_await find_image_format("qcow2")->create(graph, memory, std::move(request)));
  BlockOptions options;
  options.set("driver", "qcow2");
  options.set("file", memory->name());
  options.set("backing", below->name());
  options.set("discard", "unmap");
  Result<NodePtr> node = co_await graph.open(std::move(options));
  memory->set_kept(false);
  co_return node;
}

Task<Result<NodePtr>> open_layers(BlockGraph& graph, BlockGraph::FileRequest file, const OpenRequest& request) {
  if (request.copy_on_read && file.read_only) co_return fail("Can't use copy-on-read on read-only device");
  if (request.snapshot) file.read_only = true;
  KITE_CO_ASSIGN(NodePtr node, co_await graph.open_file(std::move(file)));
  if (request.snapshot) {
    KITE_CO_ASSIGN(node, co_await open_overlay(graph, std::move(node)));
  }
  if (!request.copy_on_read) co_return node;
  BlockOptions options;
  options.set("driver", "copy-on-read");
  options.set("file", node->name());
  options.set("discard", "unmap");
  co_return co_await graph.open(std::move(options));
}

}  // namespace

Result<Image> open_image(Session& session, const OpenRequest& request) {
  BlockGraph::FileRequest file;
  KITE_ASSIGN(const CacheMode cache, parse_cache_mode(request.cache));
  if (request.image_opts) {
    if (!request.format.empty()) return fail("--image-opts and --format are mutually exclusive");
    KITE_ASSIGN(file.options, BlockOptions::parse(request.filename));
  } else {
    file.filename = request.filename;
  }
  for (const auto& [key, value] : request.options.all()) file.options.set(key, value);
  file.format = request.format;
  file.read_only = !request.writable;
  file.allow_raw_probe = true;
  file.no_backing = request.no_backing;
  file.force_share = request.force_share;
  file.for_check = request.for_check;
  file.cache = cache;
  file.discard_unmap = request.writable;
  file.aio = request.aio.empty() && !cache.direct && request.alone ? "inline" : request.aio;
  if (!request.detect_zeroes.empty()) file.options.set("detect-zeroes", request.detect_zeroes);
  if (request.backing != nullptr) file.options.set("backing", request.backing->name());
  auto node = session.await(open_layers(session.graph(), std::move(file), request));
  const std::string shown = request.image_opts ? "" : request.filename;
  if (!node) {
    if (request.image_opts) return fail("Could not open '{}': {}", request.filename, node.error().message);
    return fail("Could not open '{}': {}", shown, node.error().message);
  }
  Permissions permissions;
  if (request.writable && !(*node)->read_only()) permissions.need |= Permissions::kWrite;
  if (request.resize) permissions.need |= Permissions::kResize;
  if (request.exclusive) permissions.shared = Permissions::kConsistentRead | Permissions::kWriteUnchanged;
  const NodePtr keep = *node;
  session.keep(keep);
  auto use = NodeUse::claim(std::move(*node), "the tool", permissions);
  if (!use) {
    session.await(keep->close());
    return fail("Could not open '{}': {}", request.filename, use.error().message);
  }
  return Image{std::move(*use), !cache.writeback};
}

std::string size_text(uint64_t bytes) {
  static constexpr const char* kUnits[] = {"", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"};
  // 1000 KiB is shown as such, 1001 as 0.978 MiB: four digits never come.
  int exponent = 0;
  std::frexp(static_cast<double>(bytes) / (1000.0 / 1024.0), &exponent);
  const int unit = std::max((exponent - 1) / 10, 0);
  const double value = static_cast<double>(bytes) / std::ldexp(1.0, unit * 10);
  char text[32];
  std::snprintf(text, sizeof text, "%0.3g %sB", value, kUnits[unit]);
  return text;
}

std::optional<uint64_t> tool_size(std::string_view text) {
  static constexpr std::string_view kUnits = "bkmgtpe";
  const std::string copy(text);
  char* end = nullptr;
  if (copy.empty() || copy.find_first_of("0123456789") == std::string::npos || copy[0] == '-') return std::nullopt;
  const bool hex = copy.starts_with("0x") || copy.starts_with("0X");
  errno = 0;
  uint64_t whole = std::strtoull(copy.c_str(), &end, hex ? 16 : 10);
  if (errno != 0 || end == copy.c_str()) return std::nullopt;
  double fraction = 0;
  if (!hex && *end == '.') fraction = std::strtod(end, &end);
  unsigned shift = 0;
  if (*end != 0 && !hex) {
    const size_t unit = kUnits.find(static_cast<char>(std::tolower(*end)));
    if (unit == std::string_view::npos || end[1] != 0) return std::nullopt;
    shift = static_cast<unsigned>(unit) * 10;
  } else if (*end != 0) {
    return std::nullopt;
  }
  if (shift != 0 && whole >> (64 - shift) != 0) return std::nullopt;
  whole <<= shift;
  whole += static_cast<uint64_t>(fraction * std::ldexp(1.0, static_cast<int>(shift)));
  return whole;
}

std::optional<uint64_t> tool_size(const Session& session, std::string_view what, std::string_view text) {
  const auto value = tool_size(text);
  if (value && *value <= INT64_MAX) return value;
  const bool number = !text.empty() && text.find_first_not_of("0123456789") == std::string_view::npos;
  if (value || number) {
    session.complain(fmt::format("Invalid {} specified. Must be between 0 and {}.", what, INT64_MAX));
  } else {
    session.complain(fmt::format("Invalid {} specified. You may use k, M, G, T, P or E suffixes for ", what));
    session.complain("kilobytes, megabytes, gigabytes, terabytes, petabytes and exabytes.");
  }
  return std::nullopt;
}

std::optional<Output> parse_output(const Session& session, std::string_view text) {
  if (text == "human") return Output::kHuman;
  if (text == "json") return Output::kJson;
  session.complain("--output must be used with human or json as argument.");
  return std::nullopt;
}

Progress::~Progress() {
  if (enabled_) std::printf("\n");
}

void Progress::show(double percent) {
  constexpr double kStep = 0.1;
  if (!enabled_ || (percent - last_ < kStep && percent < 100)) return;
  last_ = percent;
  std::printf("    (%3.2f/100%%)\r", percent);
  std::fflush(stdout);
}

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\t': out += "\\t"; break;
      case '\r': out += "\\r"; break;
      default:
        if (byte < 0x20) {
          out += fmt::format("\\u{:04x}", byte);
        } else {
          out += c;
        }
    }
  }
  return out + "\"";
}

Json::Json(std::string_view value) : text_(json_string(value)) {}

namespace {

// The peers keep objects in a hash table of 512 buckets and print it bucket by bucket: this is its function.
uint32_t bucket_of(std::string_view key) {
  uint32_t value = 0x238F13AFu * static_cast<uint32_t>(key.size());
  for (size_t i = 0; i < key.size(); ++i) value += static_cast<uint32_t>(static_cast<uint8_t>(key[i])) << (i * 5 % 24);
  return (1103515243u * value + 12345u) % 512;
}

}  // namespace

Json Json::object(Members members) {
  Json json;
  json.kind_ = Kind::kObject;
  json.members_ = std::move(members);
  return json;
}

Json Json::array(std::vector<Json> items) {
  Json json;
  json.kind_ = Kind::kArray;
  json.items_ = std::move(items);
  return json;
}

std::string Json::text(int indent) const {
  if (kind_ == Kind::kScalar) return text_;
  const std::string pad(static_cast<size_t>(indent + 1) * 4, ' ');
  const std::string end(static_cast<size_t>(indent) * 4, ' ');
  std::vector<std::string> lines;
  if (kind_ == Kind::kObject) {
    std::vector<std::pair<uint32_t, const Members::value_type*>> order;
    for (const auto& member : members_) order.emplace_back(bucket_of(member.first), &member);
    std::ranges::sort(order);
    for (const auto& [bucket, member] : order)
      lines.push_back(json_string(member->first) + ": " + member->second.text(indent + 1));
  } else {
    for (const Json& item : items_) lines.push_back(item.text(indent + 1));
  }
  const char* braces = kind_ == Kind::kObject ? "{}" : "[]";
  std::string out(1, braces[0]);
  out += "\n";
  for (size_t i = 0; i < lines.size(); ++i) out += pad + lines[i] + (i + 1 < lines.size() ? ",\n" : "\n");
  return out + end + braces[1];
}

std::string Json::line() const {
  if (kind_ == Kind::kScalar) return text_;
  std::string out = kind_ == Kind::kObject ? "{ " : "[";
  bool first = true;
  for (const auto& [name, value] : members_) {
    out += (first ? "" : ", ") + json_string(name) + ": " + value.line();
    first = false;
  }
  for (const Json& item : items_) {
    out += (first ? "" : ", ") + item.line();
    first = false;
  }
  return out + (kind_ == Kind::kObject ? "}" : "]");
}

Argv::Argv(std::string program, const std::vector<std::string>& arguments) {
  storage_.push_back(std::move(program));
  storage_.insert(storage_.end(), arguments.begin(), arguments.end());
  for (std::string& text : storage_) pointers_.push_back(text.data());
  pointers_.push_back(nullptr);
}

}  // namespace kite::img
