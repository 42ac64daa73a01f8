// `kite nbd`: serves one image to NBD clients, with the options that qemu-nbd has.
#pragma once

#include <string>
#include <vector>

namespace kite::main {

// `program` is the name in messages. Answers the exit status.
int run_nbd(const std::string& program, const std::vector<std::string>& arguments);

}  // namespace kite::main
