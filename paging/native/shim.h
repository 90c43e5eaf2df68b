/* The wire between the preload library in QEMU and the pager: one SEQPACKET message each way, little-endian.
 *
 * `paging/shim_client.py` is the other end; both say the version, and a mismatch is an error on the pager's side. */
#pragma once
#include <stdint.h>

enum {
    SHIM_VERSION = 1,
    SHIM_HELLO = 1,                    /* answered with shim_reply, the blocks, and the descriptors */
    SHIM_ZAP = 2,                      /* drop the page table entries of a range; the pages stay in their file */
    SHIM_BLOCKS_MAX = 16,
};

struct shim_request {
    uint32_t version, kind;
    uint64_t start, length;            /* of SHIM_ZAP: addresses in QEMU */
};

struct shim_reply {
    uint32_t version;
    int32_t error;                     /* 0 or an errno */
    uint32_t pid, block_count;
    uint64_t features, ioctls;         /* of the userfaultfd */
};

/* One after the other behind shim_reply. Descriptors that come along: the userfaultfd, then the file of each block. */
struct shim_block {
    uint64_t address, length, file_offset, device, inode;
};
