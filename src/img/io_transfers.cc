// The commands of the I/O tool that move data, and those that ask where data is.
#include <getopt.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>

#include "block/timed.h"
#include "img/commands.h"
#include "img/io_commands.h"

namespace kite::img {

using namespace block;

namespace {

constexpr uint64_t kMostBytes = 0x7ffffe00;  // one request of the peers

void bad_number(const std::string& text) {
  const bool number = !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
  if (number) {
    std::printf("Parsing error: argument too large -- %s\n", text.c_str());
  } else {
    std::printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- %s\n", text.c_str());
  }
}

}  // namespace

// "64 KiB", "1.500 MiB", "512 bytes".
std::string io_size_text(double value) {
  static constexpr const char* kUnits[] = {" bytes", " KiB", " MiB", " GiB", " TiB", " PiB", " EiB"};
  size_t unit = 0;
  while (value >= 1024 && unit < std::size(kUnits) - 1) {
    value /= 1024;
    ++unit;
  }
  char text[64];
  std::snprintf(text, sizeof text, unit == 0 ? "%.6f" : "%.3f", value);
  std::string number(text);
  if (number.find(".000") != std::string::npos) number.erase(number.find('.'));
  return number + kUnits[unit];
}

bool IoShell::parse_access(Words& words, const char* letters, Access& access, size_t least, size_t most) {
  Argv argv(session_.program(), {words.begin() + 1, words.end()});
  bool good = true;
  parse_arguments(session_, argv, letters, nullptr, [&](int letter, const char* text) {
    const auto number = [&](std::optional<uint64_t>& to) {
      to = tool_size(text);
      if (!to) bad_number(text);
      return good = to.has_value();
    };
    switch (letter) {
      case 'b': access.vm_state = true; return true;
      case 'c': access.compressed = true; return true;
      case 'C': access.machine = true; return true;
      case 'f': access.fua = true; return true;
      case 'n': access.no_fallback = true; return true;
      case 'q': access.quiet = true; return true;
      case 'u': access.unmap = true; return true;
      case 'v': access.verbose = true; return true;
      case 'z': access.zero = true; return true;
      case 'l': return number(access.pattern_length);
      case 's':
        if (words[0] != "write" && words[0] != "w") return number(access.pattern_offset);
        access.source_file = text;
        return true;
      case 'P': {
        const auto value = tool_size(text);
        if (!value || *value > 255) {
          std::printf("%s is not a valid pattern byte\n", text);
          return good = false;
        }
        access.pattern = static_cast<int>(*value);
        return true;
      }
      case 'a':
      case 'i':
      case 'p': return true;
      default: return good = false;
    }
  });
  if (!good) return false;
  const auto names = operands(argv);
  if (names.size() < least || names.size() > most) {
    std::printf("%s: the wrong number of arguments; try 'help %s'\n", words[0].c_str(), words[0].c_str());
    return false;
  }
  for (const std::string& text : names) {
    const auto value = tool_size(text);
    if (!value || *value > INT64_MAX) {
      bad_number(text);
      return false;
    }
    access.numbers.push_back(*value);
  }
  return true;
}

IoHow IoShell::how_of(const Access& access) const {
  IoHow how;
  if (access.fua || image_->writethrough) how = how.with(IoHow::kFua);
  if (access.unmap) how = how.with(IoHow::kMayUnmap);
  if (access.no_fallback) how = how.with(IoHow::kNoFallback);
  if (access.compressed) how = how.with(IoHow::kCompressed);
  return how;
}

int IoShell::failed(const char* what, int code) const {
  std::printf("%s failed: %s\n", what, std::strerror(code));
  return -1;
}

void IoShell::dump(const std::vector<uint8_t>& data, uint64_t offset) const {
  constexpr size_t kRow = 16;
  for (size_t at = 0; at < data.size(); at += kRow) {
    const size_t here = std::min(kRow, data.size() - at);
    std::printf("%08llx:  ", static_cast<unsigned long long>(offset + at));
    for (size_t i = 0; i < here; ++i) std::printf("%02x ", data[at + i]);
    std::printf(" ");
    for (size_t i = 0; i < here; ++i) std::printf("%c", std::isalnum(data[at + i]) != 0 ? data[at + i] : '.');
    std::printf("\n");
  }
}

void IoShell::print_report(const Access& access, const Report& report) const {
  if (access.quiet) return;
  const double seconds = std::max(static_cast<double>(report.ns) / 1e9, 1e-9);
  const double bytes = static_cast<double>(report.total);
  const std::string time = fmt::format("{:05.2f} sec", seconds);
  if (access.machine) {
    std::printf("%llu,%llu,%s,%.6f,%.6f\n", static_cast<unsigned long long>(report.total),
                static_cast<unsigned long long>(report.operations), time.c_str(), bytes / seconds,
                static_cast<double>(report.operations) / seconds);
    return;
  }
  std::printf("%s %llu/%llu bytes at offset %llu\n", report.verb.c_str(), static_cast<unsigned long long>(report.total),
              static_cast<unsigned long long>(report.asked), static_cast<unsigned long long>(report.offset));
  std::printf("%s, %llu ops; %s (%s/sec and %.4f ops/sec)\n", io_size_text(bytes).c_str(),
              static_cast<unsigned long long>(report.operations), time.c_str(), io_size_text(bytes / seconds).c_str(),
              static_cast<double>(report.operations) / seconds);
}

int IoShell::verify(const Access& access, const std::vector<uint8_t>& data, uint64_t offset) {
  if (access.pattern < 0) return 0;
  const uint64_t from = access.pattern_offset.value_or(0);
  const uint64_t bytes = access.pattern_length.value_or(data.size() - std::min<uint64_t>(from, data.size()));
  if (from + bytes > data.size()) {
    std::printf("pattern verification range exceeds end of read data\n");
    return -1;
  }
  const auto* start = data.data() + from;
  if (std::all_of(start, start + bytes, [&](uint8_t byte) { return byte == access.pattern; })) return 0;
  std::printf("Pattern verification failed at offset %llu, %llu bytes\n",
              static_cast<unsigned long long>(offset + from), static_cast<unsigned long long>(bytes));
  return -1;
}

Task<IoResult<>> IoShell::perform_write(uint64_t offset, const std::vector<uint8_t>& data, uint64_t bytes,
                                        Access access) {
  const IoHow how = how_of(access);
  BlockNode& node = image_->node();
  if (access.vm_state) {
    FormatNode* format = image_->format();
    if (format == nullptr) co_return io_fail(ENOTSUP);
    co_return co_await format->write_vm_state(offset, IoSlice::of_const(data.data(), data.size()), how);
  }
  if (offset > node.length() || bytes > node.length() - offset) co_return io_fail(EIO);
  if (access.zero) co_return co_await node.write_zeroes(offset, bytes, how);
  co_return co_await node.write(offset, IoSlice::of_const(data.data(), data.size()), how);
}

Task<IoResult<>> IoShell::perform_read(uint64_t offset, IoSlice to, const Access& access) {
  if (access.vm_state) {
    FormatNode* format = image_->format();
    return format == nullptr ? ready<IoResult<>>(io_fail(ENOTSUP)) : format->read_vm_state(offset, to);
  }
  const uint64_t length = image_->length();
  if (offset > length || to.bytes() > length - offset) return ready<IoResult<>>(io_fail(EIO));
  return image_->node().read(offset, to);
}

Task<void> IoShell::background(std::string verb, uint64_t offset, std::vector<uint8_t> data, Access access,
                               uint64_t bytes) {
  const int64_t begun = monotonic_ns();
  const bool reads = verb == "read";
  IoResult<> done;
  if (reads) {
    done = co_await perform_read(offset, IoSlice(data), access);
  } else {
    done = co_await perform_write(offset, data, bytes, access);
  }
  if (!done) {
    std::printf("aio_%s failed: %s\n", reads ? "read" : "write", std::strerror(done.error().code));
    status_ = 1;
    co_return;
  }
  if (reads && verify(access, data, offset) < 0) status_ = 1;
  if (reads && access.verbose) dump(data, offset);
  print_report(access, {verb, offset, bytes, bytes, 1, monotonic_ns() - begun});
}

int IoShell::run_transfer(Words& words, bool writes, bool vectors, bool asynchronous) {
  Access access;
  const char* letters = asynchronous ? (writes ? "CfiP:quz" : "CiP:qv")
                        : vectors    ? (writes ? "CfqP:" : "CP:qv")
                                     : (writes ? "bcCfnpP:qs:uz" : "abCl:pP:qs:v");
  if (!parse_access(words, letters, access, 2, vectors ? 1024 : 2)) return -1;
  const uint64_t offset = access.numbers[0];
  uint64_t bytes = 0;
  for (size_t i = 1; i < access.numbers.size(); ++i) bytes += access.numbers[i];
  if (bytes > kMostBytes && !(access.zero && access.no_fallback)) {
    std::printf("length cannot exceed %llu%s, given %s\n", static_cast<unsigned long long>(kMostBytes),
                writes && !vectors ? " without -n" : "", words.back().c_str());
    return -1;
  }
  if (access.zero && access.pattern >= 0) return std::printf("-z and -P cannot be specified at the same time\n"), -1;
  if (access.unmap && !access.zero) return std::printf("-u requires -z to be specified\n"), -1;
  if (access.no_fallback && !access.zero) return std::printf("-n requires -z to be specified\n"), -1;
  if (access.vm_state && (access.zero || access.compressed))
    return std::printf("-b and -c or -z cannot be specified at the same time\n"), -1;
  if (access.pattern < 0 && (access.pattern_offset || access.pattern_length))
    return std::printf("-s and -l need -P\n"), -1;
  std::vector<uint8_t> data(access.zero ? 0 : bytes);
  if (writes && !access.source_file.empty()) {
    std::ifstream file(access.source_file, std::ios::binary);
    const std::string content((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (content.empty()) return std::printf("%s: cannot be read, or is empty\n", access.source_file.c_str()), -1;
    for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(content[i % content.size()]);
  } else if (writes) {
    constexpr uint8_t kDefaultPattern = 0xcd;
    std::ranges::fill(data, access.pattern < 0 ? kDefaultPattern : static_cast<uint8_t>(access.pattern));
  }
  if (asynchronous) {
    background_.spawn(background(writes ? "wrote" : "read", offset, std::move(data), access, bytes));
    return 0;
  }
  const std::string name = std::string(writes ? "write" : "read") + (vectors ? "v" : "");
  const int64_t begun = monotonic_ns();
  IoResult<> done;
  if (writes) {
    done = session_.await(perform_write(offset, data, bytes, access));
  } else {
    done = session_.await(perform_read(offset, IoSlice(data), access));
  }
  const int64_t spent = monotonic_ns() - begun;
  if (!done) return failed(name.c_str(), done.error().code);
  const int verified = writes ? 0 : verify(access, data, offset);
  if (!access.quiet) {
    if (!writes && access.verbose) dump(data, offset);
    print_report(access, {writes ? "wrote" : "read", offset, bytes, bytes, 1, spent});
  }
  return verified;
}

int IoShell::read(Words& words) { return run_transfer(words, false, false, false); }
int IoShell::readv(Words& words) { return run_transfer(words, false, true, false); }
int IoShell::write(Words& words) { return run_transfer(words, true, false, false); }
int IoShell::writev(Words& words) { return run_transfer(words, true, true, false); }
int IoShell::aio_read(Words& words) { return run_transfer(words, false, true, true); }
int IoShell::aio_write(Words& words) { return run_transfer(words, true, true, true); }

int IoShell::aio_flush(Words&) {
  while (!background_.idle()) session_.executor().run_once(Clock::kNever);
  return 0;
}

int IoShell::discard(Words& words) {
  Access access;
  if (!parse_access(words, "Cq", access, 2, 2)) return -1;
  const uint64_t offset = access.numbers[0];
  const uint64_t bytes = access.numbers[1];
  const int64_t begun = monotonic_ns();
  const uint64_t length = image_->length();
  const IoResult<> done =
      offset > length || bytes > length - offset ? io_fail(EIO) : session_.await(image_->node().discard(offset, bytes));
  if (!done) return failed("discard", done.error().code);
  print_report(access, {"discard", offset, bytes, bytes, 1, monotonic_ns() - begun});
  return 0;
}

int IoShell::alloc(Words& words) {
  const auto offset = tool_size(words[1]);
  const auto count = words.size() > 2 ? tool_size(words[2]) : std::optional<uint64_t>(512);
  if (!offset || !count) return bad_number(words[offset ? 2 : 1]), -1;
  uint64_t allocated = 0;
  const uint64_t asked = std::min(*count, image_->length() - std::min(*offset, image_->length()));
  const uint64_t end = *offset + asked;
  for (uint64_t at = *offset; at < end;) {
    const auto status = session_.await(skip_filters(&image_->node())->block_status(at, end - at));
    if (!status) return std::printf("is_allocated failed: %s\n", std::strerror(status.error().code)), -1;
    if (status->allocated) allocated += status->bytes;
    at += status->bytes;
  }
  std::printf("%llu/%llu bytes allocated at offset %s\n", static_cast<unsigned long long>(allocated),
              static_cast<unsigned long long>(asked), io_size_text(static_cast<double>(*offset)).c_str());
  return 0;
}

int IoShell::map(Words&) {
  const uint64_t length = image_->length();
  for (uint64_t at = 0; at < length;) {
    uint64_t end = at;
    std::optional<bool> allocated;
    while (end < length) {
      const auto status = session_.await(skip_filters(&image_->node())->block_status(end, length - end));
      if (!status)
        return session_.complain(fmt::format("Failed to get allocation status: {}", errno_text(status.error().code))),
               -1;
      if (allocated && *allocated != status->allocated) break;
      allocated = status->allocated;
      end += status->bytes;
    }
    std::printf("%s (0x%llx) bytes %s at offset %s (0x%llx)\n", io_size_text(static_cast<double>(end - at)).c_str(),
                static_cast<unsigned long long>(end - at), *allocated ? "    allocated" : "not allocated",
                io_size_text(static_cast<double>(at)).c_str(), static_cast<unsigned long long>(at));
    at = end;
  }
  return 0;
}

}  // namespace kite::img
