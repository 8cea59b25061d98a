/* Addresses, listeners, dialing and name resolution. */
#include "tests/daemon/base/td_test.h"
#include "lib/num.h"
#include "tunneld/net/listen.h"
#include "tunneld/net/peers.h"
#include "tunneld/net/resolve.h"
#include "tunneld/base/fd.h"
#include "tunneld/net/dial.h"
#include "tunneld/net/tcp_hop.h"

#include <errno.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/stat.h>

static void parse(void **state)
{
	static const struct {
		const char *in, *out;
	} good[] = {
	    {"127.0.0.1:8080", "127.0.0.1:8080"}, {"[::1]:65535", "[::1]:65535"},
	    {"0.0.0.0:0", "0.0.0.0:0"},		  {"localhost:80", "127.0.0.1:80"},
	    {"LocalHost:80", "127.0.0.1:80"},	  {"*:80", "0.0.0.0:80"},
	    {"8080", "127.0.0.1:8080"},		  {"unix:/run/x y", "unix:/run/x y"},
	    {"[fe80::1%lo]:1", "[fe80::1%lo]:1"},
	};
	static const char *const bad[] = {
	    "",
	    ":80",
	    "127.0.0.1:",
	    "127.0.0.1:65536",
	    "127.0.0.1:-1",
	    "127.0.0.1: 80",
	    "127.0.0.1:+80",
	    "::1:80",
	    "[127.0.0.1]:80",
	    "[::1:80",
	    "[::1]80",
	    "db.internal:80",
	    "127.1:80",
	    "0x7f.0.0.1:80",
	    "1.2.3.4:8a",
	    "unix:",
	    "127.0.0.1:000080",
	    "[fe80::1%none]:1",
	    "[]:80",
	    "999999",
	};
	struct td_addr a[4];
	char s[TD_ADDR_STR];
	const char *fault;
	for (size_t i = 0; i < TNL_COUNT(good); i++) {
		fault = NULL;
		int n = td_addr_parse(good[i].in, a, 4, &fault);
		if (n < 1)
			fail_msg("%s: %s", good[i].in, fault);
		assert_string_equal(td_addr_str(&a[0], s), good[i].out);
	}
	for (size_t i = 0; i < TNL_COUNT(bad); i++) {
		fault = NULL;
		if (td_addr_parse(bad[i], a, 4, &fault) != -1 || !fault)
			fail_msg("%s was taken", bad[i]);
	}
	char longpath[200] = "unix:/";
	memset(longpath + 6, 'p', 150);
	assert_int_equal(td_addr_parse(longpath, a, 4, &fault), -1);
	if (td_addr_have_ipv6()) {
		assert_int_equal(td_addr_parse("localhost:80", a, 4, &fault), 2);
		assert_string_equal(td_addr_str(&a[1], s), "[::1]:80");
		assert_int_equal(td_addr_parse("*:80", a, 4, &fault), 2);
		assert_string_equal(td_addr_str(&a[1], s), "[::]:80");
	}
	assert_int_equal(td_addr_parse("localhost:80", a, 1, &fault), 1);
}

static void loopback(void **state)
{
	static const char *const yes[] = {"127.0.0.1", "127.255.0.9", "::1",	     "::ffff:127.3.2.1", "localhost",
					  "LocalHost", "localhost.",  "a.localhost", "b.a.LOCALHOST.",	 "0:0::1"};
	static const char *const no[] = {
	    "",
	    "128.0.0.1",
	    "::2",
	    "::",
	    "::ffff:126.0.0.1",
	    "127.evil.example",
	    "127.1",
	    "localhost..",
	    "[::1]",
	    ".localhost",
	    "xlocalhost",
	    "localhost.x",
	    "126.255.255.255",
	    "0.0.0.0",
	};
	for (size_t i = 0; i < TNL_COUNT(yes); i++)
		if (!td_addr_host_is_loopback(yes[i]))
			fail_msg("%s is not taken for loopback", yes[i]);
	for (size_t i = 0; i < TNL_COUNT(no); i++)
		if (td_addr_host_is_loopback(no[i]))
			fail_msg("%s is taken for loopback", no[i]);
	assert_true(td_addr_host_is_localhost("localhost"));
	assert_false(td_addr_host_is_localhost("127.0.0.1"));
	struct td_addr a = t_addr("127.9.9.9:1");
	assert_true(td_addr_is_loopback(&a));
	a = t_addr("unix:/x");
	assert_false(td_addr_is_loopback(&a));
	memset(&a, 0, sizeof(a));
	assert_false(td_addr_is_loopback(&a));
}

/* Counted by address, IPv6 by /64; what was counted is given back once. */
static void connections_of_a_peer(void **state)
{
	struct td_peers *p = td_peers_new();
	struct td_peer first, second, other;
	struct td_addr a = t_addr("192.0.2.1:1"), b = t_addr("192.0.2.1:2"), c = t_addr("192.0.2.2:1");
	assert_true(td_peers_enter(p, &a, 2, &first));
	assert_true(td_peers_enter(p, &b, 2, &second));
	assert_false(td_peers_enter(p, &a, 2, &other));
	td_peers_leave(p, &other); /* was not counted */
	assert_false(td_peers_enter(p, &a, 2, &other));
	assert_true(td_peers_enter(p, &c, 2, &other));
	td_peers_leave(p, &first);
	td_peers_leave(p, &first);
	assert_true(td_peers_enter(p, &a, 2, &first));
	assert_false(td_peers_enter(p, &a, 2, &other));
	a = t_addr("[2001:db8::1]:1");
	b = t_addr("[2001:db8::ffff:1]:1");
	c = t_addr("[2001:db8:0:1::1]:1");
	assert_true(td_peers_enter(p, &a, 1, &first));
	assert_false(td_peers_enter(p, &b, 1, &other));
	assert_true(td_peers_enter(p, &c, 1, &other));
	a = t_addr("[::ffff:192.0.2.7]:1"); /* as a socket of both families shows them */
	b = t_addr("[::ffff:192.0.2.8]:1");
	c = t_addr("192.0.2.7:1");
	assert_true(td_peers_enter(p, &a, 1, &first));
	assert_true(td_peers_enter(p, &b, 1, &other));
	assert_false(td_peers_enter(p, &c, 1, &other));
	a = t_addr("[::1]:1"); /* not with all of ::/64 */
	b = t_addr("[::2]:1");
	assert_true(td_peers_enter(p, &a, 1, &first));
	assert_true(td_peers_enter(p, &b, 1, &other));
	a = t_addr("unix:/x");
	for (int i = 0; i < 3; i++)
		assert_true(td_peers_enter(p, &a, 1, &other));
	td_peers_leave(p, &other);
	td_peers_free(p);
	td_peers_free(NULL);
}

struct acc {
	int n, last;
	int fds[512];
	struct td_addr peer;
	bool keep;
};

static void on_accept(void *ctx, int fd, const struct td_addr *peer)
{
	struct acc *a = ctx;
	assert_true(fcntl(fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
	a->peer = *peer;
	if (a->keep)
		a->fds[a->n] = fd;
	else
		close(fd);
	a->n++;
}

static struct td_listener *listen_on(const char *at, struct acc *a, struct td_addr *bound)
{
	char why[256] = "";
	struct td_addr addr = t_addr(at);
	memset(a, 0, sizeof(*a));
	struct td_listener *l = td_listen(T, &addr, on_accept, a, why, sizeof(why));
	if (!l)
		fail_msg("%s", why);
	td_listener_addr(l, bound);
	return l;
}

static int connect_to(const struct td_addr *a)
{
	int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd >= 0 && connect(fd, &a->sa, a->len) != 0 && errno != EINPROGRESS) {
		close(fd);
		return -1;
	}
	return fd;
}

static void listening(void **state)
{
	struct acc acc;
	struct td_addr at;
	char why[256];
	t_open();
	int fds = t_open_fds();
	struct td_listener *l = listen_on("127.0.0.1:0", &acc, &at);
	assert_int_not_equal(td_addr_port(&at), 0); /* the port that was chosen */
	int c = connect_to(&at);
	assert_true(t_until(&acc.n, 5000));
	assert_int_equal(acc.peer.sa.sa_family, AF_INET);
	close(c);
	/* paused: the backlog keeps them */
	td_listener_pause(l, true);
	c = connect_to(&at);
	t_turns(10);
	assert_int_equal(acc.n, 1);
	td_listener_pause(l, false);
	acc.n = 0;
	assert_true(t_until(&acc.n, 5000));
	close(c);
	/* the same port a second time */
	assert_null(td_listen(T, &at, on_accept, &acc, why, sizeof(why)));
	assert_non_null(strstr(why, "in use"));
	td_listener_free(l);
	/* again at once, though connections were closed by us (TIME_WAIT) */
	l = td_listen(T, &at, on_accept, &acc, why, sizeof(why));
	assert_non_null(l);
	td_listener_free(l);
	if (td_addr_have_ipv6()) {
		l = listen_on("[::1]:0", &acc, &at);
		c = connect_to(&at);
		assert_true(t_until(&acc.n, 5000));
		close(c);
		td_listener_free(l);
	}
	t_turns(2);
	assert_int_equal(t_open_fds(), fds);
	t_close();
}

static void unix_listening(void **state)
{
	struct acc acc;
	struct td_addr at;
	struct stat st;
	char dir[] = "/tmp/td-net-XXXXXX", spec[64], why[256], s[TD_ADDR_STR];
	t_open();
	assert_non_null(mkdtemp(dir));
	snprintf(spec, sizeof(spec), "unix:%s/s", dir);
	struct td_listener *l = listen_on(spec, &acc, &at);
	assert_int_equal(stat(spec + 5, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0600);
	int c = connect_to(&at);
	assert_true(t_until(&acc.n, 5000));
	assert_string_equal(td_addr_str(&acc.peer, s), spec);
	close(c);
	/* somebody listens there: left alone */
	assert_null(td_listen(T, &at, on_accept, &acc, why, sizeof(why)));
	assert_int_equal(stat(spec + 5, &st), 0);
	td_listener_free(l);
	assert_int_equal(stat(spec + 5, &st), -1); /* taken away by whom made it */
	/* one that is busy (its backlog is full) is not stale */
	int busy = socket(AF_UNIX, SOCK_STREAM, 0), waiting[8], w = 0;
	assert_int_equal(bind(busy, &at.sa, at.len), 0);
	assert_int_equal(listen(busy, 0), 0);
	while (w < 8 && (waiting[w] = connect_to(&at)) >= 0)
		w++;
	assert_in_range(w, 1, 7);
	assert_null(td_listen(T, &at, on_accept, &acc, why, sizeof(why)));
	assert_int_equal(stat(spec + 5, &st), 0);
	while (w > 0)
		close(waiting[--w]);
	close(busy);
	unlink(spec + 5);
	/* a stale one is replaced */
	int stale = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(stale, &at.sa, at.len), 0);
	close(stale);
	l = listen_on(spec, &acc, &at);
	/* another one in its place is not removed when this one goes */
	unlink(spec + 5);
	int other = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(other, &at.sa, at.len), 0);
	td_listener_free(l);
	assert_int_equal(stat(spec + 5, &st), 0);
	close(other);
	unlink(spec + 5);
	/* a plain file is never removed */
	FILE *f = fopen(spec + 5, "w");
	fclose(f);
	assert_null(td_listen(T, &at, on_accept, &acc, why, sizeof(why)));
	assert_int_equal(stat(spec + 5, &st), 0);
	unlink(spec + 5);
	rmdir(dir);
	t_close();
}

static void no_descriptors(void **state)
{
	static struct acc acc;
	struct td_addr at;
	struct rlimit old, low;
	t_open();
	td_log_setup(TNL_LOG_ERROR, TD_LOG_TEXT);
	struct td_listener *l = listen_on("127.0.0.1:0", &acc, &at);
	td_listener_use_spare(l);
	acc.keep = true;
	int clients[20];
	for (int i = 0; i < 20; i++)
		clients[i] = connect_to(&at);
	/* Room for five more, though twenty wait. */
	int top = dup(0);
	close(top);
	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	low.rlim_cur = (rlim_t)top + 5;
	setrlimit(RLIMIT_NOFILE, &low);
	int never = 0;
	uint64_t from = T->now;
	assert_false(t_until(&never, 200));
	setrlimit(RLIMIT_NOFILE, &old);
	assert_in_range(acc.n, 1, 5);
	assert_true(T->now - from >= 200 * TD_MS);
	/* Accepting rests for a second, then goes on: those in the backlog are served. */
	int before = acc.n;
	acc.last = 0;
	for (int i = 0; i < 1000 && acc.n < 19; i++)
		t_until(&never, 20);
	assert_int_equal(acc.n, 19); /* all but the one that was told at once */
	assert_true(before < 19);
	int reset = 0;
	for (int i = 0; i < 20; i++) {
		char b;
		reset += read(clients[i], &b, 1) < 0 && errno == ECONNRESET;
		close(clients[i]);
	}
	assert_int_equal(reset, 1);
	for (int i = 0; i < acc.n; i++)
		close(acc.fds[i]);
	td_listener_free(l);
	t_close();
}

struct dialed {
	int done, fd, err;
	char why[256];
	struct td_addr peer;
};

static void on_dialed(void *ctx, int fd, const struct td_addr *peer, int err, const char *why)
{
	struct dialed *d = ctx;
	d->done++;
	d->fd = fd;
	d->err = err;
	snprintf(d->why, sizeof(d->why), "%s", why);
	if (peer)
		d->peer = *peer;
}

static struct dialed dial(const struct td_addr *a, int n, uint64_t timeout)
{
	struct dialed d = {.fd = -1};
	assert_non_null(td_dial_start(T, a, n, timeout, on_dialed, &d));
	assert_int_equal(d.done, 0);
	assert_true(t_until(&d.done, 10000));
	t_turns(3);
	assert_int_equal(d.done, 1);
	return d;
}

/* What may be asked for in any number leaves the last descriptors to the rest. */
static void spare_descriptors(void **state)
{
	struct acc acc;
	struct td_addr at;
	struct rlimit old, low;
	int clients[60], never = 0, top, n = 0, left[80];
	t_open();
	td_log_setup(TNL_LOG_ERROR, TD_LOG_TEXT);
	struct td_listener *l = listen_on("127.0.0.1:0", &acc, &at);
	acc.keep = true;
	for (int i = 0; i < 60; i++)
		clients[i] = connect_to(&at);
	top = dup(0);
	close(top);
	getrlimit(RLIMIT_NOFILE, &old);
	low = old;
	low.rlim_cur = (rlim_t)top + 40;
	int spare = (top + 40) / 8;
	assert_false(td_fd_short());
	setrlimit(RLIMIT_NOFILE, &low);
	assert_false(td_fd_short());
	assert_false(t_until(&never, 200));
	assert_int_equal(acc.n, 40 - spare);
	assert_true(td_fd_short());
	struct dialed d = {.fd = -1};
	assert_non_null(td_dial_start_many(T, &at, 1, TD_SEC, on_dialed, &d));
	assert_true(t_until(&d.done, 5000));
	assert_int_equal(d.fd, -1);
	d = dial(&at, 1, TD_SEC); /* what keeps us reachable */
	assert_true(d.fd >= 0);
	close(d.fd);
	while (n < 80 && (left[n] = dup(0)) >= 0)
		n++;
	assert_int_equal(n, spare);
	while (n > 0)
		close(left[--n]);
	close(acc.fds[--acc.n]);
	assert_false(td_fd_short());
	setrlimit(RLIMIT_NOFILE, &old);
	for (int i = 0; i < 60; i++)
		close(clients[i]);
	for (int i = 0; i < acc.n; i++)
		close(acc.fds[i]);
	td_listener_free(l);
	t_close();
}

static bool takes_reno(int fd)
{
	char name[16] = {0};
	socklen_t n = sizeof(name) - 1;
	assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, &n), 0);
	return strcmp(name, "reno") == 0;
}

/* Both ends of a connection that stays on the machine go without BBR, whatever is listened on; what leaves it does not.
 */
static void local_hops(void **state)
{
	static const char *const on[] = {"127.0.0.1:0", "0.0.0.0:0"};
	struct acc acc;
	struct td_addr at, far = t_addr("192.0.2.1:9");
	t_open();
	for (size_t i = 0; i < TNL_COUNT(on); i++) {
		struct td_listener *l = listen_on(on[i], &acc, &at);
		acc.keep = true;
		at.in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
		struct dialed d = dial(&at, 1, TD_SEC);
		assert_true(t_until(&acc.n, 5000));
		assert_true(takes_reno(d.fd));
		assert_true(takes_reno(acc.fds[0]));
		close(d.fd);
		close(acc.fds[0]);
		td_listener_free(l);
	}
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	bool usual = takes_reno(fd);
	td_tcp_hop_local(fd, &far);
	assert_int_equal(takes_reno(fd), usual);
	close(fd);
	t_close();
}

static void dialing(void **state)
{
	struct acc acc;
	struct td_addr at, gone, list[3];
	t_open();
	int fds = t_open_fds();
	struct td_listener *l = listen_on("127.0.0.1:0", &acc, &gone);
	td_listener_free(l);
	l = listen_on("127.0.0.1:0", &acc, &at);
	struct dialed d = dial(&at, 1, TD_SEC);
	assert_true(d.fd >= 0);
	assert_true(fcntl(d.fd, F_GETFL) & O_NONBLOCK);
	assert_true(fcntl(d.fd, F_GETFD) & FD_CLOEXEC);
	close(d.fd);
	d = dial(&gone, 1, TD_SEC);
	assert_int_equal(d.fd, -1);
	assert_int_equal(d.err, TNL_EREFUSED);
	assert_non_null(strstr(d.why, "refused"));
	/* nobody accepts and the backlog is full: silence */
	int full = socket(AF_INET, SOCK_STREAM, 0), c[4];
	struct td_addr f = t_addr("127.0.0.1:0");
	assert_int_equal(bind(full, &f.sa, f.len), 0);
	assert_int_equal(listen(full, 0), 0);
	getsockname(full, &f.sa, &f.len);
	for (int i = 0; i < 4; i++)
		c[i] = connect_to(&f);
	/* of several the first that works */
	list[0] = gone;
	list[1] = f;
	list[2] = at;
	uint64_t from = T->now;
	d = dial(list, 3, 5 * TD_SEC);
	assert_true(d.fd >= 0);
	assert_int_equal(td_addr_port(&d.peer), td_addr_port(&at));
	assert_true(T->now - from < 2 * TD_SEC);
	close(d.fd);
	list[1] = t_addr("unix:/nonexistent/socket"); /* a refusal says more than what came after it */
	d = dial(list, 2, TD_SEC);
	assert_int_equal(d.err, TNL_EREFUSED);
	d = dial(NULL, 0, TD_SEC);
	assert_int_equal(d.err, TNL_EUNREACH);
	/* cancelled: no call, no descriptor */
	struct dialed x = {0};
	td_dial_cancel(td_dial_start(T, &at, 1, TD_SEC, on_dialed, &x));
	td_dial_cancel(td_dial_start(T, &gone, 1, TD_SEC, on_dialed, &x));
	td_dial_cancel(NULL);
	t_turns(10);
	assert_int_equal(x.done, 0);
	td_listener_free(l);
	from = T->now;
	d = dial(&f, 1, 200 * TD_MS);
	assert_int_equal(d.err, TNL_ETIMEOUT);
	assert_in_range(T->now - from, 200 * TD_MS, 2000 * TD_MS);
	for (int i = 0; i < 4; i++)
		close(c[i]);
	close(full);
	assert_int_equal(t_open_fds(), fds);
	t_close();
}

struct resolved {
	int done, err, n;
	struct td_addr addrs[16];
	char why[400];
};

static void on_resolved(void *ctx, int err, const struct td_addr *addrs, int n, const char *why)
{
	struct resolved *r = ctx;
	r->done++;
	r->err = err;
	r->n = n;
	if (n)
		memcpy(r->addrs, addrs, (size_t)n * sizeof(*addrs));
	snprintf(r->why, sizeof(r->why), "%s", why);
}

static struct resolved resolve(const char *host)
{
	struct resolved r = {0};
	assert_non_null(td_resolve_start(T, host, 443, on_resolved, &r));
	assert_int_equal(r.done, 0); /* never from inside the call */
	assert_true(t_until(&r.done, 20000));
	assert_int_equal(r.done, 1);
	return r;
}

static void resolving(void **state)
{
	char s[TD_ADDR_STR], name[400];
	t_open();
	struct resolved r = resolve("192.0.2.7");
	assert_int_equal(r.n, 1);
	assert_string_equal(td_addr_str(&r.addrs[0], s), "192.0.2.7:443");
	r = resolve("2001:db8::7");
	assert_string_equal(td_addr_str(&r.addrs[0], s), "[2001:db8::7]:443");
	r = resolve("localhost");
	assert_string_equal(td_addr_str(&r.addrs[0], s), "127.0.0.1:443");
	assert_int_equal(r.n, td_addr_have_ipv6() ? 2 : 1);
	r = resolve("db.localhost.");
	assert_string_equal(td_addr_str(&r.addrs[0], s), "127.0.0.1:443");
	r = resolve("");
	assert_int_equal(r.err, TNL_ENOTFOUND);
	memset(name, 'a', 300);
	name[300] = '\0';
	r = resolve(name);
	assert_int_equal(r.err, TNL_ENOTFOUND);
	/* cancelled ones of every kind: no call, no leak; one is still with the resolver when the loop goes */
	struct resolved x = {0};
	td_resolve_cancel(td_resolve_start(T, "127.0.0.1", 1, on_resolved, &x));
	td_resolve_cancel(td_resolve_start(T, "name.invalid", 1, on_resolved, &x));
	td_resolve_cancel(NULL);
	t_turns(5);
	td_resolve_start(T, "other.invalid", 1, on_resolved, &x);
	t_close();
	assert_int_equal(x.done, 0);
}

static void unresolvable(void **state)
{
	t_open();
	struct resolved r = resolve("no-such-name.invalid"); /* RFC 6761: never exists */
	assert_true(r.err == TNL_ENOTFOUND || r.err == TNL_ETIMEOUT);
	assert_int_equal(r.n, 0);
	assert_non_null(strstr(r.why, "no-such-name.invalid"));
	t_close();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(parse),
	    cmocka_unit_test(loopback),
	    cmocka_unit_test(connections_of_a_peer),
	    cmocka_unit_test(listening),
	    cmocka_unit_test(unix_listening),
	    cmocka_unit_test(no_descriptors),
	    cmocka_unit_test(spare_descriptors),
	    cmocka_unit_test(local_hops),
	    cmocka_unit_test(dialing),
	    cmocka_unit_test(resolving),
	    cmocka_unit_test(unresolvable),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
