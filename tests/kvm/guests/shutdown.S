/* A triple fault. */
#include "guest.inc"
  OUTB RESULT, 1
  lidt nothing
  ud2
nothing:
  .word 0
  .quad 0
