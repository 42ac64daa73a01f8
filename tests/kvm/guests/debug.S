/* Code for a debugger: no-operations and a store from 0x8800 on, then a breakpoint that is the guest's own. */
#include "guest.inc"
  GATE 3, on_breakpoint
  LOAD_IDT
  OUTB READY, 1
  jmp steps
.org 0x800
steps:
  nop
  nop
  nop
  movb $7, 0x5000
  nop
  int3
  OUTB RESULT, 0x66
  END
on_breakpoint:
  OUTB RESULT, 3
  IRET_
