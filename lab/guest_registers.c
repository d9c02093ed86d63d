/*
 * Preloaded into the guest kernel (lab/guest.py), for machines whose processor keeps more state
 * than it knows of, as those with AMX do.
 *
 * User-mode Linux 6.1 has room for 2,696 bytes of a process's floating-point and vector
 * registers. To read that much of them works everywhere; to write them the machine's kernel
 * takes all of its own size or nothing (EFAULT). What was not read cannot have changed, so the
 * rest is taken from the process itself.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Not on the stack: the kernel calls from stacks of its own, which are small. It has one thread. */
static char whole[1 << 16];

static long write_whole(long pid, void *which, const struct iovec *known)
{
	struct iovec all = { whole, sizeof(whole) };

	if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, which, &all) < 0)
		return -1;
	if (known->iov_len >= all.iov_len) {
		errno = EFAULT;
		return -1;
	}
	memcpy(whole, known->iov_base, known->iov_len);
	return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, which, &all);
}

long ptrace(enum __ptrace_request request, ...)
{
	va_list arguments;
	long pid, result, peeked;
	void *address, *data;

	va_start(arguments, request);
	pid = va_arg(arguments, int);
	address = va_arg(arguments, void *);
	data = va_arg(arguments, void *);
	va_end(arguments);

	/* What is peeked at comes by an address in the system call, and as the result in C. */
	if (request >= PTRACE_PEEKTEXT && request <= PTRACE_PEEKUSER) {
		result = syscall(SYS_ptrace, request, pid, address, &peeked);
		return result < 0 ? result : peeked;
	}
	result = syscall(SYS_ptrace, request, pid, address, data);
	if (result < 0 && errno == EFAULT && request == PTRACE_SETREGSET
	    && address == (void *)NT_X86_XSTATE)
		result = write_whole(pid, address, data);
	return result;
}
