// A multiboot kernel that writes one word of every page from 16 MiB to 80 MiB, another value in each round, without end.
.code32
.set MAGIC, 0x1badb002
.section .text
.align 4
  .long MAGIC, 0, -MAGIC

.globl _start
_start:
  cli
round:
  inc %eax
  mov $0x1000000, %edi
page:
  mov %eax, (%edi)
  add $0x1000, %edi
  cmp $0x5000000, %edi
  jb page
  jmp round
