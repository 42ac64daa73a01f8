/* Writes one byte in each of the pages 0x40, 0x42, ... 0x7e of memory, each time that it is told to. */
#include "guest.inc"
1:
  OUTB READY, 1
  movl $0x40000, %edi
2:
  movb $1, (%edi)
  addl $0x2000, %edi
  cmpl $0x80000, %edi
  jb 2b
  incb rounds
  cmpb $2, rounds
  jb 1b
  END
rounds: .byte 0
