/* Child processes: what they are given and what not, how their end is told, and what becomes of those that nobody wants
 * any more. */
#include "tests/daemon/base/td_test.h"
#include "tunneld/base/child.h"
#include "tunneld/base/warden.h"

#include <errno.h>
#include <linux/capability.h>
#include <pty.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static int ended, status;

static void on_exited(void *ctx, int st)
{
	assert_ptr_equal(ctx, &ended);
	ended++;
	status = st;
}

static struct td_child *start(const struct td_child_spec *s)
{
	ended = 0;
	status = -1;
	return td_child_start(T, s, on_exited, &ended);
}

static char text[4096];

static void read_all(int fd)
{
	size_t n = 0;
	for (ssize_t k; n < sizeof(text) - 1 && (k = read(fd, text + n, sizeof(text) - 1 - n)) > 0;)
		n += (size_t)k;
	text[n] = '\0';
	close(fd);
}

/* Waits until the process is gone, reaped by the loop. */
static void until_gone(pid_t pid)
{
	int never = 0;
	for (int i = 0; i < 100 && kill(pid, 0) == 0; i++)
		t_until(&never, 20);
	assert_int_equal(kill(pid, 0), -1);
	assert_int_equal(errno, ESRCH);
}

/* Runs it to its end; what it printed is in `text`. */
static void run(const char *script, struct td_child_spec s)
{
	const char *const sh[] = {"sh", "-c", script, NULL};
	int fds[2];
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	if (!s.path) {
		s.path = "/bin/sh";
		s.argv = sh;
	}
	s.fds[0] = -1;
	s.fds[1] = s.fds[2] = fds[1];
	struct td_child *c = start(&s);
	assert_non_null(c);
	assert_true(td_child_pid(c) > 0);
	close(fds[1]);
	read_all(fds[0]);
	assert_true(t_until(&ended, 5000));
	until_gone(td_child_pid(c));
	td_child_signal(c, SIGTERM); /* and nobody else is hit */
	td_child_free(c);
	t_turns(3);
	assert_int_equal(ended, 1);
}

static void codes(void **state)
{
	run("exit 0", (struct td_child_spec){0});
	assert_int_equal(status, 0);
	run("exit 7", (struct td_child_spec){0});
	assert_int_equal(WEXITSTATUS(status), 7);
	assert_int_equal(td_child_code(status), 7);
	run("kill -TERM $$", (struct td_child_spec){0});
	assert_true(WIFSIGNALED(status));
	assert_int_equal(td_child_code(status), 128 + SIGTERM);
}

static void nothing_of_ours(void **state)
{
	/* descriptors, also one that is not closed at exec */
	int open_fd = dup(1);
	const char *const env[] = {"PATH=/usr/bin:/bin", "MINE=1", NULL};
	run("ls /proc/$$/fd; readlink /proc/$$/fd/0", (struct td_child_spec){0});
	close(open_fd);
	assert_string_equal(text, "0\n1\n2\n/dev/null\n");
	/* environment */
	setenv("OURS", "secret", 1);
	run("env", (struct td_child_spec){.env = env});
	assert_null(strstr(text, "OURS"));
	assert_non_null(strstr(text, "MINE=1"));
	run("echo $OURS", (struct td_child_spec){0});
	assert_string_equal(text, "secret\n");
	unsetenv("OURS");
	/* signals: neither blocked nor ignored, and our own mask is as it was */
	sigset_t block, before, after;
	sigemptyset(&block);
	sigaddset(&block, SIGUSR1);
	sigprocmask(SIG_BLOCK, &block, &before);
	signal(SIGUSR2, SIG_IGN);
	run("grep -E 'Sig(Blk|Ign)' /proc/self/status", (struct td_child_spec){0});
	unsigned long long blocked, ignored, libc = 3ull << 31; /* 32 and 33, which libc keeps for itself */
	assert_int_equal(sscanf(text, "SigBlk: %llx SigIgn: %llx", &blocked, &ignored), 2);
	assert_int_equal(blocked & ~libc, 0);
	assert_int_equal(ignored & ~libc, 0);
	sigprocmask(SIG_SETMASK, &before, &after);
	assert_true(sigismember(&after, SIGUSR1));
	assert_false(sigismember(&after, SIGTERM));
	signal(SIGUSR2, SIG_DFL);
}

static void group_and_session(void **state)
{
	char want[64];
	/* fields of stat behind the name: state, parent, group, session */
	run("echo $$ $(cut -d' ' -f5,6 /proc/$$/stat)", (struct td_child_spec){0});
	int pid, group, session;
	assert_int_equal(sscanf(text, "%d %d %d", &pid, &group, &session), 3);
	assert_int_equal(group, pid);
	assert_int_equal(session, getsid(0));
	run("echo $$ $(cut -d' ' -f5,6 /proc/$$/stat)", (struct td_child_spec){.session = true});
	assert_int_equal(sscanf(text, "%d %d %d", &pid, &group, &session), 3);
	snprintf(want, sizeof(want), "%d %d %d\n", pid, pid, pid);
	assert_string_equal(text, want);
}

static void a_terminal(void **state)
{
	const char *const sh[] = {"sh", "-c", "tty && echo there > /dev/tty", NULL};
	int master, slave;
	assert_int_equal(openpty(&master, &slave, NULL, NULL, NULL), 0);
	struct td_child *c = start(
	    &(struct td_child_spec){.path = "/bin/sh", .argv = sh, .fds = {slave, slave, slave}, .session = true});
	close(slave);
	assert_non_null(c);
	assert_true(t_until(&ended, 5000));
	td_child_free(c);
	assert_int_equal(status, 0);
	read_all(master);
	assert_memory_equal(text, "/dev/pts/", 9);
	assert_non_null(strstr(text, "there"));
}

static bool enter(const void *arg)
{
	return arg && chdir(arg) == 0;
}

static void before_the_program(void **state)
{
	run("pwd", (struct td_child_spec){.enter = enter, .arg = "/proc"});
	assert_string_equal(text, "/proc\n");
	run("pwd", (struct td_child_spec){.enter = enter});
	assert_string_equal(text, "");
	assert_int_equal(td_child_code(status), 126);
}

static void no_such_program(void **state)
{
	const char *const argv[] = {"x", NULL};
	run(NULL, (struct td_child_spec){.path = "/nowhere/at/all", .argv = argv});
	assert_int_equal(td_child_code(status), 127);
	assert_string_equal(text, "cannot run /nowhere/at/all: No such file or directory\n");
}

static pid_t child_of(const char *script, struct td_child **c)
{
	const char *const sh[] = {"sh", "-c", script, NULL};
	char pid[32] = "";
	int fds[2];
	assert_int_equal(pipe2(fds, O_CLOEXEC), 0);
	*c = start(&(struct td_child_spec){.path = "/bin/sh", .argv = sh, .fds = {-1, fds[1], -1}});
	assert_non_null(*c);
	close(fds[1]);
	assert_true(read(fds[0], pid, sizeof(pid) - 1) > 0);
	close(fds[0]);
	return (pid_t)atoi(pid);
}

static void nobody_is_interested(void **state)
{
	struct td_child *c;
	int fds = t_open_fds();
	/* the whole group hears it, and its end is not told */
	pid_t inner = child_of("sleep 1000 & echo $!; wait", &c), pid = td_child_pid(c);
	td_child_free(c);
	until_gone(pid);
	until_gone(inner);
	assert_int_equal(ended, 0);
	inner = child_of("sleep 1000 & echo $!; wait", &c);
	pid = td_child_pid(c);
	td_child_signal(c, SIGKILL);
	td_child_free(c);
	until_gone(pid);
	until_gone(inner);
	t_turns(3);
	assert_int_equal(ended, 0);
	t_until_fds(fds);
	td_child_free(NULL);
}

static void one_that_does_not_listen(void **state)
{
	struct td_child *c;
	int never = 0;
	child_of("trap '' HUP; echo $$; while :; do sleep 0.1; done", &c);
	pid_t pid = td_child_pid(c);
	td_child_free(c);
	t_until(&never, 300);
	assert_int_equal(kill(pid, 0), 0);
	t_until(&never, 5000);
	until_gone(pid);
}

/* Neither a group, nor a session, nor a parent that is gone hides a process from the end of the child. */
static void whatever_it_leaves_behind(void **state)
{
	struct td_child *c;
	int never = 0;
	pid_t hidden =
	    child_of("(setsid sh -c 'trap \"\" HUP; echo $$; while :; do sleep 0.1; done' &); sleep 1000", &c);
	pid_t pid = td_child_pid(c);
	assert_int_not_equal(getsid(hidden), getsid(0));
	td_child_free(c);
	until_gone(pid);
	t_until(&never, TD_WARDEN_KILL_MS - 1000);
	assert_int_equal(kill(hidden, 0), 0);
	until_gone(hidden);
	/* and when the child itself has come to its end: HUP is for those that listen, KILL for the others */
	hidden = child_of("setsid sh -c 'echo $$; sleep 1000; :' & sleep 0.1", &c);
	assert_true(t_until(&ended, 5000));
	assert_int_equal(status, 0);
	assert_int_equal(kill(hidden, 0), 0);
	td_child_free(c);
	until_gone(hidden);
}

/* Our own end is theirs as well. */
static void we_end_first(void **state)
{
	struct td_child *c;
	pid_t deaf = child_of("trap '' HUP; echo $$; while :; do sleep 0.1; done", &c), pid = td_child_pid(c);
	t_close();
	usleep(100000);
	assert_int_equal(kill(pid, 0), 0);
	for (int i = 0; i < 100 && kill(deaf, 0) == 0; i++)
		usleep(TD_WARDEN_KILL_MS * 20);
	assert_int_equal(kill(deaf, 0), -1);
	t_open();
}

static bool become_nobody(const void *arg)
{
	return setuid(65534) == 0;
}

static void set_cap_kill(bool on)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2];
	assert_int_equal(syscall(SYS_capget, &h, d), 0);
	d[0].effective = on ? d[0].effective | 1u << CAP_KILL : d[0].effective & ~(1u << CAP_KILL);
	assert_int_equal(syscall(SYS_capset, &h, d), 0);
}

/* Root without CAP_KILL: what cannot be ended is not passed over in silence. */
static void a_failed_kill_is_logged(void **state)
{
	const char *const sh[] = {"sh", "-c", "exec sleep 1000", NULL};
	char log[4096] = "", want[100];
	int never = 0, fds[2], saved = dup(2);
	if (geteuid() != 0)
		skip();
	assert_int_equal(pipe2(fds, O_CLOEXEC | O_NONBLOCK), 0);
	set_cap_kill(false);
	struct td_child *c =
	    start(&(struct td_child_spec){.path = "/bin/sh", .argv = sh, .fds = {-1, -1, -1}, .enter = become_nobody});
	assert_non_null(c);
	t_until(&never, 100);
	pid_t pid = td_child_pid(c);
	dup2(fds[1], 2);
	td_child_free(c);
	t_until(&never, 200);
	dup2(saved, 2);
	set_cap_kill(true);
	assert_true(read(fds[0], log, sizeof(log) - 1) > 0);
	snprintf(want, sizeof(want), "cannot end a process child=%d process=%d: Operation not permitted", pid, pid);
	assert_non_null(strstr(log, want));
	kill(pid, SIGKILL);
	until_gone(pid);
	close(fds[0]);
	close(fds[1]);
	close(saved);
}

/* Its warden keeps the status, whatever we do with SIGCHLD. */
static void sigchld_ignored(void **state)
{
	signal(SIGCHLD, SIG_IGN);
	run("exit 3", (struct td_child_spec){0});
	signal(SIGCHLD, SIG_DFL);
	assert_int_equal(td_child_code(status), 3);
}

static void no_memory(void **state)
{
	const char *const argv[] = {"true", NULL};
	tnl_alloc_fail_after(0, 1);
	struct td_child *c = start(&(struct td_child_spec){.path = "/bin/true", .argv = argv, .fds = {-1, -1, -1}});
	int err = errno;
	tnl_alloc_fail_after(-1, 0);
	assert_null(c);
	assert_int_equal(err, ENOMEM);
}

static int setup(void **state)
{
	t_open();
	return 0;
}

static int teardown(void **state)
{
	t_close();
	return 0;
}

int main(void)
{
#define CASE(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
	const struct CMUnitTest tests[] = {
	    CASE(codes),
	    CASE(nothing_of_ours),
	    CASE(group_and_session),
	    CASE(a_terminal),
	    CASE(before_the_program),
	    CASE(no_such_program),
	    CASE(nobody_is_interested),
	    CASE(one_that_does_not_listen),
	    CASE(whatever_it_leaves_behind),
	    CASE(we_end_first),
	    CASE(a_failed_kill_is_logged),
	    CASE(sigchld_ignored),
	    CASE(no_memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
