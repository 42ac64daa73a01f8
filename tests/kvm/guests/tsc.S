/* Shows the time-stamp counter, before and after the machine stood still. */
#include "guest.inc"
  rdtsc
  outl %eax, $RESULT
  movl %edx, %eax
  outl %eax, $RESULT
  OUTB READY, 1
  rdtsc
  outl %eax, $RESULT
  movl %edx, %eax
  outl %eax, $RESULT
  END
