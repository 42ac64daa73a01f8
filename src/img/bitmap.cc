// bitmap: the dirty bitmaps that an image keeps.
#include <getopt.h>

#include <algorithm>

#include "block/bitmap_requests.h"
#include "img/commands.h"

namespace kite::img {

using namespace block;

namespace {

enum Long : int { kAdd = 256, kRemove, kClear, kEnable, kDisable, kMerge, kObject, kImageOpts };

struct Step {
  int what;
  const char* name;
  std::string source = {};  // kMerge
};

struct Settings {
  OpenRequest image{.writable = true, .no_backing = true};
  OpenRequest source{.no_backing = true};
  std::vector<Step> steps;
  std::optional<uint64_t> granularity;
  std::string granularity_text;
  bool help = false;
};

bool parse(Session& session, Argv& argv, Settings& settings) {
  static constexpr option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                      {"add", no_argument, nullptr, kAdd},
                                      {"remove", no_argument, nullptr, kRemove},
                                      {"clear", no_argument, nullptr, kClear},
                                      {"enable", no_argument, nullptr, kEnable},
                                      {"disable", no_argument, nullptr, kDisable},
                                      {"merge", required_argument, nullptr, kMerge},
                                      {"granularity", required_argument, nullptr, 'g'},
                                      {"source-file", required_argument, nullptr, 'b'},
                                      {"source-format", required_argument, nullptr, 'F'},
                                      {"object", required_argument, nullptr, kObject},
                                      {"image-opts", no_argument, nullptr, kImageOpts},
                                      {nullptr, 0, nullptr, 0}};
  return parse_arguments(session, argv, ":b:f:F:g:h", kLongs, [&](int letter, const char* text) {
    switch (letter) {
      case 'h': settings.help = true; return true;
      case 'f': settings.image.format = text; return true;
      case 'b': settings.source.filename = text; return true;
      case 'F': settings.source.format = text; return true;
      case 'g': settings.granularity_text = text; return true;
      case kImageOpts: settings.image.image_opts = true; return true;
      case kAdd: settings.steps.push_back({letter, "add"}); return true;
      case kRemove: settings.steps.push_back({letter, "remove"}); return true;
      case kClear: settings.steps.push_back({letter, "clear"}); return true;
      case kEnable: settings.steps.push_back({letter, "enable"}); return true;
      case kDisable: settings.steps.push_back({letter, "disable"}); return true;
      case kMerge: settings.steps.push_back({letter, "merge", text}); return true;
      default: return false;
    }
  });
}

Result<> merge(DirtyBitmap& into, BlockNode& from, std::string_view name) {
  KITE_ASSIGN(const BitmapPtr source, find_bitmap(from, name));
  KITE_TRY(may_merge(into, *source));
  if (source.get() != &into) into.merge(source->chunks());
  return {};
}

Result<> take(const Step& step, const std::string& name, const Settings& settings, BlockNode& node, BlockNode& source) {
  if (step.what == kAdd) {
    const NewBitmap request{.name = name, .granularity = settings.granularity.value_or(0), .persistent = true};
    if (const auto added = add_bitmap(node, request); !added) return Failure(added.error());
    return {};
  }
  KITE_ASSIGN(const BitmapPtr bitmap, find_bitmap(node, name));
  using Need = DirtyBitmap::Need;
  switch (step.what) {
    case kRemove:
      KITE_TRY(bitmap->may(Need::kRemove));
      node.bitmaps().remove(bitmap);
      return {};
    case kClear:
      KITE_TRY(bitmap->may(Need::kChange));
      bitmap->set_chunks(DirtyChunks(bitmap->chunks().length(), bitmap->granularity()));
      return {};
    case kMerge: return merge(*bitmap, source, step.source);
    default:
      KITE_TRY(bitmap->may(Need::kRead));
      bitmap->enabled = step.what == kEnable;
      return {};
  }
}

}  // namespace

int command_bitmap(Session& session, Argv argv) {
  Settings settings;
  const bool parsed = parse(session, argv, settings);
  if (settings.help) return show_help(session);
  if (!parsed) return wrong_use(session, "unrecognized option or missing argument");
  const auto names = operands(argv);
  if (names.size() != 2) return wrong_use(session, "Expecting filename and bitmap name");
  if (settings.steps.empty())
    return session.complain("Need at least one of --add, --remove, --clear, --enable, --disable, or --merge");
  const auto has = [&settings](int what) {
    return std::ranges::find(settings.steps, what, &Step::what) != settings.steps.end();
  };
  if (!settings.granularity_text.empty()) {
    if (!has(kAdd)) return session.complain("granularity only supported with --add");
    settings.granularity = tool_size(session, "granularity", settings.granularity_text);
    if (!settings.granularity) return 1;
    if (*settings.granularity == 0) return session.complain("Granularity must be power of 2, and at least 512");
  }
  const bool has_source = !settings.source.filename.empty();
  if (!settings.source.format.empty() && !has_source) return session.complain("-F only supported with -b");
  if (has_source && !has(kMerge)) return session.complain("Merge bitmap source file only supported with --merge");
  settings.image.filename = names[0];
  auto image = open_image(session, settings.image);
  if (!image) return session.complain(image.error().message);
  std::optional<Image> other;
  if (has_source) {
    auto opened = open_image(session, settings.source);
    if (!opened) return session.complain(opened.error().message);
    other = std::move(*opened);
  }
  for (const Step& step : settings.steps) {
    const auto done = take(step, names[1], settings, image->node(), other ? other->node() : image->node());
    if (!done)
      return session.complain(
          fmt::format("Operation {} on bitmap {} failed: {}", step.name, names[1], done.error().message));
  }
  return 0;
}

}  // namespace kite::img
