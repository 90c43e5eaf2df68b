/* Memory that can be verified: every page is a random stream that its number, its version and the seed determine.
 *
 * The version of each page stands in an array in guest memory too, so data pages, version pages and the counters are all
 * paged like any other memory; a page that comes back stale, swapped with another or as zeros disagrees with its version. */
#pragma once
#include <stdint.h>

enum {
    PAGE_BYTES = 4096,
    VERSIONS_AT = 4 << 20,             /* u32 per page, room for 3 GiB of pages */
    PATTERN_AT = 8 << 20,              /* the first page of the pattern */
};

struct pattern {
    uint32_t seed, pages, hot;
    uint64_t rewritten, checked, bad;  /* since the fill */
    uint32_t bad_first;                /* number of the first bad page, valid where bad > 0 */
};

void pattern_fill(struct pattern *pattern, void (*progress)(void));
void pattern_rewrite(struct pattern *pattern, uint32_t page);     /* checks what is there before */
void pattern_check(struct pattern *pattern, uint32_t page);
/* Checks every page, and that the versions add up to the rewrites. Returns the number of wrong pages found. */
uint32_t pattern_verify(struct pattern *pattern, void (*progress)(void));
volatile uint32_t *pattern_word(uint32_t page);                   /* the first word of a page */
