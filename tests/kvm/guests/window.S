/* An interrupt is pending while interrupts are off; it comes when they are switched on, and neither earlier nor later. */
#include "guest.inc"
  GATE 0x25, on_interrupt
  LOAD_IDT
  OPEN_PIC
  OUTB READY, 1
  OUTB RESULT, 1
  OUTB RESULT, 2
  sti
  movl $100000, %ecx
1:
  decl %ecx
  jnz 1b
  cli
  OUTB RESULT, 3
  END
on_interrupt:
  OUTB RESULT, 0x25
  OUTB 0x20, 0x20
  IRET_
