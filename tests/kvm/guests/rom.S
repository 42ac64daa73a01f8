/* Writes to ROM are dropped; memory that the test moves away is not there any more. */
#include "guest.inc"
  movb 0xe0000, %al
  outb %al, $RESULT
  movb $0x11, 0xe0000
  movb 0xe0000, %al
  outb %al, $RESULT
  movb $0x22, 0x90000
  OUTB READY, 1                    /* 0x90000 becomes a device's */
  movb 0x90000, %al
  outb %al, $RESULT
  OUTB READY, 2                    /* and memory again */
  movb 0x90000, %al
  outb %al, $RESULT
  END
