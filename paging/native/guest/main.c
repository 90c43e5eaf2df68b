/* The test guest: fills its memory with a pattern, keeps rewriting and checking it, and answers on the serial line.
 *
 * Kernel command line, all numbers decimal:
 *   fill=PAGES hot=PAGES writes=PER_S checks=PER_S seed=N
 * Every message stands on a line of its own; between them the guest sends '.' as a sign of life (every 10 ms while it
 * runs, every 256 pages while it fills or verifies). Said unasked: "ready", "filled". Asked:
 *   verify            -> verified pages= bad= bad_first= bad_ever= rewritten= checked=
 *   rate WRITES CHECKS-> rate writes= checks=
 *   touch PAGES       -> touched pages= khz= histogram= then pairs TICKS:COUNT of first touches of random pages
 *   counters          -> counters rewritten= checked= bad= */
#include "machine.h"
#include "pattern.h"

struct multiboot {
    uint32_t flags, memory_lower_kib, memory_upper_kib, boot_device, command_line;
};

enum { BEAT_MS = 10, BUCKETS = 512, BUCKETS_PER_OCTAVE = 16, LINE_BYTES = 64 };

static struct pattern pattern;
static uint32_t writes_per_s, checks_per_s, random_state;
static uint32_t histogram[BUCKETS];
static char line[LINE_BYTES];
static unsigned line_length;

static void beat(void) { serial_byte('.'); }

static uint32_t random_below(uint32_t limit)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    return (uint32_t)((uint64_t)random_state * limit >> 32);
}

/* The number after `key` in `text`, or `otherwise`. A key stands at the beginning or after a space. */
static uint32_t number_after(const char *text, const char *key, uint32_t otherwise)
{
    for (const char *at = text; *at; at++) {
        if (at != text && at[-1] != ' ')
            continue;
        const char *given = at, *wanted = key;
        while (*wanted && *given == *wanted)
            given++, wanted++;
        if (*wanted)
            continue;
        uint32_t number = 0;
        while (*given >= '0' && *given <= '9')
            number = number * 10 + (uint32_t)(*given++ - '0');
        return number;
    }
    return otherwise;
}

static void say_verified(void)
{
    uint32_t bad = pattern_verify(&pattern, beat);
    serial_text("\nverified");
    serial_field("pages", pattern.pages);
    serial_field("bad", bad);
    serial_field("bad_first", pattern.bad_first);
    serial_field("bad_ever", pattern.bad);
    serial_field("rewritten", pattern.rewritten);
    serial_field("checked", pattern.checked);
    serial_byte('\n');
}

/* Log-linear: sixteen buckets between a power of two and the next, so a bucket is at most 6 % wide. */
static unsigned bucket_of(uint32_t duration)
{
    unsigned octave = 31 - (unsigned)__builtin_clz(duration | 16);
    return (octave - 4) * BUCKETS_PER_OCTAVE + (duration >> (octave - 4)) % BUCKETS_PER_OCTAVE;
}

static uint32_t bucket_floor(unsigned bucket)
{
    return (uint32_t)(BUCKETS_PER_OCTAVE + bucket % BUCKETS_PER_OCTAVE) << bucket / BUCKETS_PER_OCTAVE;
}

static void touch_random_pages(uint32_t count)
{
    for (unsigned i = 0; i < BUCKETS; i++)
        histogram[i] = 0;
    for (uint32_t i = 0; i < count && pattern.pages; i++) {
        volatile uint32_t *word = pattern_word(random_below(pattern.pages));
        uint64_t begin = ticks();
        (void)*word;
        uint64_t duration = ticks() - begin;
        histogram[bucket_of(duration > 0xffffffff ? 0xffffffff : (uint32_t)duration)]++;
    }
    serial_text("\ntouched");
    serial_field("pages", count);
    serial_field("khz", machine_khz());
    serial_text(" histogram=");
    for (unsigned i = 0; i < BUCKETS; i++)
        if (histogram[i])
            serial_number(bucket_floor(i)), serial_byte(':'), serial_number(histogram[i]), serial_byte(',');
    serial_byte('\n');
}

static void say_counters(void)
{
    serial_text("\ncounters");
    serial_field("rewritten", pattern.rewritten);
    serial_field("checked", pattern.checked);
    serial_field("bad", pattern.bad);
    serial_byte('\n');
}

static void set_rates(const char *arguments)
{
    writes_per_s = number_after(arguments, "", 0);
    while (*arguments && *arguments != ' ')
        arguments++;
    checks_per_s = *arguments ? number_after(arguments + 1, "", 0) : 0;
    serial_text("\nrate");
    serial_field("writes", writes_per_s);
    serial_field("checks", checks_per_s);
    serial_byte('\n');
}

static void obey(const char *command)
{
    switch (command[0]) {
    case 'v': say_verified(); break;
    case 'r': set_rates(command + sizeof "rate"); break;
    case 't': touch_random_pages(number_after(command + sizeof "touch", "", 0)); break;
    case 'c': say_counters(); break;
    default: serial_text("\nunknown command\n");
    }
}

static void poll_commands(void)
{
    for (int byte; (byte = serial_read()) >= 0;) {
        if (byte != '\n') {
            if (line_length < LINE_BYTES - 1)
                line[line_length++] = (char)byte;
            continue;
        }
        line[line_length] = 0;
        line_length = 0;
        obey(line);
    }
}

/* How many actions of a rate are due; a machine that stood still does not make up for what it missed. */
static uint32_t due(uint64_t *next, uint32_t per_s, uint64_t now)
{
    if (!per_s)
        return 0;
    uint64_t interval = (uint64_t)machine_khz() * 1000 / per_s + 1;
    if (now < *next && *next - now < 2 * interval)
        return 0;
    if (now - *next > (uint64_t)machine_khz() * 50)
        *next = now;
    uint32_t count = (uint32_t)((now - *next) / interval) + 1;
    *next += count * interval;
    return count;
}

static void run(void)
{
    uint64_t next_write = ticks(), next_check = next_write, next_beat = next_write;
    for (;;) {
        uint64_t now = ticks();
        if (due(&next_beat, 1000 / BEAT_MS, now))
            beat();
        for (uint32_t count = due(&next_write, writes_per_s, now); count && pattern.hot; count--)
            pattern_rewrite(&pattern, random_below(pattern.hot));
        for (uint32_t count = due(&next_check, checks_per_s, now); count && pattern.hot; count--)
            pattern_check(&pattern, random_below(pattern.hot));
        poll_commands();
        machine_idle();
    }
}

void guest_trap(void) { serial_text("\ntrapped\n"); }

void guest_main(const struct multiboot *boot)
{
    const char *options = (const char *)boot->command_line;
    uint32_t room = (boot->memory_upper_kib - (PATTERN_AT / 1024 - 1024)) / 4;
    pattern.pages = number_after(options, "fill=", 0);
    if (pattern.pages > room)
        pattern.pages = room;
    pattern.hot = number_after(options, "hot=", pattern.pages);
    if (!pattern.hot || pattern.hot > pattern.pages)
        pattern.hot = pattern.pages;
    writes_per_s = number_after(options, "writes=", 0);
    checks_per_s = number_after(options, "checks=", 0);
    pattern.seed = number_after(options, "seed=", 1);
    random_state = pattern.seed * 2654435761u | 1;
    machine_start();
    serial_text("\nready");
    serial_field("pages", pattern.pages);
    serial_field("khz", machine_khz());
    serial_byte('\n');
    pattern_fill(&pattern, beat);
    serial_text("\nfilled");
    serial_field("pages", pattern.pages);
    serial_byte('\n');
    run();
}
