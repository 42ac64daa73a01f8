// The shell of the I/O tool: its commands, opening, and what is not a transfer.
#include <getopt.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <sstream>
#include <utility>

#include "img/commands.h"
#include "img/io_commands.h"

namespace kite::img {

using namespace block;

std::string io_size_text(double value);

std::span<const IoShell::Command> IoShell::commands() {
  static constexpr auto kTable = std::to_array<Command>({
      {"abort", "", &IoShell::abort_command, 0, 0, false, false, "", "simulate a program crash using abort(3)"},
      {"aio_flush", "", &IoShell::aio_flush, 0, 0, true, false, "", "completes all outstanding aio requests"},
      {"aio_read", "", &IoShell::aio_read, 2, -1, true, false, "[-Ciqv] [-P pattern] off len [len..]",
       "asynchronously reads a number of bytes"},
      {"aio_write", "", &IoShell::aio_write, 2, -1, true, true, "[-Cfiquz] [-P pattern] off len [len..]",
       "asynchronously writes a number of bytes"},
      {"alloc", "", &IoShell::alloc, 1, 2, true, false, "offset [count]", "checks if offset is allocated in the file"},
      {"break", "", &IoShell::break_command, 2, 2, true, false, "event tag",
       "stops requests at the given event of blkdebug, under that tag"},
      {"close", "c", &IoShell::close_command, 0, 0, true, false, "", "close the current open file"},
      {"discard", "d", &IoShell::discard, 2, -1, true, true, "[-Cq] off len",
       "discards a number of bytes at a specified offset"},
      {"flush", "f", &IoShell::flush, 0, 0, true, false, "", "flush all in-core file state to disk"},
      {"help", "?", &IoShell::help, 0, 1, false, false, "[command]", "help for one or all commands"},
      {"info", "i", &IoShell::info, 0, 0, true, false, "", "prints information about the current file"},
      {"length", "l", &IoShell::length, 0, 0, true, false, "", "gets the length of the current file"},
      {"map", "", &IoShell::map, 0, 1, true, false, "", "prints the allocated areas of a file"},
      {"open", "o", &IoShell::open_command, 1, -1, false, false,
       "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]", "open the file specified by path"},
      {"quit", "q", &IoShell::quit, 0, 0, false, false, "", "exit the program"},
      {"read", "r", &IoShell::read, 2, -1, true, false, "[-abCqv] [-P pattern [-s off] [-l len]] off len",
       "reads a number of bytes at a specified offset"},
      {"readv", "", &IoShell::readv, 2, -1, true, false, "[-Cqv] [-P pattern] off len [len..]",
       "reads a number of bytes at a specified offset"},
      {"remove_break", "", &IoShell::resume, 1, 1, true, false, "tag", "removes a break, met or not"},
      {"reopen", "", &IoShell::reopen, 0, -1, true, false, "[(-r|-w)] [-c cache] [-o options]",
       "reopens an image with new options"},
      {"resume", "", &IoShell::resume, 1, 1, true, false, "tag", "lets requests go on that wait at a break"},
      {"sigraise", "", &IoShell::sigraise, 1, 1, false, false, "signal", "raises a signal"},
      {"sleep", "", &IoShell::sleep, 1, 1, false, false, "", "waits for the given value in milliseconds"},
      {"truncate", "t", &IoShell::truncate, 1, 3, true, true, "[-m prealloc_mode] off",
       "truncates the current file at the given offset"},
      {"wait_break", "", &IoShell::wait_break, 1, 1, true, false, "tag", "waits until a request meets the break"},
      {"write", "w", &IoShell::write, 2, -1, true, true, "[-bcCfnquz] [-P pattern | -s source_file] off len",
       "writes a number of bytes at a specified offset"},
      {"writev", "", &IoShell::writev, 2, -1, true, true, "[-Cfq] [-P pattern] off len [len..]",
       "writes a number of bytes at a specified offset"},
  });
  return kTable;
}

Result<> IoShell::try_open(const OpenRequest& request) {
  auto image = open_image(session_, request);
  if (!image) {
    // open_image() speaks of opening; the callers name the device or the command instead.
    std::string why = image.error().message;
    if (const std::string head = fmt::format("Could not open '{}': ", request.filename); why.starts_with(head))
      why.erase(0, head.size());
    return fail("{}", why);
  }
  image_ = std::move(*image);
  filename_ = request.filename;
  opened_ = request;
  return {};
}

bool IoShell::open(const OpenRequest& request) {
  const Result<> opened = try_open(request);
  if (opened) return true;
  session_.complain(fmt::format("can't open{}{}: {}", request.filename.empty() || request.image_opts ? "" : " device ",
                                request.image_opts ? "" : request.filename, opened.error().message));
  status_ = 1;
  return false;
}

void IoShell::close() {
  if (!image_) return;
  while (!background_.idle()) session_.executor().run_once(Clock::kNever);
  const NodePtr node = image_->use.node();
  image_.reset();
  const auto closed = session_.await(node->close());
  if (closed) return;
  status_ = 1;
  std::istringstream lines(closed.error().message);
  for (std::string line; std::getline(lines, line);) session_.complain(line);
}

bool IoShell::run_line(const std::string& line) {
  Words words;
  for (size_t at = 0; at < line.size();) {
    const size_t end = std::min(line.find_first_of(" \t\n", at), line.size());
    if (end != at) words.push_back(line.substr(at, end - at));
    at = end + 1;
  }
  if (words.empty()) return true;
  const auto all = commands();
  const auto found = std::ranges::find_if(all, [&](const Command& command) {
    return words[0] == command.name || (!command.alias.empty() && words[0] == command.alias);
  });
  if (found == all.end()) {
    std::fflush(stdout);
    std::fprintf(stderr, "command \"%s\" not found\n", words[0].c_str());
    status_ = 1;
    return true;
  }
  const int arguments = static_cast<int>(words.size()) - 1;
  if (arguments < found->least || (found->most >= 0 && arguments > found->most)) {
    std::string expected = found->most < 0               ? fmt::format("at least {}", found->least)
                           : found->least == found->most ? std::to_string(found->least)
                                                         : fmt::format("between {} and {}", found->least, found->most);
    std::fflush(stdout);
    std::fprintf(stderr, "bad argument count %d to %s, expected %s arguments\n", arguments, words[0].c_str(),
                 expected.c_str());
    status_ = 1;
    return true;
  }
  if (found->needs_image && !image_) {
    std::fflush(stdout);
    std::fprintf(stderr, "no file open, try 'help open'\n");
    status_ = 1;
    return true;
  }
  if (found->needs_write && image_->node().read_only()) {
    session_.complain("Block node is read-only");
    status_ = 1;
    return true;
  }
  if ((this->*found->run)(words) < 0) status_ = 1;
  std::fflush(stdout);
  return !quit_;
}

int IoShell::quit(Words&) {
  quit_ = true;
  return 0;
}

int IoShell::abort_command(Words&) {
  std::fflush(stdout);
  std::abort();
}

int IoShell::sigraise(Words& words) {
  const auto number = tool_size(words[1]);
  if (!number || *number > 64) {
    std::printf("signal argument '%s' is too large to be a valid signal number\n", words[1].c_str());
    return -1;
  }
  std::fflush(stdout);
  std::fflush(stderr);
  ::raise(static_cast<int>(*number));
  return 0;
}

int IoShell::sleep(Words& words) {
  const auto ms = tool_size(words[1]);
  if (!ms) return std::printf("%s\n", words[1].c_str()), -1;
  const timespec time{.tv_sec = static_cast<time_t>(*ms / 1000), .tv_nsec = static_cast<long>(*ms % 1000) * 1'000'000};
  ::nanosleep(&time, nullptr);
  return 0;
}

int IoShell::help(Words& words) {
  for (const Command& command : commands()) {
    if (words.size() > 1 && words[1] != command.name) continue;
    const std::string gap = command.arguments.empty() ? "" : " ";
    std::printf("%.*s%s%.*s -- %.*s\n", static_cast<int>(command.name.size()), command.name.data(), gap.c_str(),
                static_cast<int>(command.arguments.size()), command.arguments.data(),
                static_cast<int>(command.help.size()), command.help.data());
    if (words.size() > 1) return 0;
  }
  if (words.size() > 1) {
    std::printf("command %s not found\n", words[1].c_str());
    return -1;
  }
  std::printf("\nUse 'help commandname' for extended help.\n");
  return 0;
}

// The nearest blkdebug at or below the top of the image, along its data.
BlkdebugNode* IoShell::debug_node() {
  BlockNode* node = &image_->node();
  while (node != nullptr && dynamic_cast<BlkdebugNode*>(node) == nullptr) node = node->file();
  if (node == nullptr) std::printf("there is no blkdebug node in the image\n");
  return dynamic_cast<BlkdebugNode*>(node);
}

int IoShell::break_command(Words& words) {
  BlkdebugNode* node = debug_node();
  if (node == nullptr) return -1;
  node->add_break(words[1], words[2],
                  [tag = words[2]] { std::printf("blkdebug: Suspended request '%s'\n", tag.c_str()); });
  return 0;
}

int IoShell::wait_break(Words& words) {
  const BlkdebugNode* node = debug_node();
  if (node == nullptr) return -1;
  while (!node->is_met(words[1]) && !background_.idle()) session_.executor().run_once(Clock::kNever);
  return 0;
}

int IoShell::resume(Words& words) {
  BlkdebugNode* node = debug_node();
  if (node == nullptr) return -1;
  if (node->is_met(words[1])) std::printf("blkdebug: Resuming request '%s'\n", words[1].c_str());
  if (node->resume(words[1])) return 0;
  std::printf("could not resume tag '%s': there is no such break\n", words[1].c_str());
  return -1;
}

int IoShell::close_command(Words&) {
  close();
  return 0;
}

namespace {

// The options of the image in "blkdebug:CONFIG:IMAGE" when they say driver=blkdebug: the name is that driver's own.
void take_debug_name(OpenRequest& request) {
  constexpr std::string_view kDebug = "blkdebug:";
  const std::string* driver = request.options.find("driver");
  const std::string name = request.filename;
  const size_t colon = name.starts_with(kDebug) ? name.find(':', kDebug.size()) : std::string::npos;
  if (driver == nullptr || *driver != "blkdebug" || name.empty()) return;
  if (colon == std::string::npos) {
    request.options.set("image.file.filename", name);
    request.filename.clear();
    return;
  }
  if (colon > kDebug.size()) request.options.set("config", name.substr(kDebug.size(), colon - kDebug.size()));
  request.options.set("image.filename", name.substr(colon + 1));
  request.filename.clear();
}

// The node that "file.backing.option" speaks of, and the option's own name.
std::pair<const BlockNode*, std::string> node_of_option(const BlockNode* node, std::string_view key) {
  while (node != nullptr) {
    const size_t dot = key.find('.');
    const std::string_view role = key.substr(0, dot);
    if (dot == std::string_view::npos || (role != "file" && role != "image" && role != "backing")) break;
    node = role == "backing" ? node->backing() : node->file();
    key.remove_prefix(dot + 1);
  }
  return {node, std::string(key)};
}

// What an open node is cannot change; options that say what it is anyway are dropped.
Result<> keep_identity(const BlockNode& top, BlockOptions& options) {
  const BlockOptions given = options;
  for (const auto& [key, value] : given.all()) {
    const auto [node, name] = node_of_option(&top, key);
    if (name != "node-name" && name != "driver") continue;
    const std::string now = node == nullptr ? "" : name == "driver" ? node->driver() : node->name();
    if (value != now) return fail("Cannot change the option '{}'", name);
    options.erase(key);
  }
  return {};
}

}  // namespace

int IoShell::open_command(Words& words) {
  OpenRequest request;
  request.writable = true;
  request.aio = defaults.aio;
  Argv argv(session_.program(), {words.begin() + 1, words.end()});
  bool bad = false;
  bool said = false;
  const bool parsed = parse_arguments(session_, argv, "snCro:ki:t:d:U", nullptr, [&](int letter, const char* text) {
    switch (letter) {
      case 'r': request.writable = false; return true;
      case 'n': request.cache = "none"; return true;
      case 't': request.cache = text; return true;
      case 'k': request.aio = "native"; return true;
      case 'i': request.aio = text; return true;
      case 's': request.snapshot = true; return true;
      case 'C': request.copy_on_read = true; return true;
      case 'U': request.force_share = true; return true;
      case 'o': return !(said = !add_options(session_, request.options, text));
      default: bad = true; return false;
    }
  });
  if (bad) std::printf("open: -d is not supported\n");
  if (bad || !parsed) return -1;
  const auto names = operands(argv);
  if (image_) {
    std::fprintf(stderr, "file open already, try 'help close'\n");
    return -1;
  }
  request.filename = names.empty() ? "" : names[0];
  take_debug_name(request);
  if (request.options.empty()) request.format = defaults.format;
  return open(request) ? 0 : -1;
}

int IoShell::reopen(Words& words) {
  OpenRequest request = opened_;
  Argv argv(session_.program(), {words.begin() + 1, words.end()});
  bool rights = false;
  bool cache = false;
  BlockOptions options;
  const bool parsed = parse_arguments(session_, argv, "c:o:rw", nullptr, [&](int letter, const char* text) {
    switch (letter) {
      case 'r':
      case 'w':
        if (std::exchange(rights, true)) return session_.complain("Only one -r/-w option can be specified"), false;
        request.writable = letter == 'w';
        return true;
      case 'c':
        cache = true;
        request.cache = text;
        return true;
      case 'o': return add_options(session_, options, text);
      default: return false;
    }
  });
  if (!parsed) return -1;
  Result<> done = keep_identity(image_->node(), options);
  if (rights && options.has("read-only")) done = fail("Cannot set both -r/-w and 'read-only'");
  if (cache && (options.has("cache.direct") || options.has("cache.no-flush")))
    done = fail("Cannot set both -c and the cache options");
  if (!done) return session_.complain(done.error().message), -1;
  for (const auto& [key, value] : options.all()) request.options.set(key, value);
  const OpenRequest before = opened_;
  close();
  done = try_open(request);
  if (done) return 0;
  session_.complain(done.error().message);
  open(before);
  return -1;
}

int IoShell::length(Words&) {
  std::printf("%s\n", io_size_text(static_cast<double>(image_->length())).c_str());
  return 0;
}

int IoShell::info(Words&) {
  const FormatNode* format = image_->format();
  const ImageInfo info = format == nullptr ? ImageInfo{} : format->image_info();
  std::printf("format name: %s\n", image_->node().driver().c_str());
  const Driver* driver = find_driver(image_->node().driver());
  if (driver != nullptr && driver->is_protocol) {
    // It stands for both; and one that is no file of the host has no clusters to speak of.
    std::printf("format name: %s\n", image_->node().driver().c_str());
    if (dynamic_cast<const FileNode*>(&image_->node()) == nullptr) return 0;
  }
  std::printf("cluster size: %s\nvm state offset: %s\n", io_size_text(static_cast<double>(info.cluster_bytes)).c_str(),
              io_size_text(static_cast<double>(info.vm_state_offset)).c_str());
  if (!info.has_format_specific) return 0;
  std::printf("Format specific information:\n");
  for (const auto& [key, value] : info.format_specific) {
    std::string name = key;
    std::ranges::replace(name, '-', ' ');
    std::string text;
    if (const auto* flag = std::get_if<bool>(&value)) text = *flag ? "true" : "false";
    if (const auto* number = std::get_if<uint64_t>(&value)) text = std::to_string(*number);
    if (const auto* string = std::get_if<std::string>(&value)) text = *string;
    std::printf("    %s: %s\n", name.c_str(), text.c_str());
  }
  return 0;
}

int IoShell::flush(Words&) {
  const auto done = image_->node().read_only() ? IoResult<>{} : session_.await(image_->node().flush());
  return done ? 0 : failed("flush", done.error().code);
}

int IoShell::truncate(Words& words) {
  Preallocation mode = Preallocation::kOff;
  Argv argv(session_.program(), {words.begin() + 1, words.end()});
  bool bad = false;
  parse_arguments(session_, argv, "m:", nullptr, [&](int letter, const char* text) {
    const auto parsed = letter == 'm' ? parse_preallocation(text) : Result<Preallocation>(fail("unknown"));
    if (!parsed) session_.complain(parsed.error().message);
    bad = !parsed;
    mode = parsed.value_or(Preallocation::kOff);
    return !bad;
  });
  const auto names = operands(argv);
  const auto bytes = names.empty() ? std::nullopt : tool_size(names[0]);
  if (bad || !bytes)
    return bad ? -1
               : (std::printf("Parsing error: non-numeric argument, or extraneous/unrecognized suffix -- %s\n",
                              names.empty() ? "" : names[0].c_str()),
                  -1);
  const auto done = session_.await(image_->node().truncate(*bytes, mode));
  if (!done) return session_.complain(done.error().message), -1;
  return 0;
}

namespace {

// Commands of the command line, or else of standard input, until one says quit.
void run_lines(IoShell& shell, const std::vector<std::string>& lines) {
  bool going = true;
  for (size_t i = 0; i < lines.size() && going; ++i) going = shell.run_line(lines[i]);
  if (!lines.empty()) return;
  char* line = nullptr;
  size_t room = 0;
  while (going) {
    std::printf("%s> ", "qemu-io");
    std::fflush(stdout);
    if (::getline(&line, &room, stdin) < 0) break;
    going = shell.run_line(line);
  }
  std::free(line);
}

}  // namespace

int run_io(const std::string& program, const std::vector<std::string>& arguments) {
  enum Long : int { kImageOpts = 256, kObject };
  static constexpr option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                                      {"version", no_argument, nullptr, 'V'},
                                      {"cmd", required_argument, nullptr, 'c'},
                                      {"format", required_argument, nullptr, 'f'},
                                      {"read-only", no_argument, nullptr, 'r'},
                                      {"snapshot", no_argument, nullptr, 's'},
                                      {"nocache", no_argument, nullptr, 'n'},
                                      {"copy-on-read", no_argument, nullptr, 'C'},
                                      {"misalign", no_argument, nullptr, 'm'},
                                      {"native-aio", no_argument, nullptr, 'k'},
                                      {"aio", required_argument, nullptr, 'i'},
                                      {"discard", required_argument, nullptr, 'd'},
                                      {"cache", required_argument, nullptr, 't'},
                                      {"trace", required_argument, nullptr, 'T'},
                                      {"force-share", no_argument, nullptr, 'U'},
                                      {"object", required_argument, nullptr, kObject},
                                      {"image-opts", no_argument, nullptr, kImageOpts},
                                      {nullptr, 0, nullptr, 0}};
  Session session(program);
  Argv argv(program, arguments);
  OpenRequest request{.writable = true, .resize = true};
  std::vector<std::string> lines;
  std::string bad;
  int early = -1;
  const bool parsed =
      parse_arguments(session, argv, "hVc:d:f:rsnCmki:t:T:U", kLongs, [&](int letter, const char* text) {
        switch (letter) {
          case 'h':
            std::printf(
                "usage: %s [-c command]... [-f format] [-r] [-n] [-t cache] [-i aio] [-U] [--image-opts] [file]\n"
                "Reads and writes disk images by commands; see -c help.\n",
                program.c_str());
            early = 0;
            return false;
          case 'V':
            std::printf("%s (Kite)\n", program.c_str());
            early = 0;
            return false;
          case 'c': lines.emplace_back(text); return true;
          case 'f': request.format = text; return true;
          case 'r': request.writable = request.resize = false; return true;
          case 'n': request.cache = "none"; return true;
          case 't': request.cache = text; return true;
          case 'k': request.aio = "native"; return true;
          case 'i': request.aio = text; return true;
          case 'U': request.force_share = true; return true;
          case 'd': bad = "--discard is not supported yet"; return true;
          case 'm': bad = "--misalign is not supported yet"; return true;
          case 'T': bad = "--trace is not supported yet"; return true;
          case 's': request.snapshot = true; return true;
          case 'C': request.copy_on_read = true; return true;
          case kImageOpts: request.image_opts = true; return true;
          default: return false;
        }
      });
  if (early >= 0) return early;
  if (!parsed) return 1;
  if (!bad.empty()) return session.complain(bad);
  const auto names = operands(argv);
  if (names.size() > 1) return session.complain("one file at most");
  IoShell shell(session);
  shell.defaults = request;
  if (!names.empty()) {
    request.filename = names[0];
    if (!shell.open(request)) return 1;
  }
  run_lines(shell, lines);
  shell.close();
  const int closed = session.finish();
  return shell.status() != 0 ? shell.status() : closed;
}

}  // namespace kite::img
