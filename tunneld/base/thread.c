/* A thread's mask of signals is its creator's. */
#include "tunneld/base/thread.h"
#include "lib/num.h"
#include <signal.h>

int td_thread_start(pthread_t *thread, void *(*run)(void *arg), void *arg)
{
	static const int own[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGSYS, SIGTRAP};
	sigset_t mask, old;
	sigfillset(&mask);
	for (size_t i = 0; i < TNL_COUNT(own); i++)
		sigdelset(&mask, own[i]);
	pthread_sigmask(SIG_SETMASK, &mask, &old);
	int rc = pthread_create(thread, NULL, run, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return rc;
}
