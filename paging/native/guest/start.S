/* Entry from the multiboot loader, own segments, and the interrupt entries. */
    .section .multiboot, "a"
    .align 4
    .long 0x1badb002            /* multiboot 1 magic */
    .long 0x00000002            /* flags: give us the memory size */
    .long -(0x1badb002 + 0x00000002)

    .text
    .global start
start:
    cli
    cld
    movl $stack_top, %esp
    lgdt gdt_pointer
    ljmp $0x08, $1f
1:  movw $0x10, %cx
    movw %cx, %ds
    movw %cx, %es
    movw %cx, %fs
    movw %cx, %gs
    movw %cx, %ss
    pushl %ebx                  /* the loader's information block */
    call guest_main
2:  cli
    hlt
    jmp 2b

    /* The timer only has to end a `hlt`. */
    .global timer_entry
timer_entry:
    pushl %eax
    movb $0x20, %al
    outb %al, $0x20
    popl %eax
    iret

    /* Nothing else is expected: say so and stand still. */
    .global trap_entry
trap_entry:
    call guest_trap
    jmp 2b

    .align 8
gdt:
    .quad 0
    .quad 0x00cf9a000000ffff    /* flat code */
    .quad 0x00cf92000000ffff    /* flat data */
gdt_pointer:
    .word . - gdt - 1
    .long gdt

    .bss
    .align 16
    .skip 16384
stack_top:
    .section .note.GNU-stack, "", @progbits
