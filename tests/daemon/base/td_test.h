/* What the tests of the daemon's parts share: a loop that runs until something has happened, a certificate of our
 * own, and an alarm instead of a hang. */
#ifndef TD_TEST_H
#define TD_TEST_H
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <sys/mman.h>
#include <unistd.h>

#include "lib/alloc.h"
#include "lib/tls.h"
#include "tunneld/base/log.h"
#include "tunneld/base/loop.h"
#include "tunneld/net/addr.h"

#define T_UNUSED __attribute__((unused))

static struct td_loop *T;

T_UNUSED static void t_open(void)
{
	alarm(60);
	td_log_setup(getenv("TEST_DEBUG") ? TNL_LOG_DEBUG : TNL_LOG_ERROR, TD_LOG_TEXT);
	T = td_loop_new();
	assert_non_null(T);
}

T_UNUSED static void t_close(void)
{
	td_loop_free(T);
	T = NULL;
}

static void t_expired(void *arg)
{
	*(bool *)arg = true;
}

/* Deferred calls run before the loop sleeps: when one of them raised the flag it must not sleep. */
static void t_prepared(struct ev_loop *ev, ev_prepare *w, int events)
{
	if (*(const int *)w->data)
		ev_break(ev, EVBREAK_ONE);
}

/* Runs the loop until *flag is not 0; false after `ms`. */
T_UNUSED static bool t_until(const int *flag, unsigned ms)
{
	struct td_timer t;
	ev_prepare p;
	bool late = false;
	ev_prepare_init(&p, t_prepared);
	ev_set_priority(&p, EV_MINPRI);
	p.data = (void *)(uintptr_t)flag;
	ev_prepare_start(T->ev, &p);
	td_loop_update(T);
	td_timer_init(&t, T, t_expired, &late);
	td_timer_in(&t, ms * TD_MS);
	while (!*flag && !late)
		ev_run(T->ev, EVRUN_ONCE);
	td_timer_stop(&t);
	ev_prepare_stop(T->ev, &p);
	return *flag != 0;
}

/* A few turns: for what must not happen, and for deferred work. */
T_UNUSED static void t_turns(int n)
{
	for (int i = 0; i < n; i++)
		ev_run(T->ev, EVRUN_NOWAIT);
}

T_UNUSED static struct td_addr t_addr(const char *s)
{
	struct td_addr a;
	const char *fault = "";
	if (td_addr_parse(s, &a, 1, &fault) != 1)
		fail_msg("%s: %s", s, fault);
	return a;
}

static uint64_t t_time(void *ctx)
{
	return (uint64_t)time(NULL);
}

/* A server context for localhost and 127.0.0.1 and a client context that trusts it. */
T_UNUSED static void t_tls(struct tnl_tls_ctx **server, struct tnl_tls_ctx **client)
{
	char *ca, *cakey, *cert, *key, why[256] = "";
	uint64_t now = t_time(NULL);
	assert_int_equal(tnl_x509_make("test CA", "", NULL, NULL, now - 3600, now + 86400, &ca, &cakey), 0);
	assert_int_equal(tnl_x509_make("localhost", "localhost,127.0.0.1", ca, cakey, now - 3600, now + 86400, &cert,
				       &key),
			 0);
	struct tnl_tls_config sc = {.server = true,
				    .cert_pem = cert,
				    .cert_pem_len = strlen(cert),
				    .key_pem = key,
				    .key_pem_len = strlen(key),
				    .unix_time = t_time};
	*server = tnl_tls_ctx_new(&sc, why, sizeof(why));
	if (!*server)
		fail_msg("%s", why);
	struct tnl_tls_config cc = {.ca_pem = ca, .ca_pem_len = strlen(ca), .unix_time = t_time};
	*client = tnl_tls_ctx_new(&cc, why, sizeof(why));
	if (!*client)
		fail_msg("%s", why);
	tnl_free(ca);
	tnl_free(cakey);
	tnl_free(cert);
	tnl_free(key);
}

T_UNUSED static int t_open_fds(void)
{
	int n = 0;
	for (int i = 0; i < 256; i++)
		n += fcntl(i, F_GETFD) >= 0;
	return n;
}

/* Until so many are open: another process closes the far end first. */
T_UNUSED static void t_until_fds(int n)
{
	int never = 0;
	for (int i = 0; i < 100 && t_open_fds() != n; i++)
		t_until(&never, 20);
	assert_int_equal(t_open_fds(), n);
}

/* --- what is logged meanwhile --------------------------------------------- */

static int t_log_file = -1, t_log_stderr = -1;

T_UNUSED static void t_log_begin(void)
{
	td_log_setup(TNL_LOG_WARN, TD_LOG_TEXT);
	t_log_file = memfd_create("log", MFD_CLOEXEC);
	t_log_stderr = fcntl(2, F_DUPFD_CLOEXEC, 3);
	assert_true(t_log_file >= 0 && t_log_stderr >= 0 && dup2(t_log_file, 2) == 2);
}

/* How often does the text stand there? */
T_UNUSED static int t_log_count(const char *text)
{
	static char all[256 * 1024];
	int count = 0;
	ssize_t n = pread(t_log_file, all, sizeof(all) - 1, 0);
	all[n > 0 ? n : 0] = '\0';
	for (const char *p = all; (p = strstr(p, text)) != NULL; p++)
		count++;
	return count;
}

T_UNUSED static void t_log_end(void)
{
	dup2(t_log_stderr, 2);
	close(t_log_stderr);
	close(t_log_file);
	t_log_file = t_log_stderr = -1;
}

#endif
