/* Port accesses of every width, and strings of them. */
#include "guest.inc"
  movw $RESULT, %dx
  movl $0x44332211, %eax
  outb %al, %dx
  outw %ax, %dx
  outl %eax, %dx
  movw $PATTERN, %dx
  xorl %eax, %eax
  inb %dx, %al
  movb %al, %bl
  inw %dx, %ax
  movw %ax, %cx
  inl %dx, %eax
  movw $RESULT, %dx
  outl %eax, %dx
  movw %cx, %ax
  outw %ax, %dx
  movb %bl, %al
  outb %al, %dx
  /* 5 bytes out of a string, 3 words in and out again. */
  cld
  movw $RESULT, %dx
#if MODE == 16
  movw $text, %si
  movw $5, %cx
#else
  movl $text, %esi
  movl $5, %ecx
#endif
  rep outsb
  movw $PATTERN, %dx
#if MODE == 16
  movw $buffer, %di
  movw $3, %cx
#else
  movl $buffer, %edi
  movl $3, %ecx
#endif
  rep insw
  movw $RESULT, %dx
#if MODE == 16
  movw $buffer, %si
  movw $3, %cx
#else
  movl $buffer, %esi
  movl $3, %ecx
#endif
  rep outsw
  END
text: .ascii "hello"
buffer: .zero 8
