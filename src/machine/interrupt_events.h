// The two makers of InterruptEvents: over an accelerator's interrupt hardware, where the kernel listens to the eventfd;
// and over the board's, where an executor does.
#pragma once

#include <functional>
#include <memory>

#include "accel/irq_chip.h"
#include "async/executor.h"
#include "bus/interrupt_event.h"
#include "bus/irq_line.h"
#include "bus/msi.h"

namespace kite::machine {

// `messages` and `lines` are the board's, where messages and global system interrupts go; `chip` may be null. All
// outlive what this makes.
std::unique_ptr<bus::InterruptEvents> make_interrupt_events(Executor& executor, bus::MsiSink& messages,
                                                            bus::IrqSink& lines, IrqChip* chip);

}  // namespace kite::machine
