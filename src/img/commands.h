// The commands of the image tool, each in its own file. `argv` is that of the command: argv[0] is the program.
#pragma once

#include "img/tool.h"

namespace kite::img {

int command_amend(Session& session, Argv argv);
int command_bench(Session& session, Argv argv);
int command_bitmap(Session& session, Argv argv);
int command_check(Session& session, Argv argv);
int command_commit(Session& session, Argv argv);
int command_compare(Session& session, Argv argv);
int command_convert(Session& session, Argv argv);
int command_create(Session& session, Argv argv);
int command_dd(Session& session, Argv argv);
int command_info(Session& session, Argv argv);
int command_map(Session& session, Argv argv);
int command_measure(Session& session, Argv argv);
int command_rebase(Session& session, Argv argv);
int command_resize(Session& session, Argv argv);
int command_snapshot(Session& session, Argv argv);

// One loop over getopt_long: `take` gets each option's letter (or long number) and argument; false ends it.
bool parse_arguments(Session& session, Argv& argv, const char* letters, const struct option* longs,
                     const std::function<bool(int, const char*)>& take);
// What is left behind the options.
std::vector<std::string> operands(Argv& argv);
// "-h", and a wrong use of a command.
int show_help(const Session& session);
int wrong_use(const Session& session, std::string_view text);

// The options of "-o", several of them joined by commas. Complains.
bool add_options(Session& session, block::BlockOptions& options, std::string_view text);
int print_create_options(Session& session, const std::string& format, const std::string& filename);

// Makes a new image.
struct CreateCall {
  std::string filename;
  std::string format = "raw";
  block::BlockOptions options;
  std::optional<uint64_t> bytes;
  std::string backing, backing_format;
  bool backing_unchecked = false;
  bool announce = false;  // "Formatting ..." on stdout
  // Set by a caller who writes all of the image: a raw one may keep the file's old content, and this says whether.
  bool* overwritten = nullptr;
};
Result<> create_image(Session& session, CreateCall call);

}  // namespace kite::img
