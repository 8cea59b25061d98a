/* The system calls of a role that has started, by libseccomp.  What is not listed fails with EPERM; the first time it
 * is logged with its name, since either somebody is trying something, or the list lacks a call that a library came to
 * need.  Not on it, among others: running programs, looking into other processes, mounts, modules, name spaces, keys,
 * new executable memory, sockets of other kinds than IP and Unix (and the list of interfaces). */
#include "tunneld/process/confine.h"

#include "lib/num.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <ucontext.h>
#include <unistd.h>

static const char *const calls[] = {
    /* descriptors */
    "read",
    "write",
    "readv",
    "writev",
    "pread64",
    "pwrite64",
    "preadv",
    "pwritev",
    "close",
    "close_range",
    "dup",
    "dup2",
    "dup3",
    "fcntl",
    "fcntl64",
    "poll",
    "ppoll",
    "select",
    "_newselect",
    "pselect6",
    "pipe",
    "pipe2",
    "eventfd2",
    "timerfd_create",
    "timerfd_settime",
    "timerfd_gettime",
    "signalfd4",
    "epoll_create",
    "epoll_create1",
    "epoll_ctl",
    "epoll_wait",
    "epoll_pwait",
    "epoll_pwait2",
    "sendfile",
    "splice",
    "inotify_init1",
    "inotify_add_watch",
    "inotify_rm_watch",
    /* sockets, whose kind is looked at below */
    "socketpair",
    "bind",
    "listen",
    "accept",
    "accept4",
    "connect",
    "shutdown",
    "getsockname",
    "getpeername",
    "setsockopt",
    "getsockopt",
    "sendto",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "sendmmsg",
    "recvmmsg",
    /* files */
    "open",
    "openat",
    "creat",
    "lseek",
    "_llseek",
    "stat",
    "fstat",
    "lstat",
    "newfstatat",
    "stat64",
    "fstat64",
    "fstatat64",
    "statx",
    "statfs",
    "fstatfs",
    "access",
    "faccessat",
    "faccessat2",
    "readlink",
    "readlinkat",
    "getdents64",
    "getcwd",
    "fsync",
    "fdatasync",
    "sync_file_range",
    "ftruncate",
    "fallocate",
    "flock",
    "unlink",
    "unlinkat",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "mkdir",
    "mkdirat",
    "rmdir",
    "chmod",
    "fchmod",
    "fchmodat",
    "chown",
    "fchown",
    "fchownat",
    "utimensat",
    "umask",
    "fadvise64",
    /* memory, which is looked at below where it may become executable */
    "brk",
    "munmap",
    "mremap",
    "madvise",
    "mlock",
    "munlock",
    "msync",
    "membarrier",
    "mincore",
    /* threads, signals, time */
    "futex",
    "futex_time64",
    "set_robust_list",
    "get_robust_list",
    "rseq",
    "set_tid_address",
    "sched_yield",
    "sched_getaffinity",
    "exit",
    "exit_group",
    "restart_syscall",
    "rt_sigaction",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigpending",
    "rt_sigtimedwait",
    "sigaltstack",
    "sigreturn",
    "tgkill",
    "nanosleep",
    "clock_nanosleep",
    "clock_gettime",
    "clock_getres",
    "gettimeofday",
    "time",
    "alarm",
    "setitimer",
    "wait4",
    "waitid",
    /* who and where we are */
    "getpid",
    "getppid",
    "gettid",
    "getuid",
    "geteuid",
    "getgid",
    "getegid",
    "getresuid",
    "getresgid",
    "getgroups",
    "getpgrp",
    "getpgid",
    "getsid",
    "uname",
    "sysinfo",
    "getrandom",
    "getrlimit",
    "ugetrlimit",
    "getrusage",
    "times",
    "getcpu",
    "capget",
    "arch_prctl",
};

/* On the terminal's size, waiting bytes, interfaces. */
static const unsigned ioctls[] = {FIONREAD,	FIONBIO,     FIOCLEX,	   TCGETS,	TIOCGWINSZ,
				  TIOCSWINSZ,	TIOCOUTQ,    SIOCGIFINDEX, SIOCGIFNAME, SIOCGIFADDR,
				  SIOCGIFFLAGS, SIOCGIFCONF, SIOCATMARK};

/* --- what is refused ---------------------------------------------------------------- */

#if defined(__x86_64__) || defined(__aarch64__)
#define CAN_TELL 1

static char names[512][24]; /* by number, filled before: a signal handler must not look them up */
static volatile sig_atomic_t told[TNL_COUNT(names)];

static void put_error(ucontext_t *u)
{
#if defined(__x86_64__)
	u->uc_mcontext.gregs[REG_RAX] = -EPERM;
#else
	u->uc_mcontext.regs[0] = (unsigned long long)-EPERM;
#endif
}

static void on_refused(int sig, siginfo_t *info, void *context)
{
	static const char head[] = "system call refused by seccomp call=";
	char line[sizeof(head) + sizeof(names[0])];
	int saved = errno, nr = info->si_syscall;
	bool known = nr >= 0 && nr < (int)TNL_COUNT(names);

	put_error(context);
	if (known && told[nr])
		return;
	if (known)
		told[nr] = 1;
	const char *name = known && names[nr][0] ? names[nr] : "unknown";
	size_t n = sizeof(head) - 1, m = strlen(name);
	memcpy(line, head, n);
	memcpy(line + n, name, m);
	line[n + m] = '\n';
	if (write(STDERR_FILENO, line, n + m + 1) < 0)
		errno = saved;
	errno = saved;
}

static void prepare_to_tell(void)
{
	struct sigaction sa = {.sa_sigaction = on_refused, .sa_flags = SA_SIGINFO | SA_NODEFER | SA_RESTART};
	sigset_t one;
	for (int i = 0; i < (int)TNL_COUNT(names); i++) {
		char *name = seccomp_syscall_resolve_num_arch(SCMP_ARCH_NATIVE, i);
		snprintf(names[i], sizeof(names[i]), "%s", name ? name : "");
		free(name);
	}
	sigaction(SIGSYS, &sa, NULL);
	sigemptyset(&one);
	sigaddset(&one, SIGSYS);
	sigprocmask(SIG_UNBLOCK, &one, NULL);
}
#define REFUSE SCMP_ACT_TRAP
#else
static void prepare_to_tell(void) {}
#define REFUSE SCMP_ACT_ERRNO(EPERM)
#endif

/* --- the list ------------------------------------------------------------------------- */

static int allow(scmp_filter_ctx f, const char *name, unsigned n, const struct scmp_arg_cmp *args)
{
	int nr = seccomp_syscall_resolve_name(name);
	if (nr == __NR_SCMP_ERROR)
		return 0; /* another machine's, or newer than the library */
	int r = seccomp_rule_add_array(f, SCMP_ACT_ALLOW, nr, n, args);
	return r == -EDOM || r == -EINVAL ? 0 : r;
}

static int allow_value(scmp_filter_ctx f, const char *name, unsigned arg, uint64_t value)
{
	struct scmp_arg_cmp is = {.arg = arg, .op = SCMP_CMP_EQ, .datum_a = value};
	return allow(f, name, 1, &is);
}

/* The bits of mask in that argument are as in value. */
static int allow_bits(scmp_filter_ctx f, const char *name, unsigned arg, uint64_t mask, uint64_t value)
{
	struct scmp_arg_cmp is = {.arg = arg, .op = SCMP_CMP_MASKED_EQ, .datum_a = mask, .datum_b = value};
	return allow(f, name, 1, &is);
}

/* Threads, but no processes and no name spaces; where flags cannot be seen (clone3), libc is told to ask by the other
 * call. */
static int allow_threads(scmp_filter_ctx f)
{
	const uint64_t yes = CLONE_VM | CLONE_THREAD | CLONE_SIGHAND, no = CLONE_VFORK | CLONE_NEWNS | CLONE_NEWUTS |
									   CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID |
									   CLONE_NEWNET | CLONE_NEWCGROUP;
	int clone3 = seccomp_syscall_resolve_name("clone3");
	int r = allow_bits(f, "clone", 0, yes | no, yes);
	if (clone3 != __NR_SCMP_ERROR)
		r |= seccomp_rule_add(f, SCMP_ACT_ERRNO(ENOSYS), clone3, 0);
	return r;
}

static int allow_some(scmp_filter_ctx f)
{
	static const int domains[] = {AF_UNIX, AF_INET, AF_INET6};
	/* Which addresses this machine has. */
	const struct scmp_arg_cmp routes[] = {{.arg = 0, .op = SCMP_CMP_EQ, .datum_a = AF_NETLINK},
					      {.arg = 2, .op = SCMP_CMP_EQ, .datum_a = NETLINK_ROUTE}};
	int r = allow(f, "socket", 2, routes);
	for (size_t i = 0; i < TNL_COUNT(domains); i++)
		r |= allow_value(f, "socket", 0, (uint64_t)domains[i]);
	for (size_t i = 0; i < TNL_COUNT(ioctls); i++)
		r |= allow_bits(f, "ioctl", 1, 0xffffffff, ioctls[i]);
	r |= allow_bits(f, "mmap", 2, PROT_EXEC, 0);
	r |= allow_bits(f, "mmap2", 2, PROT_EXEC, 0);
	r |= allow_bits(f, "mprotect", 2, PROT_EXEC, 0);
	r |= allow_value(f, "prctl", 0, PR_SET_NAME);
	r |= allow_value(f, "prctl", 0, PR_GET_NAME);
	r |= allow_value(f, "prctl", 0, 0x53564d41 /* PR_SET_VMA, libc's names for memory */);
	r |= allow_value(f, "prlimit64", 2, 0); /* to look only */
	return r | allow_threads(f);
}

int td_confine_calls(char *why, size_t cap)
{
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) /* it needs more than we do */
	return 0;
#endif
	scmp_filter_ctx f = seccomp_init(REFUSE);
	int r = f ? 0 : -ENOMEM;

	prepare_to_tell();
	for (size_t i = 0; f && !r && i < TNL_COUNT(calls); i++)
		r = allow(f, calls[i], 0, NULL);
	if (!r)
		r = allow_some(f);
	if (!r)
		r = seccomp_attr_set(f, SCMP_FLTATR_CTL_TSYNC, 1); /* every thread */
	if (!r)
		r = seccomp_load(f);
	if (f)
		seccomp_release(f);
	if (r)
		snprintf(why, cap, "no seccomp filter: %s (seccomp = no does without)", strerror(-r));
	return r ? -1 : 0;
}
