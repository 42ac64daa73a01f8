// The terminal that the process was started on: raw while a guest has it, put back on every way out.
#pragma once

#include "chardev/chardev.h"
#include "support/result.h"

namespace kite {

// Hands every key to the reader of `fd`: no echo, no line editing; with `signals`, Ctrl-C, Ctrl-Z and Ctrl-\ still make
// signals. Does nothing when `fd` is no terminal. One terminal at a time; a second call for the same one changes its
// mode. From here on restore_terminal() runs at exit, on signals that end the process and while it is stopped by Ctrl-Z
// (signals that somebody else handles or blocks are left alone).
Result<> make_terminal_raw(int fd, bool signals);

}  // namespace kite
