// A multiboot kernel that reads and writes a virtio-blk disk through the legacy interface, with MSI-X interrupts.
// It reads sector 0, whose first word must be 0x6b697465, and writes the sector's words plus one to sector 1, sixteen
// times. Exits through isa-debug-exit at 0xf4: value 1 when all is well, else the number of the step that failed.
// The legacy ring lies at `ring`: 256 descriptors, the available ring 4096 bytes on, the used ring 8192 bytes on.
.code32
.set MAGIC, 0x1badb002
.section .text
.align 4
  .long MAGIC, 0, -MAGIC
.macro fail_unless condition, step
  mov $\step, %bl
  j\condition 1f
  jmp exit
1:
.endm

.globl _start
_start:
  cli
  mov $stack, %esp
  // The function: 1af4:1001 on bus 0; EBP is its configuration address.
  mov $0x80000000, %ebp
find:
  mov %ebp, %eax
  call config_read
  cmp $0x10011af4, %eax
  je found
  add $0x800, %ebp
  cmp $0x80010000, %ebp
  jb find
  mov $2, %bl
  jmp exit
found:
  lea 4(%ebp), %eax
  mov $0x407, %ecx            // ports, memory, bus master, no INTx
  call config_write
  lea 0x10(%ebp), %eax
  call config_read
  and $~3, %eax
  mov %eax, ports
  lea 0x14(%ebp), %eax
  call config_read
  and $~15, %eax
  mov %eax, %edi              // the MSI-X table: vector 0 sends interrupt 0x40
  movl $0xfee00000, (%edi)
  movl $0, 4(%edi)
  movl $0x40, 8(%edi)
  movl $0, 12(%edi)
  lea 0x98(%ebp), %eax        // MSI-X on
  mov $0x80000011, %ecx
  call config_write

  // Interrupt 0x40, and the local APIC.
  mov $handler, %eax
  mov %ax, idt + 0x40 * 8
  mov %cs, idt + 0x40 * 8 + 2
  movw $0x8e00, idt + 0x40 * 8 + 4
  shr $16, %eax
  mov %ax, idt + 0x40 * 8 + 6
  lidt idt_pointer
  movl $0x1ff, 0xfee000f0

  // Legacy set-up: reset, acknowledge and driver, no features, the queue's page and vector, ready.
  mov $18, %ecx
  xor %eax, %eax
  call out8
  mov $3, %eax
  call out8
  mov $14, %ecx
  xor %eax, %eax
  call out16
  mov $22, %ecx
  call out16
  mov ports, %edx
  add $12, %edx
  in (%dx), %ax
  cmp $256, %ax
  fail_unless e, 3
  mov ports, %edx
  add $8, %edx
  mov $ring, %eax
  shr $12, %eax
  out %eax, (%dx)
  mov $18, %ecx
  mov $7, %eax
  call out8

  mov $16, %esi
again:
  movl $0, header             // read sector 0
  movl $0, header + 8
  movw $3, ring + 16 + 12
  call request
  cmpl $0x6b697465, data
  fail_unless e, 5
  mov $128, %ecx
increase:
  incl data - 4(, %ecx, 4)
  loop increase
  movl $1, header             // write sector 1
  movl $1, header + 8
  movw $1, ring + 16 + 12
  call request
  dec %esi
  jnz again
  mov $1, %bl
exit:
  mov %bl, %al
  out %al, $0xf4
halt:
  hlt
  jmp halt

// Makes the request of `header` available and waits for its interrupt.
request:
  movb $0xff, status
  movl $header, ring
  movl $16, ring + 8
  movw $1, ring + 12
  movw $1, ring + 14
  movl $data, ring + 16
  movl $512, ring + 16 + 8
  movw $2, ring + 16 + 14
  movl $status, ring + 32
  movl $1, ring + 32 + 8
  movw $2, ring + 32 + 12
  mov interrupts, %edi
  movzwl ring + 4096 + 2, %eax
  mov %eax, %ecx
  and $255, %ecx
  movw $0, ring + 4096 + 4(, %ecx, 2)
  inc %eax
  mov %ax, ring + 4096 + 2
  mov $16, %ecx
  push %eax
  xor %eax, %eax
  call out16
  pop %eax
wait:
  cli
  cmp interrupts, %edi
  jne woken
  sti
  hlt
  jmp wait
woken:
  cmp %ax, ring + 8192 + 2
  fail_unless e, 4
  cmpb $0, status
  fail_unless e, 6
  ret

handler:
  incl interrupts
  movl $0, 0xfee000b0
  iret

// EAX: the address of a configuration register; ECX: the value.
config_read:
  mov $0xcf8, %dx
  out %eax, (%dx)
  mov $0xcfc, %dx
  in (%dx), %eax
  ret
config_write:
  mov $0xcf8, %dx
  out %eax, (%dx)
  mov $0xcfc, %dx
  mov %ecx, %eax
  out %eax, (%dx)
  ret
// AL or AX to register CX of the function's ports.
out8:
  mov ports, %edx
  add %ecx, %edx
  out %al, (%dx)
  ret
out16:
  mov ports, %edx
  add %ecx, %edx
  out %ax, (%dx)
  ret

.align 8
idt_pointer:
  .word 0x41 * 8 - 1
  .long idt
ports: .long 0
interrupts: .long 0
.align 16
header: .long 0, 0, 0, 0
idt: .skip 0x41 * 8
.align 512
data: .skip 512
status: .skip 16
  .skip 2048
stack:
.align 4096
ring: .skip 12288
