// Configuration files: a machine written down, turned into the options that the command line would have given. Two
// forms: TOML for people (`kite run machine.toml`) and the grouped "key = value" form of -readconfig.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "support/result.h"

namespace kite::main {

// One option, wherever it was given.
struct GivenOption {
  std::string name;      // without the dash
  std::string argument;  // empty for options that take none
  std::string origin;    // "machine.toml:12" for messages; empty: the command line
};

// TOML: every option is a key of the same name. A string is the option's text; `true` gives an option that takes none;
// a table is its settings ("NAME=VALUE,..."), nested ones with dotted names; an array gives the option again and again.
// Friendly names: memory, cpus, board, paused, command-line. `file` names it in messages.
Result<std::vector<GivenOption>> options_of_toml(std::string_view text, const std::string& file);

// -readconfig: [group] or [group "id"], then key = "value" lines; '#' begins a comment.
Result<std::vector<GivenOption>> options_of_ini(std::string_view text, const std::string& file);

// The whole file, at most 1 MiB of it.
Result<std::string> read_config_file(const std::string& path, std::string_view option);

}  // namespace kite::main
