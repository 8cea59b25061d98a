/* What a confined process may not do any more: looked at from inside, in a process of its own for each case. */
#include "tests/daemon/base/td_test.h"
#include "tunneld/base/caps.h"
#include "tunneld/process/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char said[4096];

#define CHECK(what)                                                                                                    \
	do {                                                                                                           \
		if (!(what)) {                                                                                         \
			dprintf(2, "not so: %s (errno %d)\n", #what, errno);                                           \
			_exit(1);                                                                                      \
		}                                                                                                      \
	} while (0)
#define REFUSED(call) CHECK((call) < 0 && errno == EPERM)

/* fn in a process of its own; what it wrote on stderr is in `said`. */
static void apart(void (*fn)(void))
{
	int fds[2], status;
	size_t n = 0;
	assert_int_equal(pipe(fds), 0);
	pid_t pid = fork();
	if (pid == 0) {
		dup2(fds[1], 2);
		fn();
		_exit(0);
	}
	close(fds[1]);
	for (ssize_t r; (r = read(fds[0], said + n, sizeof(said) - 1 - n)) > 0;)
		n += (size_t)r;
	said[n] = '\0';
	close(fds[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	if (status)
		fail_msg("status %x: %s", (unsigned)status, said);
}

static int times(const char *what)
{
	int n = 0;
	for (const char *p = said; (p = strstr(p, what)); p++)
		n++;
	return n;
}

static void confine(void)
{
	char why[200] = "";
	int r = td_confine_calls(why, sizeof(why));
	if (r)
		dprintf(2, "%s\n", why);
	CHECK(r == 0);
}

static void *in_a_thread(void *arg)
{
	return (void *)(intptr_t)(ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0 && errno == EPERM);
}

static void try_calls(void)
{
	char name[] = "true", *argv[] = {name, NULL};
	pthread_t t;
	void *refused = NULL;

	confine();
	REFUSED(fork());
	REFUSED(execve("/bin/true", argv, NULL));
	REFUSED(ptrace(PTRACE_ATTACH, getppid(), NULL, NULL));
	REFUSED(kill(getppid(), 0));
	REFUSED(socket(AF_PACKET, SOCK_RAW, 0));
	REFUSED(prctl(PR_SET_DUMPABLE, 1));
	REFUSED(setuid(65534));
	errno = 0;
	CHECK(mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED &&
	      errno == EPERM);
	/* and what a role does */
	CHECK(pthread_create(&t, NULL, in_a_thread, NULL) == 0 && pthread_join(t, &refused) == 0 && refused);
	CHECK(socket(AF_INET6, SOCK_STREAM, 0) >= 0 && socket(AF_UNIX, SOCK_DGRAM, 0) >= 0);
	CHECK(open("/dev/null", O_RDWR) >= 0);
	void *p = malloc(1 << 20);
	CHECK(p);
	free(p);
}

static void calls(void **state)
{
#ifdef __SANITIZE_ADDRESS__
	skip();
#endif
	apart(try_calls);
	assert_int_equal(times("system call refused by seccomp call=execve\n"), 1);
	assert_int_equal(times("system call refused by seccomp call=ptrace\n"), 1); /* tried twice */
	assert_int_equal(times("call=socket\n"), 1);
	assert_int_equal(times("call=open"), 0);
}

static volatile int turn;

static void *started_before(void *arg)
{
	while (!turn)
		usleep(1000);
	return in_a_thread(arg);
}

static void try_threads(void)
{
	pthread_t t;
	void *refused = NULL;
	CHECK(pthread_create(&t, NULL, started_before, NULL) == 0);
	confine();
	turn = 1;
	CHECK(pthread_join(t, &refused) == 0 && refused);
}

static void threads_that_were_there(void **state)
{
#ifdef __SANITIZE_ADDRESS__
	skip();
#endif
	apart(try_threads);
}

static void try_shut(void)
{
	struct rlimit r;
	td_confine_shut();
	CHECK(getrlimit(RLIMIT_CORE, &r) == 0 && r.rlim_cur == 0);
#ifndef __SANITIZE_ADDRESS__
	CHECK(prctl(PR_GET_DUMPABLE) == 0);
#endif
}

static void no_core_dumps(void **state)
{
	apart(try_shut);
}

static void try_user(void)
{
	char why[300] = "";
	uid_t r, e, s;
	CHECK(td_confine_user("nobody", why, sizeof(why)) == 0);
	CHECK(getuid() == 65534 && geteuid() == 65534 && getegid() == 65534);
	CHECK(strcmp(getenv("USER"), "nobody") == 0);
	CHECK(td_caps_have(TD_CAP(CAP_NET_BIND_SERVICE)) && !td_caps_have(TD_CAP(CAP_DAC_OVERRIDE)));
	CHECK(open("/etc/shadow", O_RDONLY) < 0);
	CHECK(td_confine_for_good(why, sizeof(why)) == 0);
	CHECK(getresuid(&r, &e, &s) == 0 && s == 65534);
	CHECK(!td_caps_have(TD_CAP(CAP_NET_BIND_SERVICE)));
	CHECK(setuid(0) < 0);
#ifndef __SANITIZE_ADDRESS__
	struct stat st;
	CHECK(stat("/proc/self/environ", &st) == 0 && st.st_uid == 0); /* nobody's, but shut */
#endif
	CHECK(td_confine_user("root", why, sizeof(why)) < 0 && strstr(why, "only root can become user root"));
	CHECK(td_confine_user("nobody", why, sizeof(why)) == 0);
}

static void another_user(void **state)
{
	if (geteuid() != 0)
		skip();
	apart(try_user);
}

static void try_nobody(void)
{
	char why[300] = "";
	CHECK(td_confine_user("no-such-user", why, sizeof(why)) < 0);
	CHECK(strcmp(why, "there is no user no-such-user here") == 0);
	CHECK(td_confine_user(NULL, why, sizeof(why)) == 0);
	CHECK(td_confine_for_good(why, sizeof(why)) == 0);
}

static void no_user(void **state)
{
	apart(try_nobody);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(calls),	     cmocka_unit_test(threads_that_were_there),
	    cmocka_unit_test(no_core_dumps), cmocka_unit_test(another_user),
	    cmocka_unit_test(no_user),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
