/* Preloaded into user-mode-linux: ptrace(2) as its kernels before 7.0 expect it.
 *
 * They keep a process' XSAVE area in 2,696 bytes, in which all has its place up to AVX-512 and PKRU. On a processor with AMX the area has 11,008, and
 * Linux takes a whole one or none (arch/x86/kernel/fpu/regset.c xstateregs_set): "ptrace set fp regs failed, errno 14", and the machine panics at its
 * first process. What they leave out is in its initial state: AMX is nobody's who has not asked Linux for it. */
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Where the header of an XSAVE area says which of its parts are not in their initial state (Intel SDM 1, 13.4.2), and the parts of AMX. */
#define XSTATE_BV 512
#define AMX ((uint64_t)3 << 17)

static long ask(long request, long pid, void *addr, void *data)
{
    return syscall(SYS_ptrace, request, pid, addr, data);
}

long ptrace(enum __ptrace_request request, ...)
{
    va_list args;
    va_start(args, request);
    long pid = va_arg(args, long);
    void *addr = va_arg(args, void *);
    void *data = va_arg(args, void *);
    va_end(args);

    if (request == PTRACE_SETREGSET && addr == (void *)NT_X86_XSTATE) {
        static _Thread_local char area[1 << 16];
        struct iovec *given = data, whole = {area, sizeof area};
        if (ask(PTRACE_GETREGSET, pid, addr, &whole))
            return -1;
        if (given->iov_len >= XSTATE_BV + 8 && given->iov_len < whole.iov_len) {
            uint64_t parts;
            memset(area, 0, whole.iov_len);
            memcpy(area, given->iov_base, given->iov_len);
            memcpy(&parts, area + XSTATE_BV, sizeof parts);
            parts &= ~AMX;
            memcpy(area + XSTATE_BV, &parts, sizeof parts);
            return ask(request, pid, addr, &whole);
        }
    }
    /* As glibc does it: what PEEK asks for comes in a place of its own. */
    if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER) {
        long word;
        if (ask(request, pid, addr, &word))
            return -1;
        errno = 0;
        return word;
    }
    return ask(request, pid, addr, data);
}
