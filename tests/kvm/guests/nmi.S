/* Waits in a loop, and then in HLT with interrupts off, for NMIs. */
#include "guest.inc"
  GATE 2, on_nmi
  LOAD_IDT
  OUTB READY, 1
1:
  cmpb $1, flag
  jne 1b
  OUTB READY, 2
2:
  cmpb $2, flag
  je 3f
  hlt
  jmp 2b
3:
  OUTB RESULT, 0x77
  END
on_nmi:
  OUTB RESULT, 2
  incb flag
  IRET_
flag: .byte 0
