// A boot sector that reads and writes the IDE disk it came from: primary channel, device 0, with interrupt 14 through the
// 8259s as firmware has left them. The byte at `way` says how: 1 PIO, two sectors at a time; 2 bus-master DMA, sixteen
// sectors through two regions that are not of a size. Sectors from 64 on, whose first word must be 0x6b697465, are
// read, their words increased by `way`, and the result is written to sector 96 (PIO) or 128 (DMA), eight times.
// Exits through isa-debug-exit at 0xf4: value 1 when all is well, else the number of the step that failed.
.code16
.set DATA, 0x1f0
.set COUNT, 0x1f2
.set STATUS, 0x1f7
.set CONTROL, 0x3f6
.set BUFFER, 0x9000
.set REST, 4                  // sectors of this guest after the first
.set SOURCE, 64
.set PIO_TARGET, 96
.set DMA_TARGET, 128
.macro fail_unless condition, step
  mov $\step, %bl
  j\condition 1f
  jmp exit
1:
.endm

.globl _start
_start:
  cli
  xor %ax, %ax
  mov %ax, %ds
  mov %ax, %es
  mov %ax, %ss
  mov $0x7c00, %sp
  ljmp $0, $normal
normal:
  cld
  sti
  mov $0x0200 + REST, %ax     // the firmware reads the rest: cylinder 0, head 0, from sector 2
  mov $2, %cx
  xor %dh, %dh
  mov $0x7e00, %bx
  int $0x13
  fail_unless nc, 2
  jmp main
exit:
  mov %bl, %al
  out %al, $0xf4
halt:
  hlt
  jmp halt

.org 509
way: .byte 0
  .word 0xaa55

main:
  cli
  movw $handler, 0x76 * 4
  movw $0, 0x76 * 4 + 2
  mov $CONTROL, %dx
  xor %al, %al
  out %al, (%dx)
  in $0xa1, %al               // inputs 14 and 2 open
  and $0xbf, %al
  out %al, $0xa1
  in $0x21, %al
  and $0xfb, %al
  out %al, $0x21
  mov $8, %bp
  cmpb $2, way
  je dma_rounds

pio_rounds:
  movl $SOURCE, lba
  movb $2, count
  mov $0x20, %al              // READ SECTORS
  call command
  mov $BUFFER, %di
  call pio_in
  call pio_in
  mov $256, %cx
  call increase
  movl $PIO_TARGET, lba
  mov $0x30, %al              // WRITE SECTORS
  call command
  mov $BUFFER, %si
wait_data:                    // the first sector comes without an interrupt
  mov $STATUS, %dx
  in (%dx), %al
  test $0x80, %al
  jnz wait_data
  call pio_out
  call pio_out
  cmpb $0x50, status
  fail_unless e, 7
  dec %bp
  jnz pio_rounds
done:
  mov $1, %bl
  jmp exit

dma_rounds:
  mov $0x80000908, %eax       // 00:01.1 is an IDE controller that masters the bus
  call config_address
  in (%dx), %eax
  shr $16, %eax
  cmp $0x0101, %ax
  fail_unless e, 8
  mov $0x80000904, %eax
  call config_address
  in (%dx), %ax
  or $5, %ax
  out %ax, (%dx)
  mov $0x80000920, %eax
  call config_address
  in (%dx), %eax
  and $0xfffc, %ax
  mov %ax, master
dma_round:
  movl $SOURCE, lba
  movb $16, count
  mov $0xc8, %al              // READ DMA
  mov $8, %bl
  call dma
  mov $2048, %cx
  call increase
  movl $DMA_TARGET, lba
  mov $0xca, %al              // WRITE DMA
  xor %bl, %bl
  call dma
  dec %bp
  jnz dma_round
  jmp done

// AL: the command, for `count` sectors at `lba`.
command:
  push %ax
  mov interrupts, %ax
  mov %ax, seen
  mov $STATUS, %dx
busy:
  in (%dx), %al
  test $0x88, %al
  jnz busy
  mov $COUNT, %dx
  mov count, %al
  out %al, (%dx)
  mov lba, %eax
  mov $3, %cx
address:
  inc %dx
  out %al, (%dx)
  shr $8, %eax
  loop address
  inc %dx
  or $0xe0, %al
  out %al, (%dx)
  inc %dx
  pop %ax
  out %al, (%dx)
  ret

// Waits for the next interrupt; its handler leaves the status register in `status`.
wait:
  cli
  mov interrupts, %ax
  cmp seen, %ax
  jne woken
  sti
  hlt
  jmp wait
woken:
  mov %ax, seen
  testb $0x21, status
  fail_unless z, 3
  ret

pio_in:
  call wait
  testb $8, status
  fail_unless nz, 4
  mov $DATA, %dx
  mov $64, %cx                // half of it in double words
  rep insl
  mov $128, %cx
  rep insw
  ret
pio_out:
  mov $DATA, %dx
  mov $64, %cx
  rep outsl
  mov $128, %cx
  rep outsw
  jmp wait

// AL: the command; BL: the direction bit of the bus master's command register.
dma:
  push %ax
  mov master, %dx
  mov %bl, %al
  out %al, (%dx)
  add $2, %dx
  mov $6, %al
  out %al, (%dx)
  add $2, %dx
  mov $regions, %eax
  out %eax, (%dx)
  pop %ax
  call command
  mov master, %dx
  mov %bl, %al
  or $1, %al
  out %al, (%dx)
  call wait
  mov master, %dx
  add $2, %dx
  in (%dx), %al
  and $7, %al
  cmp $4, %al
  fail_unless e, 5
  cmpb $0x50, status
  fail_unless e, 6
  mov master, %dx
  xor %al, %al
  out %al, (%dx)
  ret

// Adds `way` to CX words of four bytes.
increase:
  cmpl $0x6b697465, BUFFER
  fail_unless e, 9
  movzbl way, %eax
  mov $BUFFER, %di
next:
  add %eax, (%di)
  add $4, %di
  loop next
  ret

// EAX: the address of a configuration register; DX: where it can be accessed.
config_address:
  mov $0xcf8, %dx
  out %eax, (%dx)
  mov $0xcfc, %dx
  ret

handler:
  push %ax
  push %dx
  mov $STATUS, %dx
  in (%dx), %al
  mov %al, status
  incw interrupts
  mov $0x20, %al
  out %al, $0xa0
  out %al, $0x20
  pop %dx
  pop %ax
  iret

.align 8
regions:
  .long BUFFER
  .word 3072, 0
  .long BUFFER + 3072
  .word 5120, 0x8000
lba: .long 0
interrupts: .word 0
seen: .word 0
master: .word 0
count: .byte 0
status: .byte 0
.org 512 * (1 + REST)
