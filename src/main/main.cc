#include <cstdio>
#include <string>
#include <vector>

#include "main/run.h"

int main(int argc, char** argv) { return kite::main::run(std::vector<std::string>(argv + 1, argv + argc)); }
