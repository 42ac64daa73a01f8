/* The option ROM that starts a kernel given by -kernel when firmware runs first. A PC BIOS offers it as a boot entry
 * (PnP expansion header with a bootstrap entry vector [BBS 1.01] 5, [PNPBIOS 1.0A] 3.2); chosen, it takes the kernel from
 * fw_cfg by DMA and enters it:
 *   a Linux bzImage at its real-mode entry [boot.rst], with the initrd as high as the BIOS leaves room for it;
 *   what else -kernel takes in 32-bit protected mode, as a plan says that was worked out beforehand (option_rom.cc).
 * Assembled into the program's read-only data; option_rom.cc mends length and checksums.
 */
        .section .rodata.kite_kernel_rom, "a", @progbits
        .globl  kite_kernel_rom_begin
        .globl  kite_kernel_rom_end
        .hidden kite_kernel_rom_begin
        .hidden kite_kernel_rom_end
        .p2align 4
        .code16

        /* fw_cfg: ports and keys [FW_CFG] */
        .set    PORT_SELECT, 0x510
        .set    PORT_DATA, 0x511
        .set    PORT_DMA_HIGH, 0x514
        .set    PORT_DMA_LOW, 0x518
        .set    KEY_KERNEL_ADDRESS, 0x07
        .set    KEY_KERNEL_SIZE, 0x08
        .set    KEY_INITRD_SIZE, 0x0b
        .set    KEY_KERNEL_ENTRY, 0x10
        .set    KEY_KERNEL_DATA, 0x11
        .set    KEY_INITRD_DATA, 0x12
        .set    KEY_COMMAND_LINE_ADDRESS, 0x13
        .set    KEY_COMMAND_LINE_SIZE, 0x14
        .set    KEY_COMMAND_LINE_DATA, 0x15
        .set    KEY_SETUP_ADDRESS, 0x16
        .set    KEY_SETUP_SIZE, 0x17
        .set    KEY_SETUP_DATA, 0x18
        .set    DMA_SELECT_READ, 0x0a
        .set    DMA_READ, 0x02

        /* Offsets of Linux's setup header */
        .set    RAMDISK_IMAGE, 0x218
        .set    INITRD_ADDR_MAX, 0x22c

        /* Conventional memory that this code works in: nothing is loaded there. */
        .set    WORK_SEGMENT, 0x8000
        .set    STACK_TOP, 0xfff0
        .set    DATA_SELECTOR, 0x18
        .set    CODE_SELECTOR, 0x10

kite_kernel_rom_begin:
        .word   0xaa55
        .byte   0                               /* blocks of 512 bytes: mended */
        jmp     initialize
        .org    kite_kernel_rom_begin + 0x1a, 0
        .word   pnp_header - kite_kernel_rom_begin
pnp_header:
        .ascii  "$PnP"
        .byte   1, 2                            /* revision, length / 16 */
        .word   0                               /* no other header */
        .byte   0, 0                            /* reserved, checksum: mended */
        .long   0                               /* device id */
        .word   maker - kite_kernel_rom_begin
        .word   product - kite_kernel_rom_begin
        .byte   0, 0, 0                         /* device type: none */
        .byte   0x14                            /* an initial program load device, read-cacheable */
        .word   0, 0                            /* no connection vector, no disconnect vector */
        .word   boot - kite_kernel_rom_begin
        .word   0, 0                            /* reserved, no static resources */
maker:  .asciz  "Kite"
product:
        .asciz  "Kernel given by -kernel"

        .p2align 2
gdt:    .quad   0, 0
        .quad   0x00cf9b000000ffff              /* 0x10: code, 32 bits, flat */
        .quad   0x00cf93000000ffff              /* 0x18: data, flat */
gdt_end:

        /* Called once by the BIOS; there is nothing to set up. */
initialize:
        movw    $0x20, %ax                      /* an IPL device is attached */
        lretw

boot:
        cli
        cld
        movw    $WORK_SEGMENT, %ax
        movw    %ax, %ss
        movl    $STACK_TOP, %esp
        sti
        movw    $PORT_DMA_HIGH, %dx             /* every structure lies below 4 GiB */
        xorl    %eax, %eax
        outl    %eax, %dx
        movw    $KEY_KERNEL_ENTRY, %ax
        call    read_number
        testl   %eax, %eax
        jnz     start_protected

        /* ---- Linux ---- */
        movw    $KEY_COMMAND_LINE_ADDRESS, %ax
        movw    $KEY_COMMAND_LINE_SIZE, %bx
        movw    $KEY_COMMAND_LINE_DATA, %bp
        call    fetch
        movw    $KEY_SETUP_ADDRESS, %ax
        movw    $KEY_SETUP_SIZE, %bx
        movw    $KEY_SETUP_DATA, %bp
        call    fetch
        shrl    $4, %edi                        /* where fetch put it */
        movw    %di, %es
        movw    $KEY_KERNEL_ADDRESS, %ax
        movw    $KEY_KERNEL_SIZE, %bx
        movw    $KEY_KERNEL_DATA, %bp
        call    fetch

        movw    $KEY_INITRD_SIZE, %ax
        call    read_number
        testl   %eax, %eax
        jz      enter_linux
        movl    %eax, %esi                      /* bytes */
        call    top_of_memory
        movl    %es:INITRD_ADDR_MAX, %ebx       /* the last byte that it may have */
        incl    %ebx
        cmpl    %ebx, %eax
        jbe     1f
        movl    %ebx, %eax
1:      subl    %esi, %eax
        andl    $~0xfff, %eax
        movl    %eax, %es:RAMDISK_IMAGE
        movl    %eax, %edi
        movl    %esi, %ecx
        movl    $(KEY_INITRD_DATA << 16 | DMA_SELECT_READ), %eax
        call    dma

enter_linux:
        /* [boot.rst] "Running the kernel": segments at the setup code, the stack behind its heap, CS 0x20 above. */
        cli
        movw    %es, %ax
        movw    %ax, %ds
        movw    %ax, %fs
        movw    %ax, %gs
        movw    %ax, %ss
        movl    $0xfff0, %esp
        addw    $0x20, %ax
        pushw   %ax
        pushw   $0
        xorl    %eax, %eax
        xorl    %ebx, %ebx
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        xorl    %esi, %esi
        xorl    %edi, %edi
        xorl    %ebp, %ebp
        lretw

        /* ---- a plan: EAX, EBX, the number of ranges, then address and length of each; EAX here is the entry ---- */
start_protected:
        pushl   %eax
        movl    $(WORK_SEGMENT << 4), %edi
        movw    $KEY_SETUP_SIZE, %ax
        call    read_number
        movl    %eax, %ecx
        movl    $(KEY_SETUP_DATA << 16 | DMA_SELECT_READ), %eax
        call    dma
        movw    $PORT_SELECT, %dx
        movw    $KEY_KERNEL_DATA, %ax
        outw    %ax, %dx                        /* the ranges' bytes follow each other there */
        movw    %ss, %ax
        movw    %ax, %ds
        movw    $12, %bx
        movl    8, %esi
1:      testl   %esi, %esi
        jz      2f
        movl    (%bx), %edi
        movl    4(%bx), %ecx
        movl    $DMA_READ, %eax
        call    dma
        addw    $8, %bx
        decl    %esi
        jmp     1b
2:      popl    %edi                            /* entry */
        cli
        movl    0, %esi                         /* EAX and EBX of the kernel */
        movl    4, %ebx
        xorl    %eax, %eax                      /* the descriptor of the table above, on the stack */
        movw    %cs, %ax
        shll    $4, %eax
        addl    $(gdt - kite_kernel_rom_begin), %eax
        pushl   %eax
        pushw   $(gdt_end - gdt - 1)
        movw    %sp, %bp
        lgdtl   (%bp)
        movl    $((WORK_SEGMENT << 4) + STACK_TOP), %ecx
        movl    %cr0, %eax
        orb     $1, %al
        movl    %eax, %cr0
        movw    $DATA_SELECTOR, %ax
        movw    %ax, %ds
        movw    %ax, %es
        movw    %ax, %fs
        movw    %ax, %gs
        movw    %ax, %ss
        movl    %ecx, %esp
        pushl   $CODE_SELECTOR
        pushl   %edi
        movl    %esi, %eax
        lretl

        /* Reads the bytes of key BP to the address that key AX names; key BX is their number. EDI: the address. */
fetch:
        call    read_number
        movl    %eax, %edi
        movw    %bx, %ax
        call    read_number
        movl    %eax, %ecx
        movzwl  %bp, %eax
        shll    $16, %eax
        orl     $DMA_SELECT_READ, %eax
        /* fall through */

        /* EAX: control word, EDI: address, ECX: bytes. Keeps EBX, ESI, EDI, EBP. The structure is big-endian, on the
         * stack; its control word reads 0 once the transfer is over, or 1 when it failed. */
dma:
        testl   %ecx, %ecx
        jz      2f
        pushl   %ebp
        movl    %edi, %edx
        bswapl  %edx
        pushl   %edx
        pushl   $0                              /* the address is below 4 GiB */
        bswapl  %ecx
        pushl   %ecx
        bswapl  %eax
        pushl   %eax
        movw    %sp, %bp
        xorl    %eax, %eax
        movw    %ss, %ax
        shll    $4, %eax
        movzwl  %sp, %ecx
        addl    %ecx, %eax
        bswapl  %eax
        movw    $PORT_DMA_LOW, %dx
        outl    %eax, %dx
1:      movl    (%bp), %eax
        cmpl    $0x01000000, %eax
        je      failed
        testl   %eax, %eax
        jnz     1b
        addw    $16, %sp
        popl    %ebp
2:      retw

        /* The 32-bit number under key AX, in EAX. Changes DX and CL. */
read_number:
        movw    $PORT_SELECT, %dx
        outw    %ax, %dx
        incw    %dx
        movb    $4, %cl
1:      inb     %dx, %al
        rorl    $8, %eax                        /* the lowest byte comes first */
        decb    %cl
        jnz     1b
        retw

        /* The end of memory below 4 GiB that the BIOS leaves, in EAX: INT 15h, AX=E801h, counts KiB from 1 MiB to 16 MiB
         * and blocks of 64 KiB from there. Keeps ESI, EDI and ES. */
top_of_memory:
        pushw   %es
        pushl   %esi
        pushl   %edi
        xorl    %ecx, %ecx
        xorl    %edx, %edx
        movl    $0xe801, %eax
        int     $0x15
        jc      failed
        testw   %cx, %cx                        /* some answer in AX and BX alone */
        jz      1f
        movw    %cx, %ax
        movw    %dx, %bx
1:      testw   %bx, %bx
        jz      2f
        movzwl  %bx, %eax
        shll    $16, %eax
        addl    $0x1000000, %eax
        jmp     3f
2:      movzwl  %ax, %eax
        shll    $10, %eax
        addl    $0x100000, %eax
3:      popl    %edi
        popl    %esi
        popw    %es
        retw

failed:
        movw    $(failure - kite_kernel_rom_begin), %si
1:      movb    %cs:(%si), %al
        testb   %al, %al
        jz      2f
        movb    $0x0e, %ah                      /* INT 10h, AH=0Eh: write a character */
        movw    $7, %bx
        int     $0x10
        incw    %si
        jmp     1b
2:      int     $0x18                           /* this entry did not boot; the BIOS takes the next */
3:      hlt
        jmp     3b

failure:
        .asciz  "The kernel given by -kernel does not fit into memory.\r\n"
kite_kernel_rom_end:
        .section .note.GNU-stack, "", @progbits
