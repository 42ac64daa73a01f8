#include <cstdio>
#include <string>
#include <vector>

#include "display/spice/spice_process.h"
#include "img/tool.h"
#include "main/run.h"

int main(int argc, char** argv) {
  std::vector<std::string> arguments(argv + 1, argv + argc);
  // The image tools are part of the program: `kite img`, `kite io`, or a link to it whose name ends in -img or -io.
  std::string name = argc > 0 ? argv[0] : "kite";
  name.erase(0, name.rfind('/') + 1);
  if (name.ends_with("-img")) return kite::img::run_img(name, arguments);
  if (name.ends_with("-io")) return kite::img::run_io(name, arguments);
  if (!arguments.empty() && (arguments[0] == "img" || arguments[0] == "io")) {
    const bool img = arguments[0] == "img";
    arguments.erase(arguments.begin());
    return img ? kite::img::run_img("kite img", arguments) : kite::img::run_io("kite io", arguments);
  }
  if (!arguments.empty() && arguments[0] == kite::display::kSpiceProcessArgument)
    return kite::display::run_spice_process(kite::Fd(kite::display::kSpiceProcessLink));
  return kite::main::run(arguments);
}
