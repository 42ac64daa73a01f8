/* Inputs 10 (level-triggered, vector 0x50) and 11 (edge-triggered, vector 0x51) of the IOAPIC. */
#include "guest.inc"
#define IOAPIC 0xfec00000
#if MODE == 64
#define INDIRECT(name) (%r##name)
#else
#define INDIRECT(name) (%e##name)
#endif
.macro ENTRY pin, low
  movl $IOAPIC, %esi
  movl $IOAPIC + 0x10, %edi
  movl $(0x10 + 2 * \pin + 1), INDIRECT(si)
  movl $0, INDIRECT(di)
  movl $(0x10 + 2 * \pin), INDIRECT(si)
  movl $\low, INDIRECT(di)
.endm
  GATE 0x50, on_level
  GATE 0x51, on_edge
  LOAD_IDT
  FIND_APIC
  movl $0x1ff, APIC_REG(0xf0)
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
  movl $0, APIC_REG(0xb0)
  IRET_
on_edge:
  OUTB RESULT, 0x51
  incb seen
  movl $0, APIC_REG(0xb0)
  IRET_
seen: .byte 0
