/* Connections that stand: bulk both ways at once with small kernel buffers, pausing, closing, breaking. */
#include "tests/daemon/net/conn_test.h"
#include "lib/alloc.h"
#include "lib/buf.h"
#include "lib/spare.h"
#include "tunneld/base/fd.h"
#include <unistd.h>

/* Both directions at once; `pauses`: each side stops reading again and again. */
#define BULK (32u << 20)
static void bulk(bool tls, uint32_t total, int sndbuf, int pauses)
{
	struct server s;
	struct end e = {.total = total, .want = total, .pause_every = pauses};
	t_open();
	serve(&s, tls);
	s.sndbuf = sndbuf;
	s.e.total = s.e.want = total;
	s.e.pause_every = pauses ? pauses + 4 : 0;
	dial(&e, &s, tls, NULL, 0);
	assert_true(t_until(&e.done, 50000));
	assert_true(t_until(&s.e.done, 50000));
	assert_int_equal(e.got, total);
	assert_int_equal(e.sum_in, s.e.sum_out);
	assert_int_equal(s.e.sum_in, e.sum_out);
	assert_true(e.max_queued <= 280 * 1024); /* the queue is bounded, records included */
	assert_true(s.e.max_queued <= 280 * 1024);
	assert_true(total < BULK || e.writables > 0);
	/* an orderly end: everything is there, both sides hear of it */
	td_conn_pause(e.c, false);
	td_conn_pause(s.e.c, false);
	td_conn_shutdown(e.c);
	assert_true(t_until(&s.e.closed, 5000));
	assert_int_equal(s.e.err, TNL_EEOF);
	assert_true(t_until(&e.closed, 5000));
	assert_int_equal(e.err, TNL_EEOF);
	finish(&s, &e);
}

static void bulk_tls(void **state)
{
	bulk(true, BULK, 65536, 0);
	bulk(true, 1u << 20, 4096, 0);
}

static void bulk_plain(void **state)
{
	bulk(false, BULK, 65536, 0);
}

static void bulk_pauses(void **state)
{
	bulk(true, BULK, 0, 20);
}

/* When an event is over, whatever it moved, a connection holds no buffer: not for a second either. */
static void nothing_is_held_between_events(void **state)
{
	for (int tls = 0; tls < 2; tls++) {
		struct server s;
		struct end e = {.total = 1u << 20, .want = 100000};
		t_open();
		serve(&s, tls);
		s.e.total = 100000;
		s.e.want = e.total;
		dial(&e, &s, tls, NULL, 0);
		assert_true(t_until(&e.ready, 5000));
		assert_true(t_until(&s.e.ready, 5000));
		tnl_spare_drop();
		size_t held = tnl_alloc_bytes();
		assert_true(t_until(&e.done, 5000));
		assert_true(t_until(&s.e.done, 5000));
		t_turns(2); /* both have flushed */
		tnl_spare_drop();
		assert_true(tnl_alloc_bytes() <= held + 1000);
		finish(&s, &e);
	}
}

static void last_bytes(void **state)
{
	/* What was written before a shutdown arrives, though nobody reads for a while and more comes the other way. */
	for (int tls = 0; tls < 2; tls++) {
		struct server s;
		struct end e = {.total = 200000};
		t_open();
		serve(&s, tls);
		s.e.total = 100000;
		dial(&e, &s, tls, NULL, 0);
		assert_true(t_until(&e.ready, 5000));
		td_conn_shutdown(e.c);
		assert_int_equal(td_conn_write(e.c, "x", 1), 0);
		assert_true(t_until(&s.e.closed, 5000));
		assert_int_equal(s.e.err, TNL_EEOF);
		assert_int_equal(s.e.got, 200000);
		assert_int_equal(s.e.sum_in, e.sum_out);
		finish(&s, &e);
	}
}

static void end_while_sending(void **state)
{
	/* The peer says that it will send no more while our last bytes are still queued: they are sent all the same. */
	struct end e = {.total = 250000};
	struct td_addr a = t_addr("127.0.0.1:0");
	struct server s = {0};
	char junk[65536];
	int small = 4096, l = socket(AF_INET, SOCK_STREAM, 0);
	t_open();
	setsockopt(l, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
	assert_int_equal(bind(l, &a.sa, a.len), 0);
	assert_int_equal(listen(l, 1), 0);
	getsockname(l, &s.addr.sa, &(socklen_t){sizeof(s.addr.ss)});
	dial(&e, &s, false, NULL, 0);
	assert_true(t_until(&e.ready, 5000));
	int fd = accept(l, NULL, NULL);
	assert_int_equal(e.sent, 250000);
	td_conn_shutdown(e.c);
	t_turns(3);
	assert_int_equal(shutdown(fd, SHUT_WR), 0);
	t_turns(3);
	td_fd_nonblock(fd);
	uint64_t got = 0;
	for (int i = 0; i < 200000; i++) {
		ssize_t n = read(fd, junk, sizeof(junk));
		if (n == 0)
			break;
		got += n > 0 ? (uint64_t)n : 0;
		t_turns(1);
	}
	assert_int_equal(got, 250000);
	assert_true(t_until(&e.closed, 5000));
	assert_int_equal(e.err, TNL_EEOF);
	close(fd);
	close(l);
	td_timer_stop(&e.resume);
	t_close();
}

static void broken(void **state)
{
	for (int tls = 0; tls < 2; tls++) {
		struct server s;
		struct end e = {0};
		t_open();
		int fds = t_open_fds();
		serve(&s, tls);
		dial(&e, &s, tls, NULL, 0);
		assert_true(t_until(&e.ready, 5000));
		assert_true(t_until(&s.e.ready, 5000));
		td_conn_free(s.e.c); /* no close_notify: with TLS that is a broken link, not an end */
		s.e.c = NULL;
		assert_true(t_until(&e.closed, 5000));
		assert_true(tls ? e.err == TNL_ETRUNC || e.err == TNL_EIO : e.err == TNL_EEOF);
		t_turns(3);
		assert_int_equal(e.closed, 1);
		td_listener_free(s.l);
		s.l = NULL;
		t_turns(3);
		assert_int_equal(t_open_fds(), fds);
		finish(&s, &e);
	}
}

/* One connection's bulk must not keep another from its turn. */
static void fairness(void **state)
{
	struct server a, b;
	struct end ea = {.total = BULK}, eb = {.total = 100, .want = 0};
	t_open();
	serve(&a, true);
	serve(&b, true);
	dial(&ea, &a, true, NULL, 0);
	dial(&eb, &b, true, NULL, 0);
	assert_true(t_until(&ea.ready, 5000));
	b.e.want = 100;
	assert_true(t_until(&b.e.done, 10000));
	assert_true(a.e.got < BULK);
	td_conn_free(ea.c);
	td_conn_free(a.e.c);
	td_listener_free(a.l);
	finish(&b, &eb);
}

static struct tnl_tls_ctx *tls_of(bool server, char *cert, char *key, const char *ca)
{
	char why[200];
	const struct tnl_tls_config c = {.server = server,
					 .require_client_cert = server,
					 .cert_pem = cert,
					 .cert_pem_len = strlen(cert),
					 .key_pem = key,
					 .key_pem_len = strlen(key),
					 .ca_pem = ca,
					 .ca_pem_len = strlen(ca),
					 .unix_time = t_time};
	struct tnl_tls_ctx *ctx = tnl_tls_ctx_new(&c, why, sizeof(why));
	if (!ctx)
		fail_msg("%s", why);
	tnl_free(cert);
	tnl_free(key);
	return ctx;
}

/* A client's certificate that no session ticket has room for: TLS fails in our first bytes, and that is the end. */
static void failed_in_writing(void **state)
{
	struct tnl_tls_ctx *was[] = {server_tls, client_tls};
	struct server s;
	struct end e = {0};
	struct tnl_buf names;
	char *ca, *ca_key, *cert, *key;
	uint64_t now = t_time(NULL);
	tnl_buf_init(&names, 100000);
	for (int i = 0; i < 700; i++)
		tnl_buf_printf(&names, "%d%s.example,", i, "abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz");
	t_open();
	assert_int_equal(tnl_x509_make("CA", "", NULL, NULL, now - 3600, now + 86400, &ca, &ca_key), 0);
	assert_int_equal(tnl_x509_make("s", "localhost,127.0.0.1", ca, ca_key, now - 3600, now + 86400, &cert, &key),
			 0);
	server_tls = tls_of(true, cert, key, ca);
	assert_int_equal(tnl_x509_make("c", tnl_buf_str(&names), ca, ca_key, now - 3600, now + 86400, &cert, &key), 0);
	client_tls = tls_of(false, cert, key, ca);
	serve(&s, true);
	s.e.total = 100;
	dial(&e, &s, true, NULL, 0);
	assert_true(t_until(&s.e.closed, 5000));
	assert_int_equal(s.e.ready, 1);
	assert_int_equal(s.e.err, TNL_ETLS);
	finish(&s, &e);
	tnl_tls_ctx_free(server_tls);
	tnl_tls_ctx_free(client_tls);
	server_tls = was[0];
	client_tls = was[1];
	tnl_buf_fini(&names);
	tnl_free(ca);
	tnl_free(ca_key);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(bulk_tls),
	    cmocka_unit_test(bulk_plain),
	    cmocka_unit_test(bulk_pauses),
	    cmocka_unit_test(last_bytes),
	    cmocka_unit_test(end_while_sending),
	    cmocka_unit_test(broken),
	    cmocka_unit_test(fairness),
	    cmocka_unit_test(failed_in_writing),
	    cmocka_unit_test(nothing_is_held_between_events),
	};
	return cmocka_run_group_tests(tests, tls_setup, tls_teardown);
}
