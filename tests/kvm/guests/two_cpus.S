/* Starts the second processor by INIT and SIPI through its own local APIC, then interrupts it. */
#include "guest.inc"
  GATE 0x40, on_interrupt
  LOAD_IDT
  FIND_APIC
  movl $0x1ff, APIC_REG(0xf0)
  movl $0x01000000, APIC_REG(0x310)
  movl $0x00004500, APIC_REG(0x300)   /* INIT */
  movl $0x00004609, APIC_REG(0x300)   /* start-up at 0x9000 */
1:
  cmpb $1, started
  jne 1b
  OUTB RESULT, 1
  movl $0x01000000, APIC_REG(0x310)
  movl $0x00004040, APIC_REG(0x300)   /* vector 0x40 */
2:
  cmpb $2, started
  jne 2b
  OUTB RESULT, 2
  END
on_interrupt:
  OUTB RESULT, 0x40
  movl $0, APIC_REG(0xb0)
  movb $2, started
  IRET_
started: .byte 0
.org 0x1000
.code16
second:
  cli
  xorw %ax, %ax
  movw %ax, %ds
  movw %ax, %ss
  movw $0x6000, %sp
  movw $on_interrupt_16, 0x40 * 4
  movw $0, 0x40 * 4 + 2
  lidtl idt_pointer_16
  lgdtl gdt_pointer
  /* The register page of the local APIC is out of real mode's reach: big segments ("unreal mode"). */
  movl %cr0, %eax
  orb $1, %al
  movl %eax, %cr0
  movw $16, %bx
  movw %bx, %es
  andb $0xfe, %al
  movl %eax, %cr0
  movl $0xfee000f0, %edi
  movl $0x1ff, %es:(%edi)
  OUTB RESULT, 0x99
  movb $1, started
  sti
1:
  hlt
  jmp 1b
on_interrupt_16:
  OUTB RESULT, 0x41
  movl $0xfee000b0, %edi
  movl $0, %es:(%edi)
  movb $2, started
  iretw
.balign 4
idt_pointer_16:
  .word 0x3ff
  .long 0
