// rebase and commit: images and their backing files.
#include <getopt.h>

#include <algorithm>
#include <filesystem>

#include "block/file_node.h"
#include "img/commands.h"

namespace kite::img {

using namespace block;

namespace {

enum Long : int { kObject = 256, kImageOpts };

constexpr uint64_t kPiece = uint64_t{1} << 20;

// Reads a node, with zeroes behind its end; null: zeroes only.
IoResult<> read_padded(Session& session, BlockNode* node, uint64_t offset, IoSlice to) {
  const uint64_t length = node == nullptr ? 0 : node->length();
  const uint64_t inside = offset >= length ? 0 : std::min(to.bytes(), length - offset);
  to.from(inside).fill(0);
  return inside == 0 ? IoResult<>{} : session.await(node->read(offset, to.slice(0, inside)));
}

// Where old and new backing file differ, the image gets the old content itself.
int keep_differences(Session& session, Image& image, BlockNode* fresh, bool progress) {
  const uint64_t total = image.length();
  const AlignedBuffer before(kPiece, 4096);
  const AlignedBuffer after(kPiece, 4096);
  constexpr uint64_t kStep = 65536;
  Progress bar(progress);
  for (uint64_t at = 0; at < total;) {
    const auto status = session.await(skip_filters(&image.node())->block_status(at, total - at));
    if (!status)
      return session.complain(fmt::format("error while reading image metadata: {}", errno_text(status.error().code)));
    uint64_t bytes = status->bytes;
    if (!status->allocated) {
      bytes = std::min(bytes, kPiece);
      const IoSlice old_data(before.data(), static_cast<size_t>(bytes));
      const IoSlice new_data(after.data(), static_cast<size_t>(bytes));
      if (const auto got = session.await(image.node().read(at, old_data)); !got) {
        return session.complain(
            fmt::format("error while reading from old backing file: {}", errno_text(got.error().code)));
      }
      if (const auto got = read_padded(session, fresh, at, new_data); !got) {
        return session.complain(
            fmt::format("error while reading from new backing file: {}", errno_text(got.error().code)));
      }
      const auto differ = [&](uint64_t from) {
        return from < bytes &&
               !std::equal(before.data() + from, before.data() + std::min(from + kStep, bytes), after.data() + from);
      };
      for (uint64_t from = 0; from < bytes; from += kStep) {
        if (!differ(from)) continue;
        // What differs in a row is one write, so that it lies in one piece.
        uint64_t to = from + kStep;
        while (differ(to)) to += kStep;
        to = std::min(to, bytes);
        if (const auto put = session.await(image.node().write(at + from, old_data.slice(from, to - from))); !put) {
          return session.complain(fmt::format("Error while writing to COW image: {}", errno_text(put.error().code)));
        }
        from = to;
      }
    }
    at += bytes;
    bar.show(static_cast<double>(at) * 100.0 / static_cast<double>(total));
  }
  return 0;
}

}  // namespace

int command_rebase(Session& session, Argv argv) {
  static constexpr option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                      {"object", required_argument, nullptr, kObject},
                                      {"image-opts", no_argument, nullptr, kImageOpts},
                                      {"force-share", no_argument, nullptr, 'U'},
                                      {nullptr, 0, nullptr, 0}};
  OpenRequest request{.writable = true, .resize = true};
  OpenRequest backing_request;
  std::optional<std::string> backing;
  bool unsafe = false;
  bool progress = false;
  bool help = false;
  const bool parsed = parse_arguments(session, argv, ":hf:F:b:upt:T:qU", kLongs, [&](int letter, const char* text) {
    switch (letter) {
      case 'h': help = true; return true;
      case 'f': request.format = text; return true;
      case 'F': backing_request.format = text; return true;
      case 'b': backing = text; return true;
      case 'u': unsafe = true; return true;
      case 'p': progress = true; return true;
      case 't': request.cache = text; return true;
      case 'T': backing_request.cache = text; return true;
      case 'q': return true;
      case 'U': request.force_share = backing_request.force_share = true; return true;
      case kImageOpts: request.image_opts = true; return true;
      default: return false;
    }
  });
  if (help) return show_help(session);
  if (!parsed) return wrong_use(session, "unrecognized option or missing argument");
  const auto names = operands(argv);
  if (names.size() != 1) return wrong_use(session, "Expecting one image file name");
  if (!backing) return wrong_use(session, "Must specify backing file (-b) or use simple rebase mode (-u)");
  request.filename = names[0];
  request.no_backing = unsafe;
  auto image = open_image(session, request);
  if (!image) return session.complain(image.error().message);
  FormatNode* format = image->format();
  if (format == nullptr)
    return session.complain(
        fmt::format("Could not change the backing file to '{}': Operation not supported", *backing));
  std::optional<Image> fresh;
  if (!backing->empty() && backing_request.format.empty()) {
    return session.complain(
        fmt::format("Could not change the backing file to '{}': backing format must be specified", *backing));
  }
  if (!unsafe && !backing->empty()) {
    backing_request.filename = backing->starts_with("json:") ? *backing : resolve_relative(request.filename, *backing);
    auto opened = open_image(session, backing_request);
    if (!opened)
      return session.complain(
          fmt::format("Could not open new backing file '{}': {}", *backing, opened.error().message));
    fresh = std::move(*opened);
  }
  if (!unsafe) {
    if (const int status = keep_differences(session, *image, fresh ? &fresh->node() : nullptr, progress); status != 0)
      return status;
    if (const auto flushed = session.await(image->node().flush()); !flushed) {
      return session.complain(fmt::format("Error while writing to COW image: {}", errno_text(flushed.error().code)));
    }
  }
  if (const auto done =
          session.await(format->change_backing_name(*backing, backing->empty() ? "" : backing_request.format));
      !done) {
    return session.complain(
        fmt::format("Could not change the backing file to '{}': {}", *backing, done.error().message));
  }
  return 0;
}

namespace {

struct Link {
  std::string filename, format;
};

// Whether a name on the command line means this file: names are relative to the image over it, as it says them itself.
bool names_file(const std::string& name, const std::string& overlay, const std::string& filename) {
  if (name.starts_with("json:") || filename.starts_with("json:")) return name == filename;
  std::error_code error;
  const auto full = [&](const std::string& path) { return std::filesystem::weakly_canonical(path, error); };
  return full(resolve_relative(overlay, name)) == full(filename);
}

// The images from `request` down to its base: the named one, or the first backing file.
Result<std::vector<Link>> chain_to(Session& session, const OpenRequest& request, const std::string& base) {
  std::vector<Link> chain;
  Link at{request.filename, request.format};
  constexpr size_t kDeepest = 200;
  while (chain.size() < kDeepest) {
    OpenRequest look{.filename = at.filename, .format = at.format, .no_backing = true};
    auto image = open_image(session, look);
    if (!image) return Failure(image.error());
    chain.push_back({at.filename, image->node().driver()});
    if (chain.size() > 1 && (base.empty() || names_file(base, chain[chain.size() - 2].filename, at.filename)))
      return chain;
    const ImageInfo info = image->format() != nullptr ? image->format()->image_info() : ImageInfo{};
    if (info.backing_filename.empty()) {
      if (base.empty()) return fail("Image does not have a backing file");
      return fail("Did not find '{}' in the backing chain of '{}'", base, request.filename);
    }
    at = {resolve_relative(at.filename, info.backing_filename), info.backing_format};
    const NodePtr node = image->use.node();
    image->use.reset();
    KITE_TRY(session.await(node->close()));
  }
  return fail("the chain of backing files is too long");
}

int copy_down(Session& session, Image& top, BlockNode& base, bool progress) {
  const uint64_t total = top.length();
  if (base.length() < total) {
    if (const auto grown = session.await(base.truncate(total, Preallocation::kOff)); !grown)
      return session.complain(grown.error().message);
  }
  const AlignedBuffer memory(kPiece, 4096);
  Progress bar(progress);
  for (uint64_t at = 0; at < total;) {
    const auto chain = session.await(chain_status(top.node(), at, total - at, &base));
    if (!chain)
      return session.complain(fmt::format("error while reading image metadata: {}", errno_text(chain.error().code)));
    uint64_t bytes = chain->bytes;
    if (chain->present && chain->status.zero && !chain->status.data) {
      const auto put = session.await(base.write_zeroes(at, bytes, {.flags = IoHow::kMayUnmap}));
      if (!put) return session.complain(fmt::format("Block job failed: {}", errno_text(put.error().code)));
    } else if (chain->present) {
      bytes = std::min(bytes, kPiece);
      const IoSlice data(memory.data(), static_cast<size_t>(bytes));
      auto done = session.await(top.node().read(at, data));
      if (done) done = session.await(base.write(at, data));
      if (!done) return session.complain(fmt::format("Block job failed: {}", errno_text(done.error().code)));
    }
    at += bytes;
    bar.show(static_cast<double>(at) * 100.0 / static_cast<double>(total));
  }
  if (const auto flushed = session.await(base.flush()); !flushed) {
    return session.complain(fmt::format("error while writing: {}", errno_text(flushed.error().code)));
  }
  return 0;
}

}  // namespace

int command_commit(Session& session, Argv argv) {
  static constexpr option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                      {"object", required_argument, nullptr, kObject},
                                      {"image-opts", no_argument, nullptr, kImageOpts},
                                      {nullptr, 0, nullptr, 0}};
  OpenRequest request{.writable = true, .resize = true};
  std::string base_name;
  bool drop = false;
  bool quiet = false;
  bool progress = false;
  bool help = false;
  const bool parsed = parse_arguments(session, argv, ":f:ht:b:dpqr:", kLongs, [&](int letter, const char* text) {
    switch (letter) {
      case 'h': help = true; return true;
      case 'f': request.format = text; return true;
      case 't': request.cache = text; return true;
      case 'b':
        base_name = text;
        drop = true;
        return true;
      case 'd': drop = true; return true;
      case 'p': progress = true; return true;
      case 'q': quiet = true; return true;
      default: return false;
    }
  });
  if (help) return show_help(session);
  if (!parsed) return wrong_use(session, "unrecognized option or missing argument");
  const auto names = operands(argv);
  if (names.size() != 1) return wrong_use(session, "Expecting one image file name");
  request.filename = names[0];
  const auto chain = chain_to(session, request, base_name);
  if (!chain) return session.complain(chain.error().message);
  session.await(session.graph().close_all());
  // From the base up, each image over the one below it; the base may be written although others are over it.
  OpenRequest base_request{
      .filename = chain->back().filename, .format = chain->back().format, .writable = true, .resize = true};
  base_request.cache = request.cache;
  auto base = open_image(session, base_request);
  if (!base) return session.complain(base.error().message);
  const NodePtr base_node = base->use.node();
  base->use.reset();
  NodePtr below = base_node;
  std::vector<Image> above;
  for (size_t i = chain->size() - 1; i-- > 0;) {
    OpenRequest link{.filename = (*chain)[i].filename,
                     .format = (*chain)[i].format,
                     .writable = i == 0,
                     .resize = i == 0,
                     .backing = below};
    link.cache = request.cache;
    auto image = open_image(session, link);
    if (!image) return session.complain(image.error().message);
    below = image->use.node();
    if (i != 0) image->use.reset();
    above.push_back(std::move(*image));
  }
  Image& top = above.back();
  if (const int status = copy_down(session, top, *base_node, progress); status != 0) return status;
  if (!drop && top.format() != nullptr && top.format()->can_be_emptied()) {
    if (const auto emptied = session.await(top.format()->make_empty()); !emptied) {
      return session.complain(fmt::format("Could not empty {}: {}", request.filename, emptied.error().message));
    }
  }
  if (!quiet) std::printf("Image committed.\n");
  return 0;
}

}  // namespace kite::img
