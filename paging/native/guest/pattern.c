#include "pattern.h"

enum { WORDS = PAGE_BYTES / 4, PROGRESS_PAGES = 256 };

static uint32_t *const versions = (uint32_t *)VERSIONS_AT;

/* Xorshift32 (Marsaglia 2003): three shifts a word, passes for incompressible, never zero. */
static inline uint32_t next(uint32_t word)
{
    word ^= word << 13;
    word ^= word >> 17;
    return word ^ word << 5;
}

static uint32_t first_word(const struct pattern *pattern, uint32_t page, uint32_t version)
{
    uint32_t mixed = pattern->seed * 0x9e3779b9u ^ page * 0x85ebca6bu ^ version * 0xc2b2ae35u;
    mixed ^= mixed >> 15;
    mixed *= 0x2c1b3c6du;
    mixed ^= mixed >> 12;
    return mixed ? mixed : 1;
}

volatile uint32_t *pattern_word(uint32_t page) { return (uint32_t *)(PATTERN_AT + page * PAGE_BYTES); }

static void write_page(const struct pattern *pattern, uint32_t page, uint32_t version)
{
    uint32_t *words = (uint32_t *)pattern_word(page), word = first_word(pattern, page, version);
    for (int i = 0; i < WORDS; i++, word = next(word))
        words[i] = word;
}

static int page_is_right(const struct pattern *pattern, uint32_t page)
{
    const uint32_t *words = (const uint32_t *)pattern_word(page);
    uint32_t word = first_word(pattern, page, versions[page]), wrong = 0;
    for (int i = 0; i < WORDS; i++, word = next(word))
        wrong |= words[i] ^ word;
    return !wrong;
}

void pattern_check(struct pattern *pattern, uint32_t page)
{
    pattern->checked++;
    if (page_is_right(pattern, page))
        return;
    if (!pattern->bad++)
        pattern->bad_first = page;
}

void pattern_rewrite(struct pattern *pattern, uint32_t page)
{
    pattern_check(pattern, page);
    write_page(pattern, page, ++versions[page]);
    pattern->rewritten++;
}

void pattern_fill(struct pattern *pattern, void (*progress)(void))
{
    for (uint32_t page = 0; page < pattern->pages; page++) {
        write_page(pattern, page, versions[page] = 1);
        if (page % PROGRESS_PAGES == 0)
            progress();
    }
}

uint32_t pattern_verify(struct pattern *pattern, void (*progress)(void))
{
    uint64_t before = pattern->bad, sum = 0;
    for (uint32_t page = 0; page < pattern->pages; page++) {
        pattern_check(pattern, page);
        sum += versions[page];
        if (page % PROGRESS_PAGES == 0)
            progress();
    }
    if (sum != pattern->pages + pattern->rewritten && !pattern->bad++)
        pattern->bad_first = pattern->pages;
    return (uint32_t)(pattern->bad - before);
}
