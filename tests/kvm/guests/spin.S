/* Never leaves by itself. */
#include "guest.inc"
  OUTB READY, 1
1:
  jmp 1b
