/* Waits for message-signalled interrupts of vector 0x60, three times. */
#include "guest.inc"
  GATE 0x60, on_message
  LOAD_IDT
  FIND_APIC
  movl $0x1ff, APIC_REG(0xf0)
  movl $0, count
1:
  OUTB READY, 1
  sti
  hlt
  cli
  cmpb $3, count
  jb 1b
  OUTB RESULT, 0xee
  END
on_message:
  OUTB RESULT, 0x60
  incb count
  movl $0, APIC_REG(0xb0)
  IRET_
count: .long 0
