// `kite img`: finds the command.
#include <getopt.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "img/commands.h"
#include "support/suggest.h"

namespace kite::img {

using namespace block;

namespace {

struct Command {
  std::string_view name;
  int (*run)(Session&, Argv);
  const char* usage;
};

constexpr auto kCommands = std::to_array<Command>({
    {"amend", &command_amend, "[-p] [-q] [-f fmt] [-t cache] [--image-opts] -o options filename"},
    {"bench", &command_bench,
     "[-c count] [-d depth] [-f fmt] [--flush-interval=n] [-i aio] [-n] [--no-drain] [-o offset] "
     "[--pattern=pattern] [-q] [-s buffer_size] [-S step_size] [-t cache] [-w] [-U] filename"},
    {"bitmap", &command_bitmap,
     "(--merge SOURCE | --add | --remove | --clear | --enable | --disable)... [-b source_file [-F source_fmt]] "
     "[-g granularity] [--image-opts | -f fmt] filename bitmap"},
    {"check", &command_check,
     "[-q] [-f fmt] [--output=ofmt] [-r leaks|all] [-T src_cache] [-U] [--image-opts] filename"},
    {"commit", &command_commit, "[-q] [-f fmt] [-t cache] [-b base] [-d] [-p] [--image-opts] filename"},
    {"compare", &command_compare,
     "[-f fmt] [-F fmt] [-T src_cache] [-p] [-q] [-s] [-U] [--image-opts] filename1 filename2"},
    {"convert", &command_convert,
     "[-U] [-C] [-c] [-p] [-q] [-n] [-f fmt] [-t cache] [-T src_cache] [-O output_fmt] "
     "[-B backing_file [-F backing_fmt]] [-o options] [-l snapshot] [-S sparse_size] [-m num] "
     "[-W] [--salvage] [--target-is-zero] [--image-opts] filename [filename2 ...] output_filename"},
    {"create", &command_create, "[-q] [-f fmt] [-b backing_file [-F backing_fmt]] [-u] [-o options] filename [size]"},
    {"dd", &command_dd,
     "[--image-opts] [-U] [-f fmt] [-O output_fmt] [bs=block_size] [count=blocks] [skip=blocks] if=input of=output"},
    {"info", &command_info, "[-f fmt] [--output=ofmt] [--backing-chain] [-U] [--image-opts] filename"},
    {"map", &command_map,
     "[-f fmt] [--start-offset=offset] [--max-length=len] [--output=ofmt] [-U] [--image-opts] filename"},
    {"measure", &command_measure,
     "[--output=ofmt] [-O output_fmt] [-o options] [--size N | [-f fmt] [-l snapshot] filename]"},
    {"rebase", &command_rebase,
     "[-U] [-q] [-f fmt] [-t cache] [-T src_cache] [-p] [-u] -b backing_file [-F backing_fmt] filename"},
    {"resize", &command_resize,
     "[-f fmt] [--preallocation=prealloc] [-q] [--shrink] [--image-opts] filename [+|-]size"},
    {"snapshot", &command_snapshot, "[-U] [-q] [-l | -a snapshot | -c snapshot | -d snapshot] [--image-opts] filename"},
});

}  // namespace

bool parse_arguments(Session&, Argv& argv, const char* letters, const struct option* longs,
                     const std::function<bool(int, const char*)>& take) {
  optind = 0;
  while (true) {
    const int letter = ::getopt_long(argv.count(), argv.data(), letters, longs, nullptr);
    if (letter < 0) return true;
    if (letter == '?' || letter == ':' || !take(letter, optarg)) return false;
  }
}

std::vector<std::string> operands(Argv& argv) {
  return std::vector<std::string>(argv.data() + optind, argv.data() + argv.count());
}

int show_help(const Session& session) {
  std::printf("usage: %s command [command options]\nCreates, converts, checks and changes disk images.\n\nCommands:\n",
              session.program().c_str());
  for (const Command& command : kCommands) {
    std::printf("  %.*s %s\n", static_cast<int>(command.name.size()), command.name.data(), command.usage);
  }
  std::printf(
      "\nSizes take the suffixes k, M, G, T, P and E. cache is one of none, writeback, writethrough,\n"
      "directsync, unsafe; fmt is guessed when it is not given.\n\nSupported formats:");
  for (const Driver& driver : drivers()) std::printf(" %.*s", static_cast<int>(driver.name.size()), driver.name.data());
  std::printf("\n");
  return 0;
}

int wrong_use(const Session& session, std::string_view text) {
  session.complain(text);
  std::fprintf(stderr, "Try '%s --help' for more information\n", session.program().c_str());
  return 1;
}

bool add_options(Session& session, BlockOptions& options, std::string_view text) {
  auto more = BlockOptions::parse(text);
  if (!more) {
    session.complain(more.error().message);
    return false;
  }
  for (const auto& [name, value] : more->all()) options.set(name, value);
  return true;
}

int run_img(const std::string& program, const std::vector<std::string>& arguments) {
  Session session(program);
  if (arguments.empty()) return wrong_use(session, "Not enough arguments");
  const std::string& name = arguments.front();
  if (name == "-h" || name == "--help" || name == "help") return show_help(session);
  if (name == "-V" || name == "--version") {
    std::printf("%s (Kite)\n", program.c_str());
    return 0;
  }
  const auto found = std::ranges::find(kCommands, std::string_view(name), &Command::name);
  if (found == kCommands.end()) {
    std::vector<std::string_view> names;
    for (const Command& command : kCommands) names.push_back(command.name);
    if (name.starts_with('-')) return wrong_use(session, fmt::format("unrecognized option '{}'", name));
    return wrong_use(session, fmt::format("Command not found: {}{}", name, suggestion(name, names)));
  }
  const int status = found->run(session, Argv(program, {arguments.begin() + 1, arguments.end()}));
  const int closed = session.finish();
  return status != 0 ? status : closed;
}

}  // namespace kite::img
