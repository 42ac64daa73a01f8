// create: new images.
#include <getopt.h>

#include <algorithm>
#include <array>

#include "img/commands.h"
#include "support/suggest.h"

namespace kite::img {

using namespace block;

namespace {

std::string doubled_commas(std::string_view text) {
  std::string out;
  for (const char c : text) out += c == ',' ? std::string(",,") : std::string(1, c);
  return out;
}

// What an option is when it is not given; "" for options that then are not shown.
std::string_view default_of(std::string_view format, std::string_view option) {
  if (option == "cluster_size") return "65536";
  if (format != "qcow2") return "";
  if (option == "extended_l2" || option == "lazy_refcounts") return "off";
  if (option == "compression_type") return "zlib";
  if (option == "refcount_bits") return "16";
  return "";
}

// The options in the order in which the peers list them.
std::string describe(const CreateCall& call, uint64_t bytes) {
  static constexpr std::string_view kQcow2[] = {"cluster_size",   "extended_l2",  "preallocation", "compression_type",
                                                "size",           "compat",       "backing_file",  "backing_fmt",
                                                "lazy_refcounts", "refcount_bits"};
  static constexpr std::string_view kQed[] = {"size", "backing_file", "backing_fmt", "cluster_size", "table_size"};
  static constexpr std::string_view kRaw[] = {"size", "preallocation"};
  const std::span<const std::string_view> order = call.format == "qcow2" ? std::span<const std::string_view>(kQcow2)
                                                  : call.format == "qed" ? std::span<const std::string_view>(kQed)
                                                                         : std::span<const std::string_view>(kRaw);
  std::string text = fmt::format("Formatting '{}', fmt={}", call.filename, call.format);
  for (const std::string_view name : order) {
    std::string value(default_of(call.format, name));
    if (const std::string* given = call.options.find(name)) {
      const auto size = name == "cluster_size" ? tool_size(*given) : std::nullopt;
      value = size ? std::to_string(*size) : *given;
    }
    if (name == "size") value = std::to_string(bytes);
    if (name == "backing_file") value = call.backing;
    if (name == "backing_fmt") value = call.backing_format;
    if (!value.empty()) text += fmt::format(" {}={}", name, doubled_commas(value));
  }
  return text;
}

// Opens the backing file as the new image will: its size is the default.
Result<uint64_t> backing_size(Session& session, const CreateCall& call) {
  OpenRequest request{.filename = resolve_relative(call.filename, call.backing), .format = call.backing_format};
  if (call.backing.starts_with("json:")) request.filename = call.backing;
  const auto image = open_image(session, request);
  if (!image) {
    std::string why = image.error().message;
    const std::string head = fmt::format("Could not open '{}': ", request.filename);
    if (why.starts_with(head + "Could not open")) why.erase(0, head.size());
    return fail("{}\nCould not open backing image.", why);
  }
  if (call.backing_format.empty()) {
    return fail("Backing file specified without backing format\nDetected format of {}.", image->node().driver());
  }
  const uint64_t bytes = image->length();
  NodePtr node = image->use.node();
  return bytes;
}

Result<> check_names(Session&, CreateCall& call, const ImageFormat& format) {
  if (const std::string* backing = call.options.find("backing_file")) call.backing = *backing;
  if (const std::string* backing_format = call.options.find("backing_fmt")) call.backing_format = *backing_format;
  call.options.erase("backing_file");
  call.options.erase("backing_fmt");
  if (!call.backing.empty() && !format.has_backing) {
    return fail("Backing file not supported for file format '{}'", call.format);
  }
  if (!call.backing_format.empty() && find_driver(call.backing_format) == nullptr) {
    return fail("Unknown backing file format '{}'", call.backing_format);
  }
  if (!call.backing.empty() && call.backing == call.filename) {
    return fail("Error: Trying to create an image with the same filename as the backing file");
  }
  return {};
}

Result<uint64_t> decide_size(Session& session, const CreateCall& call) {
  std::optional<uint64_t> bytes = call.bytes;
  if (const std::string* given = call.options.find("size")) {
    bytes = tool_size(*given);
    if (!bytes)
      return fail(
          "Parameter 'size' expects a non-negative number below 2^64\nOptional suffix k, M, G, T, P or E means kilo-, "
          "mega-, giga-, tera-, peta-\nand exabytes, respectively.");
  }
  if (call.backing.empty() || (call.backing_unchecked && bytes)) {
    if (!bytes) return fail("Image creation needs a size parameter");
    return *bytes;
  }
  const auto found = backing_size(session, call);
  if (!found && bytes && call.backing_unchecked) return *bytes;
  if (!found) return Failure(found.error());
  return bytes.value_or(*found);
}

}  // namespace

int print_create_options(Session& session, const std::string& format, const std::string&) {
  const ImageFormat* found = find_image_format(format);
  if (found == nullptr) return session.complain(fmt::format("Unknown file format '{}'", format));
  std::printf("Supported options:\n");
  for (const CreateOption& option : found->create_options) {
    const std::string head = fmt::format("{}=<{}>", option.name, option.type);
    std::printf("  %-22s - %.*s\n", head.c_str(), static_cast<int>(option.help.size()), option.help.data());
  }
  return 0;
}

Result<> create_image(Session& session, CreateCall call) {
  const ImageFormat* format = find_image_format(call.format);
  if (format == nullptr) {
    if (find_driver(call.format) != nullptr)
      return fail("Format driver '{}' does not support image creation", call.format);
    return fail("Unknown file format '{}'", call.format);
  }
  KITE_TRY(check_names(session, call, *format));
  KITE_ASSIGN(const uint64_t bytes, decide_size(session, call));
  if (call.announce) {
    std::printf("%s\n", describe(call, bytes).c_str());
    std::fflush(stdout);  // before what may be wrong with it
  }
  if (auto fits = format->cluster_bytes(call.options); !fits) return fail("{}", fits.error().message);

  BlockOptions file_options;
  std::string path = call.filename;
  if (path.starts_with("file:")) path.erase(0, 5);
  if (!path.starts_with("json:")) {
    const bool overwrite = call.overwritten != nullptr && call.format == "raw" && !call.options.has("preallocation");
    KITE_ASSIGN(const bool old, create_host_file(path, overwrite));
    if (call.overwritten != nullptr) *call.overwritten = old && call.format == "raw";
  }
  BlockGraph::FileRequest file{.filename = call.filename};
  file.format = path.starts_with("json:") ? "" : "file";
  file.aio = "inline";
  file.cache.no_flush = false;
  file.allow_raw_probe = true;
  auto node = session.await(session.graph().open_file(std::move(file)));
  if (!node) return fail("{}", node.error().message);
  auto use = NodeUse::claim(*node, "the tool", {.need = Permissions::kConsistentRead, .shared = Permissions::kAll});
  if (!use) return fail("{}", use.error().message);
  use->reset();
  CreateRequest request{.filename = call.filename,
                        .bytes = bytes,
                        .options = call.options,
                        .backing_filename = call.backing,
                        .backing_format = call.backing_format};
  const Result<> made = session.await(format->create(session.graph(), *node, std::move(request)));
  (*node)->set_kept(false);
  const Result<> closed = session.await((*node)->close());
  if (!made) return fail("{}", made.error().message);
  if (!closed) return fail("{}", closed.error().message);
  return {};
}

int command_create(Session& session, Argv argv) {
  static constexpr option kLongs[] = {
      {"help", no_argument, nullptr, 'h'}, {"object", required_argument, nullptr, 'O'}, {nullptr, 0, nullptr, 0}};
  CreateCall call;
  bool quiet = false;
  bool help = false;
  bool bad = false;
  std::vector<std::string> option_texts;
  const bool parsed = parse_arguments(session, argv, ":F:b:f:ho:qu6e", kLongs, [&](int letter, const char* text) {
    switch (letter) {
      case 'h': help = true; return true;
      case 'F': call.backing_format = text; return true;
      case 'b': call.backing = text; return true;
      case 'f': call.format = text; return true;
      case 'o': option_texts.emplace_back(text); return true;
      case 'q': quiet = true; return true;
      case 'u': call.backing_unchecked = true; return true;
      case 'O': bad = true; return true;
      case 'e': session.complain("option -e is deprecated, please use '-o encryption=on' instead!"); return false;
      default: session.complain("option -6 is deprecated, please use '-o compat6' instead!"); return false;
    }
  });
  if (help) return show_help(session);
  if (!parsed) return wrong_use(session, "unrecognized option or missing argument");
  if (bad) return session.complain("--object: secrets are not supported yet");
  const std::vector<std::string> names = operands(argv);
  for (const std::string& text : option_texts) {
    if (text == "help" || text == "?" || text.ends_with(",help") || text.ends_with(",?")) {
      return print_create_options(session, call.format, names.empty() ? "" : names.front());
    }
    if (!add_options(session, call.options, text)) return 1;
  }
  if (names.empty()) return wrong_use(session, "Expecting image file name");
  call.filename = names[0];
  if (names.size() > 1) {
    call.bytes = tool_size(session, "image size", names[1]);
    if (!call.bytes) return 1;
  }
  if (names.size() > 2) return wrong_use(session, fmt::format("Unexpected argument: {}", names[2]));
  const std::string filename = call.filename;
  call.announce = !quiet;
  const Result<> made = create_image(session, std::move(call));
  return made ? 0 : session.complain(fmt::format("{}: {}", filename, made.error().message));
}

}  // namespace kite::img
