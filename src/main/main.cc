#include <cstdio>
#include <string>
#include <vector>

#include "display/spice/spice_process.h"
#include "img/tool.h"
#include "main/nbd_tool.h"
#include "main/run.h"
#include "main/sandbox.h"
#include "support/log.h"

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  // The image tools are part of the program: `kite img`, `kite io`, `kite nbd`, or a link to it whose name ends so.
  std::string name = argc > 0 ? argv[0] : "kite";
  name.erase(0, name.rfind('/') + 1);
  static constexpr struct {
    const char* word;
    int (*run)(const std::string& program, const std::vector<std::string>& arguments);
  } kTools[] = {{"img", kite::img::run_img}, {"io", kite::img::run_io}, {"nbd", kite::main::run_nbd}};
  for (const auto& tool : kTools)
    if (name.ends_with(std::string("-") + tool.word)) return tool.run(name, arguments);
  for (const auto& tool : kTools) {
    if (arguments.empty() || arguments[0] != tool.word) continue;
    arguments.erase(arguments.begin());
    return tool.run(std::string("kite ") + tool.word, arguments);
  }
  if (!arguments.empty() && arguments[0] == kite::display::kSpiceProcessArgument) {
    // What clients could make of the library starts no programs, in any machine.
    if (const auto kept = kite::main::enter_sandbox({.elevate_privileges = true, .spawn = true}); !kept)
      kite::log::warn("SPICE: {}", kept.error().message);
    return kite::display::run_spice_process(kite::Fd(kite::display::kSpiceProcessLink));
  }
  return kite::main::run(arguments);
}
