/* Says which hypervisor it sees. */
#include "guest.inc"
  movl $0x40000000, %eax
  cpuid
  movl %ebx, %eax
  outl %eax, $RESULT
  movl %ecx, %eax
  outl %eax, $RESULT
  movl %edx, %eax
  outl %eax, $RESULT
  movl $0x40000001, %eax
  cpuid
  outl %eax, $RESULT
  END
