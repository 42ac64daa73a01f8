/* Eight writes to a register of a device and eight to a port of another, and a read of each in between. */
#include "guest.inc"
  xorl %ebx, %ebx
1:
  movl %ebx, MMIO
  movb %bl, %al
  outb %al, $0x30
  incl %ebx
  cmpl $8, %ebx
  jb 1b
  movl MMIO + 4, %eax
  outb %al, $RESULT
  inb $0x31, %al
  outb %al, $RESULT
  END
