// The table of command-line options.
#pragma once

#include <span>
#include <string_view>

#include "main/launch_plan.h"

namespace kite::main {

struct OptionContext {
  LaunchPlan& plan;
  TypeRegistry& types;
};

struct OptionSpec {
  std::string_view name;      // without the dash
  std::string_view argument;  // how the help text shows it; empty: takes none
  std::string_view group;     // heading in the help text; empty: an alias that help does not list
  std::string_view help;
  Result<> (*apply)(OptionContext& context, std::string_view argument);
};

std::span<const OptionSpec> options();

// Options of QEMU's that this version does not have, and what to say.
struct MissingOption {
  std::string_view name;
  std::string_view reason;
};
std::span<const MissingOption> missing_options();

}  // namespace kite::main
