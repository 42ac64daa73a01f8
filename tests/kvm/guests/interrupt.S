/* Waits in HLT for input 5 of the 8259, twice. */
#include "guest.inc"
  GATE 0x25, on_interrupt
  LOAD_IDT
  OPEN_PIC
  OUTB READY, 1
  sti
  hlt
  cli
  OUTB RESULT, 0x51
  OUTB READY, 2
  sti
  hlt
  cli
  OUTB RESULT, 0x52
  END
on_interrupt:
  OUTB RESULT, 0x25
  OUTB 0x20, 0x20
  IRET_
