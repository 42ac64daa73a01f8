// ExtInt: the 8259 pair as a processor sees it. The interface is the accelerators' too: one with local APICs of its own
// takes the 8259's interrupts through it.
#pragma once

#include "accel/local_apic.h"

namespace kite::devices {

using ExtInt = kite::ExtInt;

}  // namespace kite::devices
