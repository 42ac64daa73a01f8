// A multiboot kernel that writes a line with a number one higher than the last to COM1, at every tenth tick of the 8254,
// and sleeps in between. The number is kept in memory, in a register of the vector unit and in a page of its own for
// each of 256; when they differ, the line is "bad".
.code32
.set MAGIC, 0x1badb002
.set COM1, 0x3f8
.set PAGES, 0x400000
.section .text
.align 4
  .long MAGIC, 0, -MAGIC

.globl _start
_start:
  cli
  mov $stack, %esp
  lgdt gdt_pointer
  ljmp $8, $1f
1:
  mov $16, %eax
  mov %eax, %ds
  mov %eax, %es
  mov %eax, %ss
  mov %cr0, %eax  // SSE: EM off, MP on
  and $~4, %eax
  or $2, %eax
  mov %eax, %cr0
  mov %cr4, %eax
  or $0x600, %eax
  mov %eax, %cr4
  // Interrupts 0x20 and on from the 8259; only the timer's comes through.
  mov $0x11, %al
  out %al, $0x20
  mov $0x20, %al
  out %al, $0x21
  mov $4, %al
  out %al, $0x21
  mov $1, %al
  out %al, $0x21
  mov $0xfe, %al
  out %al, $0x21
  mov $0xff, %al
  out %al, $0xa1
  mov $tick, %eax
  mov %ax, idt + 0x20 * 8
  movw $8, idt + 0x20 * 8 + 2
  movw $0x8e00, idt + 0x20 * 8 + 4
  shr $16, %eax
  mov %ax, idt + 0x20 * 8 + 6
  lidt idt_pointer
  mov $0x34, %al  // counter 0, mode 2, every 11932 ticks: 100 Hz
  out %al, $0x43
  mov $0x9c, %al
  out %al, $0x40
  mov $0x2e, %al
  out %al, $0x40
  pxor %xmm3, %xmm3
  sti
sleep:
  hlt
  cmpl $10, ticks
  jb sleep
  movl $0, ticks
  call count
  jmp sleep

tick:
  push %eax
  incl ticks
  mov $0x20, %al
  out %al, $0x20
  pop %eax
  iret

// One more, everywhere; then says it.
count:
  mov number, %eax
  movd %xmm3, %ebx
  cmp %eax, %ebx
  jne bad
  mov %eax, %edi
  and $255, %edi
  shl $12, %edi
  mov PAGES(%edi), %ecx
  cmp $256, %eax
  jb fresh
  lea -256(%eax), %edx
  cmp %edx, %ecx
  jne bad
fresh:
  mov %eax, PAGES(%edi)
  inc %eax
  mov %eax, number
  movd %eax, %xmm3
  mov $text_end, %edi
  mov $10, %ebx
digit:
  xor %edx, %edx
  div %ebx
  add $'0', %dl
  dec %edi
  mov %dl, (%edi)
  test %eax, %eax
  jnz digit
  mov %edi, %esi
say:
  mov $COM1 + 5, %dx
  in %dx, %al
  test $0x20, %al
  jz say
  lodsb
  mov $COM1, %dx
  out %al, %dx
  cmp $'\n', %al
  jne say
  ret
bad:
  mov $bad_text, %esi
  jmp say

.data
.align 8
gdt:
  .quad 0, 0x00cf9b000000ffff, 0x00cf93000000ffff
gdt_pointer:
  .word 23
  .long gdt
idt_pointer:
  .word 0x21 * 8 - 1
  .long idt
number: .long 0
ticks: .long 0
bad_text: .ascii "bad\n"
text: .fill 12
text_end: .ascii "\n"
.bss
.align 8
idt: .skip 0x21 * 8
.align 16
.skip 4096
stack:
