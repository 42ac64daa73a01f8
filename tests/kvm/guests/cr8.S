/* CR8 and the task-priority register of the local APIC are the same thing; a priority holds interrupts back. */
#include "guest.inc"
  GATE 0x60, on_message
  LOAD_IDT
  FIND_APIC
  movl $0x1ff, APIC_REG(0xf0)
  movl $9, %eax
  movq %rax, %cr8
  movl APIC_REG(0x80), %eax
  outb %al, $RESULT                /* 0x90 */
  movl $0x50, APIC_REG(0x80)
  movq %cr8, %rax
  outb %al, $RESULT                /* 5 */
  movl $7, %eax
  movq %rax, %cr8
  sti
  OUTB READY, 1                    /* a message of vector 0x60 comes, and waits */
  OUTB RESULT, 1
  xorl %eax, %eax
  movq %rax, %cr8
  movl $100000, %ecx
1:
  decl %ecx
  jnz 1b
  OUTB RESULT, 2
  END
on_message:
  OUTB RESULT, 0x60
  movl $0, APIC_REG(0xb0)
  IRET_
