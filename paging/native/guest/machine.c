#include "machine.h"

enum {
    COM1 = 0x3f8,
    LINE_STATUS = COM1 + 5,
    RECEIVED = 1,
    TRANSMITTER_EMPTY = 0x20,
    PIT_0 = 0x40,
    PIT_2 = 0x42,
    PIT_COMMAND = 0x43,
    PIT_GATE = 0x61,
    PIT_HZ = 1193182,
    PIC_FIRST_VECTOR = 32,
};

extern char timer_entry[], trap_entry[];

static struct gate {
    uint16_t offset_low, selector;
    uint8_t zero, kind;
    uint16_t offset_high;
} __attribute__((packed)) gates[48];

static uint32_t khz;

static void set_gate(int vector, char *entry)
{
    uint32_t address = (uint32_t)entry;
    gates[vector] = (struct gate){address & 0xffff, 0x08, 0, 0x8e, address >> 16};
}

static void start_interrupts(void)
{
    for (int vector = 0; vector < 48; vector++)
        set_gate(vector, vector == PIC_FIRST_VECTOR ? timer_entry : trap_entry);
    struct { uint16_t limit; uint32_t base; } __attribute__((packed)) pointer = {sizeof gates - 1, (uint32_t)gates};
    __asm__ volatile("lidt %0" ::"m"(pointer));
    /* Both interrupt controllers to vectors 32-47, everything masked but the timer. */
    out8(0x20, 0x11), out8(0xa0, 0x11);
    out8(0x21, PIC_FIRST_VECTOR), out8(0xa1, PIC_FIRST_VECTOR + 8);
    out8(0x21, 4), out8(0xa1, 2);
    out8(0x21, 1), out8(0xa1, 1);
    out8(0x21, 0xfe), out8(0xa1, 0xff);
    out8(PIT_COMMAND, 0x34);
    out8(PIT_0, (PIT_HZ / 1000) & 0xff), out8(PIT_0, PIT_HZ / 1000 >> 8);
}

/* Timer channel 2 counts 10 ms down while the time stamp counter counts up; nothing is believed of the processor's name. */
static uint32_t calibrate_once(void)
{
    const uint32_t count = PIT_HZ / 100;
    out8(PIT_GATE, (in8(PIT_GATE) & ~2) | 1);
    out8(PIT_COMMAND, 0xb0);
    out8(PIT_2, count & 0xff), out8(PIT_2, count >> 8);
    uint64_t begin = ticks();
    while (!(in8(PIT_GATE) & 0x20))
        ;
    return (uint32_t)((ticks() - begin) / 10);
}

/* A host that takes the processor away meanwhile only makes a measurement longer: the shortest is right. */
static uint32_t calibrate(void)
{
    uint32_t shortest = calibrate_once();
    for (int i = 0; i < 7; i++) {
        uint32_t once = calibrate_once();
        shortest = once < shortest ? once : shortest;
    }
    return shortest;
}

void machine_start(void)
{
    out8(COM1 + 1, 0);                     /* polled, no interrupts */
    out8(COM1 + 3, 0x80);                  /* divisor: 115200 baud, which an emulated line does not care for */
    out8(COM1, 1), out8(COM1 + 1, 0);
    out8(COM1 + 3, 3);
    out8(COM1 + 2, 7);                     /* queues on and empty */
    khz = calibrate();
    start_interrupts();
}

uint32_t machine_khz(void) { return khz; }

void machine_idle(void) { __asm__ volatile("sti; hlt; cli" ::: "memory"); }

int serial_read(void) { return in8(LINE_STATUS) & RECEIVED ? in8(COM1) : -1; }

void serial_byte(char byte)
{
    while (!(in8(LINE_STATUS) & TRANSMITTER_EMPTY))
        ;
    out8(COM1, (uint8_t)byte);
}

void serial_text(const char *text)
{
    while (*text)
        serial_byte(*text++);
}

void serial_number(uint64_t number)
{
    char digits[20];
    int length = 0;
    do
        digits[length++] = (char)('0' + number % 10);
    while (number /= 10);
    while (length)
        serial_byte(digits[--length]);
}

void serial_field(const char *name, uint64_t number)
{
    serial_byte(' ');
    serial_text(name);
    serial_byte('=');
    serial_number(number);
}
