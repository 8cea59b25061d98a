/* Names of a client's certificate in a PROXY header: believed of one of us, and of nobody else. */
#include "tests/daemon/base/td_test.h"

#include "lib/proxyhead.h"
#include "tunneld/net/conn.h"

#include <sys/socket.h>

static int ready;

static void on_ready(void *ctx)
{
	ready = 1;
}

static void on_nothing(void *ctx) {}

static void on_closed(void *ctx, int err, const char *why)
{
	fail_msg("%s", why);
}

static void on_named(void *ctx, const struct td_addr *peer) {}

static struct td_conn *open_behind(int *fd, bool vouched)
{
	static const struct td_conn_cb cb = {
	    .ready = on_ready, .readable = on_nothing, .writable = on_nothing, .closed = on_closed, .named = on_named};
	struct tnl_proxyhead h = {.version = 2, .family = TNL_PROXYHEAD_INET, .source = {.ip = {192, 0, 2, 7}}};
	uint8_t b[TNL_PROXYHEAD_MAX];
	int pair[2];
	size_t n = tnl_proxyhead_write(&h, b);

	n = tnl_proxyhead_add(b, n, sizeof(b), TD_CONN_FIELD_EXACT, "Ops", 3);
	n = tnl_proxyhead_add(b, n, sizeof(b), TD_CONN_FIELD_NAME, "ops.example", 11);
	n = tnl_proxyhead_add(b, n, sizeof(b), 2, "other.example", 13); /* PP2_TYPE_AUTHORITY */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
	struct td_conn *c = td_conn_accepted_behind(T, pair[0], NULL, 0, &cb, NULL);
	assert_non_null(c);
	if (vouched)
		td_conn_vouched(c);
	*fd = pair[1];
	ready = 0;
	for (size_t i = 0; i < n; i += 7) /* in pieces */
		assert_true(write(*fd, b + i, i + 7 < n ? 7 : n - i) > 0);
	assert_true(t_until(&ready, 5000));
	return c;
}

static void test_vouched(void **state)
{
	int fd;
	t_open();
	struct td_conn *c = open_behind(&fd, true);
	assert_true(td_conn_cert_named(c, "Ops"));
	assert_false(td_conn_cert_named(c, "ops"));
	assert_false(td_conn_cert_named(c, "Op"));
	assert_true(td_conn_cert_named(c, "ops.example"));
	assert_true(td_conn_cert_named(c, "OPS.example"));
	assert_false(td_conn_cert_named(c, "x.ops.example"));
	assert_false(td_conn_cert_named(c, "other.example"));
	assert_false(td_conn_cert_named(c, ""));
	td_conn_free(c);
	close(fd);
	c = open_behind(&fd, false);
	assert_false(td_conn_cert_named(c, "Ops"));
	assert_false(td_conn_cert_named(c, "ops.example"));
	td_conn_free(c);
	close(fd);
	t_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_vouched)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
