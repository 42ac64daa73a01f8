// Runs streams on the interpreter: a long-mode machine whose user half holds a stream's pages and nothing else, and
// whose kernel, tables and stack are in the upper half.
#pragma once

#include <memory>

#include "streams/snapshot.h"

namespace kite::streams {

// How the interpreter is made to go through a stream; all must come out the same.
enum class Pace : uint8_t {
  kFresh,    // code that it has not seen
  kAgain,    // the stream that it ran last, from blocks decoded and bound then
  kStepped,  // one instruction at a time
};

enum class Engine : uint8_t {
  kInterpreter,
  kJit,        // everything that can be is translated to host code before it is first entered
  kJitRanges,  // the same with ranges and windows; the TLB is kept when a stream runs again
  kJitJudged,  // the same, and what runs again has its places judged first
};

class GuestRunner {
 public:
  explicit GuestRunner(Engine engine);
  ~GuestRunner();
  // False when the CPU did something else than take one exception; `trouble` then says what.
  bool run(const World& world, Pace pace, Outcome& outcome, std::string& trouble);
  // Blocks translated so far.
  [[nodiscard]] uint64_t translated_blocks() const;

 private:
  class Machine;
  std::unique_ptr<Machine> machine_;
};

}  // namespace kite::streams
