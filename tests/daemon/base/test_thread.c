/* Threads: what is sent to the process goes to the loop's thread, what a thread does wrong is told of in it. */
#include "tests/daemon/base/td_test.h"
#include "lib/num.h"
#include "tunneld/base/thread.h"

#include <signal.h>

static void *read_mask(void *arg)
{
	pthread_sigmask(SIG_BLOCK, NULL, arg);
	return NULL;
}

static void t_mask(void **state)
{
	(void)state;
	static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGSYS, SIGTRAP};
	static const int loops[] = {SIGTERM, SIGINT, SIGHUP, SIGCHLD, SIGUSR1, SIGTSTP};
	sigset_t before, after, mask;
	pthread_t t;
	pthread_sigmask(SIG_BLOCK, NULL, &before);
	assert_int_equal(td_thread_start(&t, read_mask, &mask), 0);
	pthread_join(t, NULL);
	for (size_t i = 0; i < TNL_COUNT(own); i++)
		assert_int_equal(sigismember(&mask, own[i]), 0);
	for (size_t i = 0; i < TNL_COUNT(loops); i++)
		assert_int_equal(sigismember(&mask, loops[i]), 1);
	pthread_sigmask(SIG_BLOCK, NULL, &after);
	for (int i = 1; i < SIGRTMAX; i++)
		assert_int_equal(sigismember(&after, i), sigismember(&before, i));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(t_mask)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
