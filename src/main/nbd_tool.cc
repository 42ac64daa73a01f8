#include "main/nbd_tool.h"

#include <getopt.h>

#include <optional>

#include "block/nbd/server.h"
#include "chardev/socket_address.h"
#include "img/commands.h"
#include "main/process.h"

namespace kite::main {

namespace {

using block::BlockOptions;
using block::NodePtr;
using block::nbd::ExportRequest;
using block::nbd::Server;
using img::Session;

enum Long : int { kFork = 256, kPidFile, kCache, kAio, kDiscard, kDetectZeroes, kImageOpts };

struct Settings {
  img::OpenRequest image{.writable = true, .alone = false};
  ExportRequest disk{.id = "nbd", .node = nullptr, .name = "", .writable = true};
  std::optional<std::string> port, bind, socket;
  std::string clients = "1", offset = "0", discard = "ignore", pid_file;
  bool persistent = false, fork = false;
  std::string refused;  // an option that is known and not there
  bool help = false, version = false;
};

constexpr option kLongs[] = {{"help", no_argument, nullptr, 'h'},
                             {"version", no_argument, nullptr, 'V'},
                             {"port", required_argument, nullptr, 'p'},
                             {"bind", required_argument, nullptr, 'b'},
                             {"socket", required_argument, nullptr, 'k'},
                             {"shared", required_argument, nullptr, 'e'},
                             {"persistent", no_argument, nullptr, 't'},
                             {"export-name", required_argument, nullptr, 'x'},
                             {"description", required_argument, nullptr, 'D'},
                             {"bitmap", required_argument, nullptr, 'B'},
                             {"allocation-depth", no_argument, nullptr, 'A'},
                             {"offset", required_argument, nullptr, 'o'},
                             {"read-only", no_argument, nullptr, 'r'},
                             {"snapshot", no_argument, nullptr, 's'},
                             {"nocache", no_argument, nullptr, 'n'},
                             {"format", required_argument, nullptr, 'f'},
                             {"cache", required_argument, nullptr, kCache},
                             {"aio", required_argument, nullptr, kAio},
                             {"discard", required_argument, nullptr, kDiscard},
                             {"detect-zeroes", required_argument, nullptr, kDetectZeroes},
                             {"image-opts", no_argument, nullptr, kImageOpts},
                             {"fork", no_argument, nullptr, kFork},
                             {"pid-file", required_argument, nullptr, kPidFile},
                             {"connect", required_argument, nullptr, 'c'},
                             {"disconnect", no_argument, nullptr, 'd'},
                             {nullptr, 0, nullptr, 0}};

void print_help(const std::string& program) {
  std::printf(
      "usage: %s [options] FILE\n"
      "Serves a disk image to clients of the network block device protocol (NBD).\n\n"
      "  -p, --port=PORT            the TCP port (10809)\n"
      "  -b, --bind=ADDRESS         the address of it (0.0.0.0)\n"
      "  -k, --socket=PATH          a unix socket instead\n"
      "  -e, --shared=N             so many clients at once (1); 0: any number\n"
      "  -t, --persistent           stay when the last client has left\n"
      "  -x, --export-name=NAME     the disk's name for clients (none)\n"
      "  -D, --description=TEXT     and what it is\n"
      "  -B, --bitmap=NAME          tell clients of this dirty bitmap; more than one -B is possible\n"
      "  -A, --allocation-depth     tell clients which image of a chain has what\n"
      "  -f, --format=FORMAT        the image's format; it is guessed when it is not given\n"
      "      --image-opts           FILE is OPTION=VALUE,...\n"
      "  -o, --offset=OFFSET        the disk begins so many bytes behind the image's start\n"
      "  -r, --read-only            clients cannot write\n"
      "  -s, --snapshot             what they write is lost at the end\n"
      "  -n, --nocache              the same as --cache=none\n"
      "      --cache=MODE           none, writeback, writethrough, directsync or unsafe (writeback)\n"
      "      --aio=MODE             threads, native or io_uring\n"
      "      --discard=MODE         unmap: clients may give space back; ignore (the default)\n"
      "      --detect-zeroes=MODE   off, on or unmap: zeroes that are written become holes\n"
      "      --fork                 go to the background once it serves\n"
      "      --pid-file=PATH        write the process's number there\n",
      program.c_str());
}

bool take_option(Settings& settings, int letter, const char* text) {
  switch (letter) {
    case 'h': settings.help = true; return true;
    case 'V': settings.version = true; return true;
    case 'p': settings.port = text; return true;
    case 'b': settings.bind = text; return true;
    case 'k': settings.socket = text; return true;
    case 'e': settings.clients = text; return true;
    case 't': settings.persistent = true; return true;
    case 'x': settings.disk.name = text; return true;
    case 'D': settings.disk.description = text; return true;
    case 'B': settings.disk.bitmaps.push_back({.node = "", .name = text}); return true;
    case 'A': settings.disk.allocation_depth = true; return true;
    case 'o': settings.offset = text; return true;
    case 'r': settings.image.writable = settings.disk.writable = false; return true;
    case 's': settings.image.snapshot = true; return true;
    case 'n': settings.image.cache = "none"; return true;
    case 'f': settings.image.format = text; return true;
    case kCache: settings.image.cache = text; return true;
    case kAio: settings.image.aio = text; return true;
    case kDiscard: settings.discard = text; return true;
    case kDetectZeroes: settings.image.detect_zeroes = text; return true;
    case kImageOpts: settings.image.image_opts = true; return true;
    case kFork: settings.fork = true; return true;
    case kPidFile: settings.pid_file = text; return true;
    case 'c':
    case 'd':
      settings.refused =
          fmt::format("-{}: the kernel's /dev/nbd devices are not supported; nbd-client connects one to this server",
                      static_cast<char>(letter));
      return true;
    default: return false;
  }
}

Result<SocketAddress> address_of(const Settings& settings) {
  if (settings.socket) {
    if (settings.port || settings.bind)
      return fail("-k (a unix socket) goes with neither -p (a TCP port) nor -b (its address)");
    if (settings.socket->empty()) return fail("-k: the path of the unix socket is empty");
    return SocketAddress{.path = *settings.socket};
  }
  return SocketAddress{.host = settings.bind.value_or("0.0.0.0"),
                       .port = settings.port.value_or(std::to_string(block::nbd::kDefaultPort))};
}

// The image, from the offset on.
Result<NodePtr> disk_of(Session& session, const img::Image& image, const Settings& settings) {
  const auto offset = img::tool_size(settings.offset);
  if (!offset) return fail("-o: '{}' is no offset", settings.offset);
  if (*offset == 0) return image.use.node();
  if (*offset >= image.length())
    return fail("-o: the offset {} lies behind the end of the image, which has {} bytes", *offset, image.length());
  BlockOptions options;
  options.set("driver", "raw");
  options.set("file", image.node().name());
  options.set("offset", std::to_string(*offset));
  options.set("discard", settings.discard);
  if (!settings.disk.writable) options.set("read-only", "on");
  KITE_ASSIGN(NodePtr node, session.await(session.graph().open(std::move(options))));
  session.keep(node);
  return node;
}

Result<size_t> most_clients(const Settings& settings) {
  const auto number = parse_unsigned(settings.clients);
  if (!number || *number > UINT32_MAX) return fail("-e: '{}' is no number of clients", settings.clients);
  return static_cast<size_t>(*number);
}

// Until it is told to end.
Result<> serve(Session& session, Settings& settings, const std::string& file) {
  KITE_ASSIGN(const SocketAddress address, address_of(settings));
  KITE_ASSIGN(const size_t clients, most_clients(settings));
  KITE_ASSIGN(Daemon daemon, Daemon::start(settings.fork));
  bool ending = false;
  KITE_ASSIGN(const Fd signals, watch_signals(session.executor(), [&ending](int) { ending = true; }));
  settings.image.filename = file;
  settings.image.options.set("discard", settings.discard);
  KITE_ASSIGN(const img::Image image, img::open_image(session, settings.image));
  KITE_ASSIGN(settings.disk.node, disk_of(session, image, settings));
  settings.disk.writethrough = image.writethrough;
  Server server(session.graph(), {.client_left = [&](bool served, size_t others) {
                  ending |= served && others == 0 && !settings.persistent;
                }});
  KITE_TRY(server.add(std::move(settings.disk)));
  Result<> done;
  PidFile pid_file;
  if (auto sockets = listen_everywhere(address); sockets) {
    done = server.start({.sockets = std::move(*sockets), .path = address.path}, clients);
  } else {
    done = Failure(std::move(sockets).error());
  }
  if (done && !settings.pid_file.empty()) {
    auto made = PidFile::create(settings.pid_file);
    if (made) pid_file = std::move(*made);
    if (!made) done = Failure(std::move(made).error());
  }
  if (done) done = daemon.ready();
  while (done && !ending) session.executor().run_once(Clock::kNever);
  const Result<> stopped = session.await(server.stop());
  session.executor().unwatch(signals.get());
  return done ? stopped : done;
}

}  // namespace

int run_nbd(const std::string& program, const std::vector<std::string>& arguments) {
  Settings settings;
  img::Argv argv(program, arguments);
  Session session(program);
  const bool parsed =
      img::parse_arguments(session, argv, "hVp:b:k:e:tx:D:B:Ao:rsnf:c:d", kLongs,
                           [&settings](int letter, const char* text) { return take_option(settings, letter, text); });
  if (settings.help) print_help(program);
  if (settings.version) std::printf("%s (Kite)\n", program.c_str());
  if (settings.help || settings.version) return 0;
  if (!parsed) return img::wrong_use(session, "an option is unknown or lacks its value");
  if (!settings.refused.empty()) return session.complain(settings.refused);
  const std::vector<std::string> files = img::operands(argv);
  if (files.size() != 1) return img::wrong_use(session, "one image is expected");
  const Result<> done = serve(session, settings, files[0]);
  const int closed = session.finish();
  return done ? closed : session.complain(done.error().message);
}

}  // namespace kite::main
