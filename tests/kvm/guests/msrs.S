/* MSRs that are not there fault; those of an x2APIC are there once it is on. */
#include "guest.inc"
  GATE 13, on_fault
  LOAD_IDT
  movl $0x12345, %ecx
  rdmsr
  movl $0x12345, %ecx
  xorl %eax, %eax
  xorl %edx, %edx
  wrmsr
  movl $0x1b, %ecx
  rdmsr
  orl $0xc00, %eax
  wrmsr                            /* x2APIC mode */
  movl $0x802, %ecx
  rdmsr                            /* the id */
  outb %al, $RESULT
  movl $0x80f, %ecx
  movl $0x1ff, %eax
  xorl %edx, %edx
  wrmsr
  movl $0x80f, %ecx
  rdmsr
  outw %ax, $RESULT
  movl $0x808, %ecx
  movl $0x30, %eax
  xorl %edx, %edx
  wrmsr                            /* TPR */
#if MODE == 64
  movq %cr8, %rax
  outb %al, $RESULT
#endif
  END
on_fault:
  OUTB RESULT, 0x0d
#if MODE == 32
  addl $4, SP
  addl $2, (SP)                    /* RDMSR and WRMSR have two bytes */
#else
  addq $8, SP
  addq $2, (SP)
#endif
  IRET_
