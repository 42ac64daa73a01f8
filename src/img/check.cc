// check, resize, amend: an image's consistency, size and options.
#include <getopt.h>

#include "img/commands.h"

namespace kite::img {

using namespace block;

namespace {

enum Long : int { kOutput = 256, kObject, kImageOpts, kPreallocation, kShrink, kForce };

std::string percent(uint64_t part, uint64_t whole) {
  return fmt::format("{:.2f}%", static_cast<double>(part) * 100.0 / static_cast<double>(whole));
}

void print_check(const CheckResult& result) {
  const bool clean = result.corruptions == 0 && result.leaks == 0 && result.check_errors == 0;
  if (clean) {
    std::printf("No errors were found on the image.\n");
  } else {
    if (result.corruptions != 0) {
      std::printf(
          "\n%llu errors were found on the image.\nData may be corrupted, or further writes to the image may corrupt "
          "it.\n",
          static_cast<unsigned long long>(result.corruptions));
    }
    if (result.leaks != 0) {
      std::printf(
          "\n%llu leaked clusters were found on the image.\nThis means waste of disk space, but no harm to data.\n",
          static_cast<unsigned long long>(result.leaks));
    }
    if (result.check_errors != 0) {
      std::printf("\n%llu internal errors have occurred during the check.\n",
                  static_cast<unsigned long long>(result.check_errors));
    }
  }
  if (result.total_clusters != 0 && result.allocated_clusters != 0) {
    std::printf("%llu/%llu = %s allocated, %s fragmented, %s compressed clusters\n",
                static_cast<unsigned long long>(result.allocated_clusters),
                static_cast<unsigned long long>(result.total_clusters),
                percent(result.allocated_clusters, result.total_clusters).c_str(),
                percent(result.fragmented_clusters, result.allocated_clusters).c_str(),
                percent(result.compressed_clusters, result.allocated_clusters).c_str());
  }
  if (result.image_end_offset != 0)
    std::printf("Image end offset: %llu\n", static_cast<unsigned long long>(result.image_end_offset));
}

void print_check_json(const CheckResult& result, const std::string& filename, const std::string& format) {
  Json::Members members{{"filename", filename}, {"format", format}, {"check-errors", result.check_errors}};
  const auto add = [&](const char* name, uint64_t value) {
    if (value != 0) members.emplace_back(name, value);
  };
  add("image-end-offset", result.image_end_offset);
  add("corruptions", result.corruptions);
  add("leaks", result.leaks);
  add("corruptions-fixed", result.corruptions_fixed);
  add("leaks-fixed", result.leaks_fixed);
  add("total-clusters", result.total_clusters);
  add("allocated-clusters", result.allocated_clusters);
  add("fragmented-clusters", result.fragmented_clusters);
  add("compressed-clusters", result.compressed_clusters);
  std::printf("%s\n", Json::object(std::move(members)).text().c_str());
}

}  // namespace

int command_check(Session& session, Argv argv) {
  static constexpr option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                      {"format", required_argument, nullptr, 'f'},
                                      {"repair", required_argument, nullptr, 'r'},
                                      {"output", required_argument, nullptr, kOutput},
                                      {"object", required_argument, nullptr, kObject},
                                      {"image-opts", no_argument, nullptr, kImageOpts},
                                      {"force-share", no_argument, nullptr, 'U'},
                                      {nullptr, 0, nullptr, 0}};
  OpenRequest request{.no_backing = true, .for_check = true};
  std::string output = "human";
  Repair repair = Repair::kNone;
  bool quiet = false;
  bool help = false;
  bool bad_repair = false;
  const bool parsed = parse_arguments(session, argv, ":hf:r:T:qU", kLongs, [&](int letter, const char* text) {
    switch (letter) {
      case 'h': help = true; return true;
      case 'f': request.format = text; return true;
      case 'q': quiet = true; return true;
      case 'T': request.cache = text; return true;
      case 'U': request.force_share = true; return true;
      case kOutput: output = text; return true;
      case kImageOpts: request.image_opts = true; return true;
      case 'r':
        repair = std::string_view(text) == "leaks" ? Repair::kLeaks : Repair::kAll;
        bad_repair = std::string_view(text) != "leaks" && std::string_view(text) != "all";
        return true;
      default: return false;
    }
  });
  if (help) return show_help(session);
  if (!parsed) return wrong_use(session, "unrecognized option or missing argument");
  if (bad_repair) return wrong_use(session, "-r expects 'leaks' or 'all' as argument");
  const auto names = operands(argv);
  if (names.size() != 1) return wrong_use(session, "Expecting one image file name");
  const auto kind = parse_output(session, output);
  if (!kind) return 1;
  request.filename = names[0];
  request.writable = repair != Repair::kNone;
  auto image = open_image(session, request);
  if (!image) return session.complain(image.error().message);
  FormatNode* format = image->format();
  constexpr int kUnsupported = 63;
  if (format == nullptr) {
    session.complain("This image format does not support checks");
    return kUnsupported;
  }
  const bool human = *kind == Output::kHuman;
  const auto say = [&](const std::string& line) {
    if (!quiet) std::fprintf(stderr, "%s\n", line.c_str());
  };
  std::fflush(stdout);
  auto result = session.await(format->check(repair, say));
  if (!result) return session.complain(fmt::format("Check failed: {}", result.error().message));
  if (result->corruptions_fixed != 0 || result->leaks_fixed != 0) {
    if (human && !quiet) {
      std::printf(
          "The following inconsistencies were found and repaired:\n\n    %llu leaked clusters\n    %llu corruptions\n\n"
          "Double checking the fixed image now...\n",
          static_cast<unsigned long long>(result->leaks_fixed),
          static_cast<unsigned long long>(result->corruptions_fixed));
      std::fflush(stdout);
    }
    const CheckResult fixed = *result;
    result = session.await(format->check(Repair::kNone, say));
    if (!result) return session.complain(fmt::format("Check failed: {}", result.error().message));
    result->corruptions_fixed = fixed.corruptions_fixed;
    result->leaks_fixed = fixed.leaks_fixed;
  }
  if (!quiet) {
    if (human) {
      print_check(*result);
    } else {
      print_check_json(*result, request.filename, image->node().driver());
    }
  }
  if (result->check_errors != 0) return session.complain("Check failed"), 1;
  if (result->corruptions != 0) return 2;
  return result->leaks != 0 ? 3 : 0;
}

int command_resize(Session& session, Argv argv) {
  static constexpr option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                      {"object", required_argument, nullptr, kObject},
                                      {"image-opts", no_argument, nullptr, kImageOpts},
                                      {"preallocation", required_argument, nullptr, kPreallocation},
                                      {"shrink", no_argument, nullptr, kShrink},
                                      {nullptr, 0, nullptr, 0}};
  OpenRequest request{.writable = true, .resize = true};
  // The size may begin with '-': it is taken off the end before getopt sees it.
  if (argv.count() < 3) return wrong_use(session, "Not enough arguments");
  const std::string size = argv.data()[argv.count() - 1];
  Argv options(argv.data()[0], {argv.data() + 1, argv.data() + argv.count() - 1});
  Preallocation preallocation = Preallocation::kOff;
  bool quiet = false;
  bool shrink = false;
  bool help = false;
  std::string error;
  const bool parsed = parse_arguments(session, options, ":f:hq", kLongs, [&](int letter, const char* text) {
    switch (letter) {
      case 'h': help = true; return true;
      case 'f': request.format = text; return true;
      case 'q': quiet = true; return true;
      case kImageOpts: request.image_opts = true; return true;
      case kShrink: shrink = true; return true;
      case kPreallocation: {
        const auto mode = parse_preallocation(text);
        if (!mode) error = fmt::format("Invalid preallocation mode '{}'", text);
        preallocation = mode.value_or(Preallocation::kOff);
        return true;
      }
      default: return false;
    }
  });
  if (help) return show_help(session);
  if (!parsed) return wrong_use(session, "unrecognized option or missing argument");
  if (!error.empty()) return session.complain(error);
  const auto names = operands(options);
  if (names.size() != 1) return wrong_use(session, "Expecting image file name and size");
  const int sign = size.starts_with('+') ? 1 : size.starts_with('-') ? -1 : 0;
  const auto amount = tool_size(std::string_view(size).substr(sign == 0 ? 0 : 1));
  if (!amount) return session.complain("Invalid size '" + size + "'; you may use k, M, G, T, P or E suffixes");
  request.filename = names[0];
  auto image = open_image(session, request);
  if (!image) return session.complain(image.error().message);
  const uint64_t old = image->length();
  if (sign < 0 && *amount > old) return session.complain("New image size must be positive");
  const uint64_t bytes = sign == 0 ? *amount : sign > 0 ? old + *amount : old - *amount;
  if (bytes == 0) return session.complain("New image size must be positive");
  if (bytes < old && !shrink) {
    session.complain("Use the --shrink option to perform a shrink operation.");
    std::fprintf(
        stderr,
        "%s: warning: Shrinking an image will delete all data beyond the shrunken image's end. Before performing such "
        "an operation, make sure there is no important data there.\n",
        session.program().c_str());
    return 1;
  }
  if (bytes <= old && preallocation != Preallocation::kOff)
    return session.complain("Preallocation can only be used for growing images");
  const auto done = session.await(image->node().truncate(bytes, preallocation));
  if (!done) return session.complain(done.error().message);
  if (!quiet) std::printf("Image resized.\n");
  return 0;
}

int command_amend(Session& session, Argv argv) {
  static constexpr option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                      {"object", required_argument, nullptr, kObject},
                                      {"image-opts", no_argument, nullptr, kImageOpts},
                                      {"force", no_argument, nullptr, kForce},
                                      {nullptr, 0, nullptr, 0}};
  OpenRequest request{.writable = true, .resize = true};
  std::vector<std::string> texts;
  BlockOptions options;
  bool help = false;
  bool progress = false;
  const bool parsed = parse_arguments(session, argv, ":ho:f:t:pq", kLongs, [&](int letter, const char* text) {
    switch (letter) {
      case 'h': help = true; return true;
      case 'o': texts.emplace_back(text); return true;
      case 'f': request.format = text; return true;
      case 't': request.cache = text; return true;
      case 'p': progress = true; return true;
      case kImageOpts: request.image_opts = true; return true;
      default: return letter == 'q' || letter == kForce;
    }
  });
  if (help) return show_help(session);
  if (!parsed) return wrong_use(session, "unrecognized option or missing argument");
  if (texts.empty()) return wrong_use(session, "Must specify options (-o)");
  const auto names = operands(argv);
  for (const std::string& text : texts) {
    if (text == "help" || text == "?")
      return print_create_options(session, request.format.empty() ? "qcow2" : request.format, "");
    if (!add_options(session, options, text)) return 1;
  }
  if (names.size() != 1) return wrong_use(session, "Expecting one image file name");
  request.filename = names[0];
  auto image = open_image(session, request);
  if (!image) return session.complain(image.error().message);
  FormatNode* format = image->format();
  if (format == nullptr)
    return session.complain(
        fmt::format("Format driver '{}' does not support option amendment", image->node().driver()));
  Progress bar(progress);
  if (const auto done = session.await(format->amend(options)); !done) return session.complain(done.error().message);
  bar.show(100);
  return 0;
}

}  // namespace kite::img
