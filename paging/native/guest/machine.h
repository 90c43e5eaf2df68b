/* The few pieces of PC hardware that the guest uses: serial port, interval timer, time stamp counter. */
#pragma once
#include <stdint.h>

static inline void out8(uint16_t port, uint8_t value) { __asm__ volatile("outb %0, %1" ::"a"(value), "Nd"(port)); }

static inline uint8_t in8(uint16_t port)
{
    uint8_t value;
    __asm__ volatile("inb %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static inline uint64_t ticks(void)
{
    uint32_t low, high;
    __asm__ volatile("rdtsc" : "=a"(low), "=d"(high)::"memory");
    return (uint64_t)high << 32 | low;
}

void machine_start(void);
uint32_t machine_khz(void);           /* time stamp counter ticks per millisecond */
void machine_idle(void);              /* sleep until the next timer tick, at most 1 ms */

int serial_read(void);                /* a byte, or -1 where there is none */
void serial_byte(char byte);
void serial_text(const char *text);
void serial_number(uint64_t number);
void serial_field(const char *name, uint64_t number);   /* " name=number" */
