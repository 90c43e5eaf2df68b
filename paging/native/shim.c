/* Preload library for QEMU: puts the guest's RAM under a userfaultfd that lives as long as QEMU does.
 *
 * The descriptor must be QEMU's own. When the last reference to a userfaultfd closes, the kernel unregisters its ranges and
 * wakes whoever waits, who then reads zeros: with the only reference in the pager, a pager's death would corrupt the guest.
 * With this one open, faults wait for the pager's successor.
 *
 * Environment (all descriptors are inherited, so that QEMU needs no path and no right of its own):
 *   SWAPFERRY_RAM       device:inode of the RAM files, decimal, separated by commas
 *   SWAPFERRY_LISTEN    descriptor of a listening AF_UNIX SEQPACKET socket
 *   SWAPFERRY_UFFD      descriptor of /dev/userfaultfd, or -1: use the system call
 *   SWAPFERRY_FEATURES  features to ask of the userfaultfd
 *   SWAPFERRY_MODES     modes to register the RAM with
 *   SWAPFERRY_PEER      user id that may connect, beside root
 *   SWAPFERRY_KVM       descriptor of /dev/kvm, or -1: let QEMU open it
 *
 * Any failure to register ends QEMU at once: a guest whose memory is not paged must not start. */
#define _GNU_SOURCE
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* linux/userfaultfd.h; spelled out since Debian 12's header is older than the features asked for. */
#define UFFD_API_VALUE 0xaaULL
#define UFFDIO_API_REQUEST 0xc018aa3fUL
#define UFFDIO_REGISTER_REQUEST 0xc020aa00UL
#define USERFAULTFD_IOC_NEW_REQUEST 0xaa00UL

struct uffd_api { uint64_t api, features, ioctls; };
struct uffd_register { uint64_t start, length, mode, ioctls; };

static struct {
    struct shim_block blocks[SHIM_BLOCKS_MAX];
    int files[SHIM_BLOCKS_MAX];
    unsigned wanted, mapped;           /* how many RAM files are named, how many are mapped and registered */
    int uffd, listener, kvm;
    uint64_t features, modes, ioctls;
    uid_t peer;
    pthread_mutex_t lock;
    pthread_cond_t changed;
} shim = {.uffd = -1, .listener = -1, .kvm = -1, .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static void die(const char *what)
{
    fprintf(stderr, "swapferry shim: %s: %s\n", what, strerror(errno));
    _exit(97);
}

static long long setting(const char *name, long long otherwise)
{
    const char *text = getenv(name);
    return text ? strtoll(text, NULL, 0) : otherwise;
}

/* Not restricted to faults from user mode: QEMU's system calls and KVM touch guest RAM from the kernel. */
static int open_uffd(void)
{
    int device = (int)setting("SWAPFERRY_UFFD", -1);
    int flags = O_CLOEXEC | O_NONBLOCK;
    int uffd = device >= 0 ? ioctl(device, USERFAULTFD_IOC_NEW_REQUEST, flags) : (int)syscall(SYS_userfaultfd, flags);
    if (uffd < 0)
        die("cannot make a userfaultfd");
    struct uffd_api api = {UFFD_API_VALUE, shim.features, 0};
    if (ioctl(uffd, UFFDIO_API_REQUEST, &api) < 0)
        die("the kernel lacks userfaultfd features that this profile needs");
    if (device >= 0)
        close(device);
    return uffd;
}

static void register_block(struct shim_block *block)
{
    if (shim.uffd < 0)
        shim.uffd = open_uffd();
    struct uffd_register range = {block->address, block->length, shim.modes, 0};
    if (ioctl(shim.uffd, UFFDIO_REGISTER_REQUEST, &range) < 0)
        die("cannot register guest memory");
    shim.ioctls = range.ioctls;
}

/* Called after every mapping: is it one of the named files, and not seen yet? The library, not QEMU, keeps the file open. */
static void consider(void *address, size_t length, int flags, int file, off_t offset)
{
    struct stat status;
    if (!shim.wanted || file < 0 || !(flags & MAP_SHARED) || fstat(file, &status))
        return;
    pthread_mutex_lock(&shim.lock);
    for (unsigned i = 0; i < shim.wanted; i++) {
        struct shim_block *block = &shim.blocks[i];
        if (block->device != status.st_dev || block->inode != status.st_ino || block->length)
            continue;
        block->address = (uintptr_t)address, block->length = length, block->file_offset = (uint64_t)offset;
        shim.files[i] = fcntl(file, F_DUPFD_CLOEXEC, 0);
        if (shim.files[i] < 0)
            die("cannot keep the RAM file open");
        register_block(block);
        shim.mapped++;
        pthread_cond_broadcast(&shim.changed);
    }
    pthread_mutex_unlock(&shim.lock);
}

static void *map(void *address, size_t length, int protection, int flags, int file, off_t offset)
{
    void *mapped = (void *)syscall(SYS_mmap, address, length, protection, flags, file, offset);
    int saved = errno;
    if (mapped != MAP_FAILED)
        consider(mapped, length, flags, file, offset);
    errno = saved;
    return mapped;
}

void *mmap(void *address, size_t length, int protection, int flags, int file, off_t offset)
{
    return map(address, length, protection, flags, file, offset);
}

void *mmap64(void *address, size_t length, int protection, int flags, int file, off64_t offset)
{
    return map(address, length, protection, flags, file, offset);
}

/* QEMU has no right to /dev/kvm as an unprivileged user, and 7.2 has no option to pass it a descriptor. */
static int open_path(const char *path, int flags, mode_t mode)
{
    if (shim.kvm >= 0 && !strcmp(path, "/dev/kvm"))
        return fcntl(shim.kvm, F_DUPFD_CLOEXEC, 0);
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static mode_t mode_of(int flags, va_list arguments)
{
    return flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE ? va_arg(arguments, mode_t) : 0;
}

int open(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_path(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list arguments;
    va_start(arguments, flags);
    mode_t mode = mode_of(flags, arguments);
    va_end(arguments);
    return open_path(path, flags | O_LARGEFILE, mode);
}

static int peer_is_allowed(int connection)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    if (getsockopt(connection, SOL_SOCKET, SO_PEERCRED, &peer, &length))
        return 0;
    return peer.uid == 0 || peer.uid == shim.peer;
}

static int zap(const struct shim_request *request)
{
    for (unsigned i = 0; i < shim.mapped; i++) {
        const struct shim_block *block = &shim.blocks[i];
        if (request->start < block->address || request->length > block->length ||
            request->start - block->address > block->length - request->length)
            continue;
        return madvise((void *)(uintptr_t)request->start, request->length, MADV_DONTNEED) ? errno : 0;
    }
    return ERANGE;
}

/* Answers when all named files are mapped: a pager that has said hello holds the whole guest. */
static void answer_hello(int connection, struct shim_reply *reply)
{
    pthread_mutex_lock(&shim.lock);
    while (shim.mapped < shim.wanted)
        pthread_cond_wait(&shim.changed, &shim.lock);
    pthread_mutex_unlock(&shim.lock);
    reply->block_count = shim.mapped, reply->features = shim.features, reply->ioctls = shim.ioctls;
    char control[CMSG_SPACE(sizeof(int) * (SHIM_BLOCKS_MAX + 1))] = {0};
    struct iovec parts[] = {{reply, sizeof *reply}, {shim.blocks, shim.mapped * sizeof *shim.blocks}};
    struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2, .msg_control = control};
    message.msg_controllen = CMSG_SPACE(sizeof(int) * (shim.mapped + 1));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * (shim.mapped + 1));
    memcpy(CMSG_DATA(header), &shim.uffd, sizeof(int));
    memcpy(CMSG_DATA(header) + sizeof(int), shim.files, sizeof(int) * shim.mapped);
    sendmsg(connection, &message, MSG_NOSIGNAL);
}

static void *serve(void *argument)
{
    int connection = (int)(intptr_t)argument;
    struct shim_request request;
    while (recv(connection, &request, sizeof request, 0) == sizeof request) {
        struct shim_reply reply = {.version = SHIM_VERSION, .pid = (uint32_t)getpid()};
        if (request.version != SHIM_VERSION)
            reply.error = EPROTO;
        else if (request.kind == SHIM_ZAP)
            reply.error = zap(&request);
        else if (request.kind != SHIM_HELLO)
            reply.error = EINVAL;
        if (request.kind == SHIM_HELLO && !reply.error)
            answer_hello(connection, &reply);
        else
            send(connection, &reply, sizeof reply, MSG_NOSIGNAL);
    }
    close(connection);
    return NULL;
}

/* Signals are QEMU's business: its threads handle them, ours block them all. */
static int start_thread(void *(*body)(void *), void *argument)
{
    sigset_t all, before;
    pthread_t thread;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int failed = pthread_create(&thread, NULL, body, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (!failed)
        pthread_detach(thread);
    return failed;
}

static void *listen_for_pagers(void *unused)
{
    (void)unused;
    for (;;) {
        int connection = accept4(shim.listener, NULL, NULL, SOCK_CLOEXEC);
        if (connection < 0 && errno != EINTR && errno != ECONNABORTED)
            return NULL;
        if (connection < 0)
            continue;
        if (!peer_is_allowed(connection) || start_thread(serve, (void *)(intptr_t)connection))
            close(connection);
    }
}

static void read_ram_files(const char *list)
{
    for (; list && *list && shim.wanted < SHIM_BLOCKS_MAX; shim.wanted++) {
        char *end;
        shim.blocks[shim.wanted].device = strtoull(list, &end, 10);
        shim.blocks[shim.wanted].inode = strtoull(*end == ':' ? end + 1 : end, &end, 10);
        list = *end == ',' ? end + 1 : NULL;
    }
}

__attribute__((constructor)) static void begin(void)
{
    if (!getenv("SWAPFERRY_RAM"))
        return;
    shim.features = (uint64_t)setting("SWAPFERRY_FEATURES", 0);
    shim.modes = (uint64_t)setting("SWAPFERRY_MODES", 1);
    shim.listener = (int)setting("SWAPFERRY_LISTEN", -1);
    shim.peer = (uid_t)setting("SWAPFERRY_PEER", 0);
    shim.kvm = (int)setting("SWAPFERRY_KVM", -1);
    fcntl(shim.listener, F_SETFD, FD_CLOEXEC);
    read_ram_files(getenv("SWAPFERRY_RAM"));
    if (start_thread(listen_for_pagers, NULL))
        die("cannot start the listener");
}
