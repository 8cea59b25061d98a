/* The port of direct links and the dial to it: who has a ticket gets a link, once; who has none sees nothing, and not
 * for long. */
#include "tests/daemon/base/td_test.h"
#include "tunneld/net/direct_dial.h"
#include "tunneld/net/direct_port.h"
#include "lib/crypto.h"
#include "lib/num.h"

#include <errno.h>
#include <poll.h>
#include <sys/socket.h>

struct owner {
	struct td_direct_port *port;
	struct tnl_direct_ticket ticket;
	char name[TNL_DIRECT_NAME + 1];
	int asked, admitted;
	bool used, withdrawn, wrong_secret;
	struct td_wslink *w;
	int opened, got, closed;
};

static bool o_admit(void *ctx, const char *name)
{
	struct owner *o = ctx;
	o->asked++;
	if (o->used || strcmp(name, o->name) != 0)
		return false;
	o->admitted++;
	return o->used = true;
}

static bool o_secret(void *ctx, const char *name, uint8_t out[TNL_DIRECT_SECRET])
{
	struct owner *o = ctx;
	assert_string_equal(name, o->name);
	memcpy(out, o->ticket.secret, TNL_DIRECT_SECRET);
	out[0] ^= o->wrong_secret;
	return !o->withdrawn;
}

static void o_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n)
{
	struct owner *o = ctx;
	o->got += (int)n;
	assert_int_equal(td_wslink_send(o->w, op, p, n), 0);
}

static void o_closed(void *ctx, int err, uint16_t code, int http, const char *why)
{
	struct owner *o = ctx;
	o->closed++;
	td_wslink_free(o->w);
	o->w = NULL;
}

static void o_opened(void *ctx, const char *name, struct td_wslink *w)
{
	static const struct td_wslink_cb cb = {.message = o_message, .closed = o_closed};
	struct owner *o = ctx;
	assert_string_equal(name, o->name);
	o->opened++;
	o->w = w;
	td_wslink_set_cb(w, &cb, o);
}

static const struct td_direct_port_cb owner_cb = {.admit = o_admit, .secret = o_secret, .opened = o_opened};

static void new_ticket(struct owner *o)
{
	struct td_addr a;
	char text[TD_ADDR_STR];
	assert_int_equal(td_direct_port_addr(o->port, 0, &a), 0);
	memset(&o->ticket, 0, sizeof(o->ticket));
	o->ticket.naddresses = 1;
	snprintf(o->ticket.addresses[0], TNL_DIRECT_ADDRESS, "%s", td_addr_str(&a, text));
	memcpy(o->ticket.key, td_direct_port_key(o->port), 32);
	tnl_random(o->ticket.secret, sizeof(o->ticket.secret));
	tnl_direct_name(o->ticket.secret, o->name);
	o->used = false;
}

static void owner_open(struct owner *o)
{
	struct td_addr a = t_addr("127.0.0.1:0");
	struct td_wslink_opts opts = {.ping_ns = 10 * TD_SEC};
	char why[200];
	memset(o, 0, sizeof(*o));
	o->port = td_direct_port_new(T, &a, 1, &opts, &owner_cb, o, why, sizeof(why));
	if (!o->port)
		fail_msg("%s", why);
	new_ticket(o);
}

static void owner_close(struct owner *o)
{
	td_wslink_free(o->w);
	td_direct_port_free(o->port);
	t_turns(3);
}

struct caller {
	struct td_wslink *w;
	int done, err, got, closed;
	char why[300];
};

static void c_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n)
{
	((struct caller *)ctx)->got += (int)n;
}

static void c_closed(void *ctx, int err, uint16_t code, int http, const char *why)
{
	struct caller *c = ctx;
	c->closed++;
	td_wslink_free(c->w);
	c->w = NULL;
}

static void c_done(void *ctx, struct td_wslink *w, int err, const char *why)
{
	static const struct td_wslink_cb cb = {.message = c_message, .closed = c_closed};
	struct caller *c = ctx;
	c->done++;
	c->w = w;
	c->err = err;
	snprintf(c->why, sizeof(c->why), "%s", why);
	if (w)
		td_wslink_set_cb(w, &cb, c);
}

static struct caller call(const struct tnl_direct_ticket *t)
{
	struct caller c = {.done = 0};
	struct td_wslink_opts opts = {.ping_ns = 10 * TD_SEC};
	static struct caller *one;
	assert_non_null(td_direct_dial_start(T, t, 2 * TD_SEC, &opts, c_done, &c));
	one = &c;
	assert_true(t_until(&one->done, 10000));
	assert_int_equal(c.done, 1);
	return c;
}

/* Failures that the port has seen; it may hear of one after the caller. */
static void expect_failed(const struct owner *o, uint64_t n)
{
	int never = 0;
	for (int i = 0; i < 500 && td_direct_port_stats(o->port)->failed < n; i++)
		t_until(&never, 10);
	assert_int_equal(td_direct_port_stats(o->port)->failed, n);
}

static void link_is_made(void **state)
{
	struct owner o;
	t_open();
	owner_open(&o);
	struct caller c = call(&o.ticket);
	if (!c.w)
		fail_msg("%s", c.why);
	td_wslink_set_cb(c.w, &(struct td_wslink_cb){.message = c_message, .closed = c_closed}, &c);
	assert_true(o.opened || t_until(&o.opened, 5000));
	assert_int_equal(td_wslink_send(c.w, TNL_WS_BINARY, "hello", 5), 0);
	assert_true(t_until(&c.got, 5000));
	assert_int_equal(o.got, 5);
	/* the ticket is used up; the link does not depend on the port */
	struct caller again = call(&o.ticket);
	assert_null(again.w);
	expect_failed(&o, 1);
	td_direct_port_free(o.port);
	t_turns(5);
	c.got = 0;
	assert_int_equal(td_wslink_send(c.w, TNL_WS_BINARY, "hello", 5), 0);
	assert_true(t_until(&c.got, 5000));
	td_wslink_free(c.w);
	assert_true(t_until(&o.closed, 5000));
	t_turns(3);
	t_close();
}

static void both_ends_prove_themselves(void **state)
{
	struct owner o;
	t_open();
	owner_open(&o);
	/* who knows the name, but not the secret: as one that has seen a ClientHello */
	o.wrong_secret = true;
	struct caller c = call(&o.ticket);
	assert_null(c.w);
	assert_int_equal(o.opened, 0);
	assert_int_equal(o.admitted, 1);
	o.wrong_secret = false;
	new_ticket(&o);
	o.withdrawn = true;
	c = call(&o.ticket);
	assert_null(c.w);
	o.withdrawn = false;
	new_ticket(&o);
	o.ticket.key[5] ^= 1; /* another machine */
	c = call(&o.ticket);
	assert_null(c.w);
	assert_non_null(strstr(c.why, "key that was agreed"));
	assert_int_equal(o.opened, 0);
	expect_failed(&o, 3);
	owner_close(&o);
	t_close();
}

/* The first address leads to somebody else, the second to nobody, the third is right. */
static void wrong_addresses_first(void **state)
{
	struct owner o, wrong;
	t_open();
	owner_open(&o);
	owner_open(&wrong);
	struct tnl_direct_ticket t = o.ticket;
	t.naddresses = 4;
	snprintf(t.addresses[0], TNL_DIRECT_ADDRESS, "%s", wrong.ticket.addresses[0]);
	snprintf(t.addresses[1], TNL_DIRECT_ADDRESS, "127.0.0.1:1");
	snprintf(t.addresses[2], TNL_DIRECT_ADDRESS, "no colon");
	snprintf(t.addresses[3], TNL_DIRECT_ADDRESS, "%s", o.ticket.addresses[0]);
	struct caller c = call(&t);
	if (!c.w)
		fail_msg("%s", c.why);
	assert_int_equal(wrong.admitted, 0);
	td_wslink_free(c.w);
	owner_close(&o);
	owner_close(&wrong);
	t_close();
}

/* Whoever writes a ticket chooses whom others connect to: nobody's metadata, and not "this host". */
static void nobodys_addresses(void **state)
{
	struct owner o;
	struct td_addr a;
	t_open();
	owner_open(&o);
	struct tnl_direct_ticket t = o.ticket;
	td_direct_port_addr(o.port, 0, &a);
	t.naddresses = 3;
	snprintf(t.addresses[0], TNL_DIRECT_ADDRESS, "0.0.0.0:%u", td_addr_port(&a));
	snprintf(t.addresses[1], TNL_DIRECT_ADDRESS, "[::ffff:0.0.0.0]:%u", td_addr_port(&a));
	snprintf(t.addresses[2], TNL_DIRECT_ADDRESS, "169.254.169.254:80");
	struct caller c = call(&t);
	assert_null(c.w);
	assert_non_null(strstr(c.why, "no address that is somebody's"));
	assert_int_equal(o.admitted, 0);
	owner_close(&o);
	t_close();
}

/* --- without a ticket ---------------------------------------------------------------- */

static int probe(const struct owner *o)
{
	struct td_addr a;
	assert_int_equal(td_direct_port_addr(o->port, 0, &a), 0);
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(fd >= 0);
	assert_true(connect(fd, &a.sa, a.len) == 0 || errno == EINPROGRESS);
	return fd;
}

/* Until the other side closes: how many bytes it has sent. -1: it does not within `ms`. */
static int read_to_end(int fd, int ms)
{
	uint8_t b[4096];
	int total = 0;
	for (int i = 0; i < ms; i++) {
		t_turns(3);
		ssize_t n = recv(fd, b, sizeof(b), 0);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			return total;
		if (n > 0)
			total += (int)n;
		else
			poll(NULL, 0, 1);
	}
	return -1;
}

static void probes_see_nothing(void **state)
{
	struct owner o;
	t_open();
	owner_open(&o);
	const char *const words[] = {"GET / HTTP/1.0\r\n\r\n", "SSH-2.0-probe\r\n", "\x16\x03\x01\x00\x05hello",
				     "\n\n\n\n\n"};
	for (size_t i = 0; i < TNL_COUNT(words); i++) {
		int fd = probe(&o);
		poll(NULL, 0, 1);
		assert_true(send(fd, words[i], strlen(words[i]), MSG_NOSIGNAL) > 0);
		shutdown(fd, SHUT_WR);
		assert_in_range(read_to_end(fd, 5000), 0, 7); /* an alert at most */
		close(fd);
	}
	assert_int_equal(o.asked, 0);
	expect_failed(&o, TNL_COUNT(words));
	owner_close(&o);
	t_close();
}

static void failures_are_counted(void **state)
{
	struct owner o;
	int closed = 0;
	t_open();
	owner_open(&o);
	for (int i = 0; i < 40; i++) {
		int fd = probe(&o);
		shutdown(fd, SHUT_WR);
		closed += read_to_end(fd, 3000) == 0;
		close(fd);
	}
	assert_int_equal(closed, 40);
	expect_failed(&o, 10);
	assert_int_equal(td_direct_port_stats(o.port)->turned_away, 30);
	struct caller c = call(&o.ticket); /* also from here, which is the price */
	assert_null(c.w);
	assert_int_equal(o.asked, 0);
	owner_close(&o);
	t_close();
}

/* Connections that say nothing are few, and do not stay. */
static void silent_ones(void **state)
{
	struct owner o;
	int fds[20], over = 0;
	t_open();
	owner_open(&o);
	for (size_t i = 0; i < TNL_COUNT(fds); i++)
		fds[i] = probe(&o);
	t_turns(50);
	assert_int_equal(td_direct_port_stats(o.port)->turned_away, TNL_COUNT(fds) - 8);
	for (size_t i = 0; i < TNL_COUNT(fds); i++) {
		over += read_to_end(fds[i], 7000) == 0;
		close(fds[i]);
	}
	assert_int_equal(over, TNL_COUNT(fds));
	expect_failed(&o, 8);
	owner_close(&o);
	t_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(link_is_made),	     cmocka_unit_test(both_ends_prove_themselves),
	    cmocka_unit_test(wrong_addresses_first), cmocka_unit_test(nobodys_addresses),
	    cmocka_unit_test(probes_see_nothing),    cmocka_unit_test(failures_are_counted),
	    cmocka_unit_test(silent_ones),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
