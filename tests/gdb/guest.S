/* The guest that gdb_test.py debugs: 64-bit, entered as PVH says, with symbols. The first CPU counts rounds for ever; the
   second, where there is one, counts in real mode. Both loops run so often that they soon are translated code. */
.section .note.Xen, "a", @note
  .long 4, 4, 18                  /* XEN_ELFNOTE_PHYS32_ENTRY */
  .asciz "Xen"
  .long start32

.text
.code32
.globl start32
start32:
  cli
  movl $stack_end, %esp
  movl $page_directories + 3, %eax
  movl $pointers, %edi
  movl $4, %ecx
1:
  movl %eax, (%edi)
  addl $0x1000, %eax
  addl $8, %edi
  loop 1b
  movl $page_directories, %edi    /* 4 GiB in pages of 2 MiB, as they are */
  movl $0x83, %eax
  movl $2048, %ecx
1:
  movl %eax, (%edi)
  addl $0x200000, %eax
  addl $8, %edi
  loop 1b
  movl $pointers + 3, tables
  movl $tables, %eax
  movl %eax, %cr3
  movl $0x620, %eax               /* PAE, OSFXSR, OSXMMEXCPT */
  movl %eax, %cr4
  movl $0xc0000080, %ecx
  movl $0x100, %eax
  xorl %edx, %edx
  wrmsr
  movl %cr0, %eax
  orl $0x80000000, %eax
  movl %eax, %cr0
  lgdt table_pointer
  ljmp $8, $start64

.code64
.globl start64, main, round_begins, round_stores, round_ends, work, buffer, counter, second_counter, fill
start64:
  movl $16, %eax
  movl %eax, %ds
  movl %eax, %es
  movl %eax, %ss
  movl $stack_end, %esp
  movl $second, %esi
  movl $0x8000, %edi
  movl $second_end - second, %ecx
  rep movsb
  movl $0xfee00000, %ebp
  movl $0x1ff, 0xf0(%rbp)
  movl $0x000c4500, 0x300(%rbp)   /* INIT, to all others */
  movl $0x000c4608, 0x300(%rbp)   /* start-up at 0x8000 */
main:
  xorl %ebx, %ebx
  movabsq $0x1122334455667788, %r12
  movq %r12, %xmm1
round_begins:
  incq %rbx
  call work
round_stores:
  movq %rbx, counter
round_ends:
  jmp round_begins

work:
  movl $buffer, %edi
  movl $16, %ecx
  movb %bl, %al
fill:
  rep stosb
  ret

.code16
second:
  xorw %ax, %ax
  movw %ax, %ds
1:
  incl 0x9000
  jmp 1b
second_end:

.set second_counter, 0x9000

.data
.balign 8
table:
  .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff
table_pointer:
  .word . - table - 1
  .long table
.balign 8
counter: .quad 0
buffer: .fill 32

.bss
.balign 4096
tables: .skip 4096
pointers: .skip 4096
page_directories: .skip 4 * 4096
  .skip 4096
stack_end:
