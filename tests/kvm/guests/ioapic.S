/* Inputs 10 (level-triggered, vector 0x50) and 11 (edge-triggered, vector 0x51) of the IOAPIC. */
#include "guest.inc"
#define IOAPIC 0xfec00000
.macro ENTRY pin, low
  movl $(0x10 + 2 * \pin + 1), IOAPIC
  movl $0, IOAPIC + 0x10
  movl $(0x10 + 2 * \pin), IOAPIC
  movl $\low, IOAPIC + 0x10
.endm
  GATE 0x50, on_level
  GATE 0x51, on_edge
  LOAD_IDT
  movl $0x1ff, APIC + 0xf0
  ENTRY 10, 0x8050
  ENTRY 11, 0x0051
  OUTB READY, 1
  sti
1:
  cmpb $3, seen
  jb 1b
  cli
  OUTB RESULT, 0xee
  END
on_level:
  OUTB RESULT, 0x50
  OUTB READY, 2                    /* the test lowers the line, or leaves it up */
  incb seen
  movl $0, APIC + 0xb0
  IRET_
on_edge:
  OUTB RESULT, 0x51
  incb seen
  movl $0, APIC + 0xb0
  IRET_
seen: .byte 0
