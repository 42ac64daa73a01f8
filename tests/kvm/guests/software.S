/* Instructions that not every KVM executes: software interrupts, MOVBE's relatives, cache control. */
#include "guest.inc"
  GATE 3, on_breakpoint
  GATE 0x70, on_call
  LOAD_IDT
  int3
  int $0x70
  OUTB RESULT, 0x77
  END
on_breakpoint:
  OUTB RESULT, 3
  IRET_
on_call:
  OUTB RESULT, 0x70
  IRET_
