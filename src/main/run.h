// The program: command line in, exit status out.
#pragma once

#include <string>
#include <vector>

namespace kite::main {

int run(const std::vector<std::string>& arguments);

}  // namespace kite::main
