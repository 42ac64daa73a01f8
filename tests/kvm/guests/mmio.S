/* Accesses to a device's memory: every width, unaligned, read-modify-write, strings. */
#include "guest.inc"
#if MODE == 16
  movw $0xd000, %ax
  movw %ax, %es
#define AT(offset) %es:offset
#else
#define AT(offset) MMIO + offset
#endif
  movl $0x88776655, %eax
  movb %al, AT(0x10)
  movw %ax, AT(0x20)
  movl %eax, AT(0x30)
  movl %eax, AT(0x43)
  movb AT(0x51), %al
  outb %al, $RESULT
  movw AT(0x52), %ax
  outw %ax, $RESULT
  movl AT(0x54), %eax
  outl %eax, $RESULT
#if MODE == 64
  movq AT(0x58), %rax
  outl %eax, $RESULT
  movq %rax, AT(0x60)
#endif
  orl $0x80, AT(0x70)
  cld
#if MODE == 16
  movw $0x80, %di
  movw $4, %cx
#else
  movl $MMIO + 0x80, %edi
  movl $4, %ecx
#endif
  movb $0xa5, %al
  rep stosb
  END
