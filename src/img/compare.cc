// compare, dd, bench.
#include <getopt.h>

#include <algorithm>
#include <charconv>

#include "block/file_node.h"
#include "block/timed.h"
#include "img/commands.h"

namespace kite::img {

using namespace block;

namespace {

enum Long : int { kObject = 256, kImageOpts, kFlushInterval, kNoDrain, kPattern };

constexpr uint64_t kPiece = uint64_t{2} << 20;
// compare's status for errors; 1 means "different".
constexpr int kFailed = 2, kStatusFailed = 3, kReadFailed = 4;

struct Comparison {
  Session& session;
  Image a, b;
  bool strict = false;
  bool quiet = false;

  int differ(const std::string& text) const {
    if (!quiet) std::printf("%s\n", text.c_str());
    return 1;
  }
  int error(const char* doing, uint64_t offset, const Image& image, int code, int status) const {
    session.complain(
        fmt::format("Error while {} offset {} of {}: {}", doing, offset, image.node().filename(), errno_text(code)));
    return status;
  }
  int run(Progress& progress);
  int compare_data(uint64_t offset, uint64_t bytes, IoSlice first, IoSlice second);
  int check_tail();
};

int Comparison::compare_data(uint64_t offset, uint64_t bytes, IoSlice first, IoSlice second) {
  if (const auto got = session.await(a.node().read(offset, first.slice(0, bytes))); !got)
    return error("reading", offset, a, got.error().code, kReadFailed);
  if (const auto got = session.await(b.node().read(offset, second.slice(0, bytes))); !got)
    return error("reading", offset, b, got.error().code, kReadFailed);
  const uint8_t* left = first.contiguous();
  const auto [at, other] = std::mismatch(left, left + bytes, second.contiguous());
  if (at == left + bytes) return 0;
  // Told by sectors, as others do.
  const uint64_t where = (offset + static_cast<uint64_t>(at - left)) / 512 * 512;
  return differ(fmt::format("Content mismatch at offset {}!", where));
}

// What one image has behind the end of the other must be zero.
int Comparison::check_tail() {
  if (a.length() == b.length()) return 0;
  const Image& longer = a.length() > b.length() ? a : b;
  const uint64_t start = std::min(a.length(), b.length());
  if (!quiet) std::fprintf(stdout, "Warning: Image size mismatch!\n");
  const AlignedBuffer memory(kPiece, 4096);
  for (uint64_t at = start; at < longer.length();) {
    const auto chain = session.await(chain_status(longer.node(), at, longer.length() - at));
    if (!chain) return error("reading block status at", at, longer, chain.error().code, kStatusFailed);
    uint64_t bytes = chain->bytes;
    if (!chain->status.zero) {
      bytes = std::min(bytes, kPiece);
      const IoSlice data(memory.data(), static_cast<size_t>(bytes));
      if (const auto got = session.await(longer.node().read(at, data)); !got)
        return error("reading", at, longer, got.error().code, kReadFailed);
      if (!data.all_zero()) return differ(fmt::format("Content mismatch at offset {}!", at));
    }
    at += bytes;
  }
  return 0;
}

int Comparison::run(Progress& progress) {
  if (strict && a.length() != b.length()) return differ("Strict mode: Image size mismatch!");
  const uint64_t total = std::min(a.length(), b.length());
  const AlignedBuffer first(kPiece, 4096);
  const AlignedBuffer second(kPiece, 4096);
  for (uint64_t at = 0; at < total;) {
    const auto left = session.await(chain_status(a.node(), at, total - at));
    if (!left) return error("reading block status at", at, a, left.error().code, kStatusFailed);
    const auto right = session.await(chain_status(b.node(), at, total - at));
    if (!right) return error("reading block status at", at, b, right.error().code, kStatusFailed);
    uint64_t bytes = std::min(left->bytes, right->bytes);
    if (strict && (left->status.zero != right->status.zero || left->status.data != right->status.data)) {
      return differ(fmt::format("Strict mode: Offset {} block status mismatch!", at));
    }
    if (!(left->status.zero && right->status.zero)) {
      bytes = std::min(bytes, kPiece);
      if (const int result = compare_data(at, bytes, IoSlice(first.data(), kPiece), IoSlice(second.data(), kPiece));
          result != 0)
        return result;
    }
    at += bytes;
    progress.show(static_cast<double>(at) * 100.0 / static_cast<double>(total));
  }
  if (const int tail = check_tail(); tail != 0) return tail;
  if (!quiet) std::printf("Images are identical.\n");
  return 0;
}

}  // namespace

int command_compare(Session& session, Argv argv) {
  static constexpr option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                      {"object", required_argument, nullptr, kObject},
                                      {"image-opts", no_argument, nullptr, kImageOpts},
                                      {"force-share", no_argument, nullptr, 'U'},
                                      {nullptr, 0, nullptr, 0}};
  OpenRequest first;
  OpenRequest second;
  bool strict = false;
  bool quiet = false;
  bool show = false;
  bool help = false;
  const bool parsed = parse_arguments(session, argv, ":hf:F:T:pqsU", kLongs, [&](int letter, const char* text) {
    switch (letter) {
      case 'h': help = true; return true;
      case 'f': first.format = text; return true;
      case 'F': second.format = text; return true;
      case 'T': first.cache = second.cache = text; return true;
      case 'p': show = true; return true;
      case 'q': quiet = true; return true;
      case 's': strict = true; return true;
      case 'U': first.force_share = second.force_share = true; return true;
      case kImageOpts: first.image_opts = second.image_opts = true; return true;
      default: return false;
    }
  });
  if (help) return show_help(session);
  const auto names = parsed ? operands(argv) : std::vector<std::string>{};
  if (!parsed || names.size() != 2) {
    wrong_use(session, parsed ? "Expecting two image file names" : "unrecognized option or missing argument");
    return kFailed;
  }
  first.filename = names[0];
  second.filename = names[1];
  auto a = open_image(session, first);
  if (!a) return session.complain(a.error().message), kFailed;
  auto b = open_image(session, second);
  if (!b) return session.complain(b.error().message), kFailed;
  Comparison comparison{session, std::move(*a), std::move(*b), strict, quiet};
  Progress progress(show && !quiet);
  return comparison.run(progress);
}

int command_dd(Session& session, Argv argv) {
  static constexpr option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                      {"object", required_argument, nullptr, kObject},
                                      {"image-opts", no_argument, nullptr, kImageOpts},
                                      {"force-share", no_argument, nullptr, 'U'},
                                      {nullptr, 0, nullptr, 0}};
  OpenRequest input;
  CreateCall output;
  bool help = false;
  const bool parsed = parse_arguments(session, argv, ":hf:O:U", kLongs, [&](int letter, const char* text) {
    switch (letter) {
      case 'h': help = true; return true;
      case 'f': input.format = text; return true;
      case 'O': output.format = text; return true;
      case 'U': input.force_share = true; return true;
      case kImageOpts: input.image_opts = true; return true;
      default: return false;
    }
  });
  if (help) return show_help(session);
  if (!parsed) return wrong_use(session, "unrecognized option or missing argument");
  uint64_t block = 512;
  std::optional<uint64_t> count;
  uint64_t skip = 0;
  for (const std::string& word : operands(argv)) {
    const size_t equals = word.find('=');
    if (equals == std::string::npos) return session.complain(fmt::format("unrecognized operand {}", word));
    const std::string name = word.substr(0, equals);
    const std::string value = word.substr(equals + 1);
    const auto size = tool_size(value);
    if (name == "if") {
      input.filename = value;
    } else if (name == "of") {
      output.filename = value;
    } else if (name == "bs" || name == "count" || name == "skip") {
      if (!size || (name == "bs" && (*size == 0 || *size > INT32_MAX)))
        return session.complain(fmt::format("invalid number: '{}'", value));
      if (name == "bs") block = *size;
      if (name == "count") count = *size;
      if (name == "skip") skip = *size;
    } else {
      return session.complain(fmt::format("unrecognized operand {}", word));
    }
  }
  if (input.filename.empty() || output.filename.empty())
    return session.complain("Must specify both input and output file names");
  auto from = open_image(session, input);
  if (!from) return session.complain(from.error().message);
  uint64_t size = from->length();
  if (count && (*count == 0 || size / block >= *count)) size = std::min(size, *count * block);
  const bool skips_all = skip != 0 && skip > size / block;
  const uint64_t start = skips_all ? size : skip * block;
  if (skips_all) session.complain(fmt::format("{}: cannot skip to specified offset", input.filename));
  size = std::min(size, from->length());
  // The count says how far the input is read, the skipped part included.
  const uint64_t end =
      count ? std::min(from->length(), start + std::min(*count, from->length() / block + 1) * block) : from->length();
  output.bytes = end > start ? end - start : 0;
  const auto made = create_image(session, output);
  if (!made)
    return session.complain(fmt::format("{}: error while creating output image of type {}: {}", output.filename,
                                        output.format, made.error().message));
  OpenRequest target{.filename = output.filename, .format = output.format, .writable = true, .resize = true};
  auto to = open_image(session, target);
  if (!to) return session.complain(to.error().message);
  const AlignedBuffer memory(static_cast<size_t>(block), 4096);
  for (uint64_t at = start; at < end; at += block) {
    const IoSlice data(memory.data(), static_cast<size_t>(std::min(block, end - at)));
    if (const auto got = session.await(from->node().read(at, data)); !got) {
      return session.complain(
          fmt::format("error while reading from input image file: {}", errno_text(got.error().code)));
    }
    if (const auto put = session.await(to->node().write(at - start, data)); !put) {
      return session.complain(
          fmt::format("error while writing to output image file: {}", errno_text(put.error().code)));
    }
  }
  return 0;
}

namespace {

struct Bench {
  Session& session;
  Image image;
  uint64_t count = 75000, depth = 64, size = 4096, step = 0, offset = 0;
  uint64_t flush_interval = 0;
  unsigned pattern = 0;
  bool write = false;
  bool drain = true;
  // The run.
  uint64_t started = 0;
  uint64_t at = 0;
  uint64_t until_flush = 0;
  bool failed = false;

  Task<void> worker(IoSlice buffer);
};

Task<void> Bench::worker(IoSlice buffer) {
  while (started < count && !failed) {
    ++started;
    const uint64_t here = at;
    at += step;
    if (at + size > image.length()) at = offset % std::max<uint64_t>(step, 1);
    const bool flush = write && flush_interval != 0 && started % flush_interval == 0;
    const auto done = write ? co_await image.node().write(here, buffer) : co_await image.node().read(here, buffer);
    if (!done && !std::exchange(failed, true))
      session.complain(fmt::format("Failed request: {}", errno_text(done.error().code)));
    if (flush && !failed) {
      if (const auto flushed = co_await image.node().flush(); !flushed && !std::exchange(failed, true)) {
        session.complain(fmt::format("Failed flush: {}", errno_text(flushed.error().code)));
      }
    }
  }
}

// True when the options are complete; else `status` is the exit status.
bool take_bench_arguments(Session& session, Argv& argv, OpenRequest& request, Bench& bench, bool& quiet, int& status) {
  static constexpr option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                      {"flush-interval", required_argument, nullptr, kFlushInterval},
                                      {"pattern", required_argument, nullptr, kPattern},
                                      {"no-drain", no_argument, nullptr, kNoDrain},
                                      {"force-share", no_argument, nullptr, 'U'},
                                      {"image-opts", no_argument, nullptr, kImageOpts},
                                      {nullptr, 0, nullptr, 0}};
  bool help = false;
  std::string bad;
  const bool parsed =
      parse_arguments(session, argv, ":hc:d:f:ni:o:qs:S:t:wU", kLongs, [&](int letter, const char* text) {
        const auto number = [&](auto& to, const char* name, uint64_t most = INT32_MAX) {
          const auto value = tool_size(text);
          if (!value || *value > most) bad = fmt::format("Invalid {} specified", name);
          to = static_cast<std::remove_reference_t<decltype(to)>>(value.value_or(0));
          return true;
        };
        switch (letter) {
          case 'h': help = true; return true;
          case 'c': return number(bench.count, "request count");
          case 'd': return number(bench.depth, "queue depth");
          case 'f': request.format = text; return true;
          case 'n':
            request.cache = "none";
            request.aio = "io_uring";
            return true;
          case 'i': request.aio = text; return true;
          case 'o': return number(bench.offset, "offset", INT64_MAX);
          case 'q': quiet = true; return true;
          case 's': return number(bench.size, "buffer size");
          case 'S': return number(bench.step, "step size");
          case 't': request.cache = text; return true;
          case 'w':
            bench.write = true;
            request.writable = true;
            return true;
          case 'U': request.force_share = true; return true;
          case kPattern: return number(bench.pattern, "pattern byte", 0xff);
          case kFlushInterval: return number(bench.flush_interval, "flush interval");
          case kNoDrain: bench.drain = false; return true;
          case kImageOpts: request.image_opts = true; return true;
          default: return false;
        }
      });
  const auto end = [&](int with) {
    status = with;
    return false;
  };
  if (help) return end(show_help(session));
  if (!parsed) return end(wrong_use(session, "unrecognized option or missing argument"));
  if (!bad.empty()) return end(session.complain(bad));
  const auto names = operands(argv);
  if (names.size() != 1) return end(wrong_use(session, "Expecting one image file name"));
  if (!bench.write && bench.flush_interval != 0)
    return end(session.complain("--flush-interval is only available in write tests"));
  if (bench.flush_interval != 0 && bench.flush_interval < bench.depth)
    return end(session.complain("Flush interval can't be smaller than depth"));
  request.filename = names[0];
  return true;
}

}  // namespace

int command_bench(Session& session, Argv argv) {
  OpenRequest request;
  Bench bench{session, {}};
  bool quiet = false;
  int status = 1;
  if (!take_bench_arguments(session, argv, request, bench, quiet, status)) return status;
  auto image = open_image(session, request);
  if (!image) return session.complain(image.error().message);
  bench.image = std::move(*image);
  if (bench.step == 0) bench.step = bench.size;
  if (bench.size == 0 || bench.image.length() < bench.size)
    return session.complain("the image is smaller than one request");
  bench.at = bench.offset;
  if (!quiet) {
    std::printf(
        "Sending %llu %s requests, %llu bytes each, %llu in parallel (starting at offset %llu, step size %llu)\n",
        static_cast<unsigned long long>(bench.count), bench.write ? "write" : "read",
        static_cast<unsigned long long>(bench.size), static_cast<unsigned long long>(bench.depth),
        static_cast<unsigned long long>(bench.offset), static_cast<unsigned long long>(bench.step));
    if (bench.flush_interval != 0) {
      std::printf("Sending flush every %llu %srequests\n", static_cast<unsigned long long>(bench.flush_interval),
                  bench.drain ? "" : "undrained ");
    }
    std::fflush(stdout);
  }
  std::vector<AlignedBuffer> memory;
  for (uint64_t i = 0; i < bench.depth; ++i) {
    memory.emplace_back(bench.size, 4096);
    IoSlice(memory.back().data(), bench.size).fill(static_cast<uint8_t>(bench.pattern));
  }
  const int64_t begun = monotonic_ns();
  {
    TaskScope scope;
    for (const AlignedBuffer& buffer : memory) scope.spawn(bench.worker(IoSlice(buffer.data(), buffer.size())));
    while (!scope.idle()) session.executor().run_once(Clock::kNever);
  }
  const int64_t spent = monotonic_ns() - begun;
  if (bench.failed) return 1;
  if (!quiet) std::printf("Run completed in %.3f seconds.\n", static_cast<double>(spent) / 1e9);
  return 0;
}

}  // namespace kite::img
