/* Connecting to the first of several addresses that answers (RFC 8305 without the resolver part): the next one is
 * tried when the one before failed, or beside it after a quarter of a second. */
#include "tunneld/net/dial.h"

#include "lib/alloc.h"
#include "lib/err.h"
#include "lib/num.h"
#include "tunneld/base/fd.h"
#include "tunneld/net/tcp_hop.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_ADDRS 16
#define STAGGER (250 * TD_MS)

struct attempt {
	struct td_dial *d;
	ev_io io;
	int fd; /* -1: not begun or failed */
};

struct td_dial {
	struct td_loop *l;
	td_dial_fn *fn;
	void *ctx;
	int n, next, open;
	bool many;
	uint64_t deadline;
	struct td_timer timer;
	struct td_soon deliver;
	int fd, won; /* the connected one and its address; fd -1: none (yet) */
	int err, system_error;
	char why[256];
	struct td_addr addrs[MAX_ADDRS];
	struct attempt tries[MAX_ADDRS];
};

static void drop_attempt(struct attempt *t)
{
	if (t->fd < 0)
		return;
	ev_io_stop(t->d->l->ev, &t->io);
	close(t->fd);
	t->fd = -1;
	t->d->open--;
}

/* No more attempts. */
static void stop_attempts(struct td_dial *d)
{
	td_timer_stop(&d->timer);
	for (int i = 0; i < d->next; i++)
		drop_attempt(&d->tries[i]);
}

static void settle_dial(struct td_dial *d)
{
	stop_attempts(d);
	td_soon_do(&d->deliver);
}

static void deliver_result(void *arg)
{
	struct td_dial *d = arg;
	if (d->fd >= 0)
		d->fn(d->ctx, d->fd, &d->addrs[d->won], 0, "");
	else
		d->fn(d->ctx, -1, NULL, d->err, d->why);
	td_loop_free_later(d->l, d);
}

static void note_failure(struct td_dial *d, int i, int err)
{
	char name[TD_ADDR_STR];
	/* A refusal says more than a silence or a missing route. */
	if (d->err == TNL_EREFUSED)
		return;
	d->err = err == ECONNREFUSED ? TNL_EREFUSED : err == ETIMEDOUT ? TNL_ETIMEOUT : TNL_EUNREACH;
	d->system_error = err;
	snprintf(d->why, sizeof(d->why), "%s: %s", td_addr_str(&d->addrs[i], name), strerror(err));
}

/* A dialed port of our own range can meet itself (simultaneous open): nobody listens there. */
static bool met_itself(int fd)
{
	struct td_addr a = {.len = sizeof(a.ss)}, b = {.len = sizeof(b.ss)};
	if (getsockname(fd, &a.sa, &a.len) != 0 || getpeername(fd, &b.sa, &b.len) != 0)
		return false;
	return a.sa.sa_family != AF_UNIX && a.len == b.len && memcmp(&a.ss, &b.ss, a.len) == 0;
}

static void try_next(struct td_dial *d);

static void take_winner(struct td_dial *d, int i)
{
	d->fd = d->tries[i].fd;
	d->won = i;
	ev_io_stop(d->l->ev, &d->tries[i].io);
	d->tries[i].fd = -1;
	d->open--;
	settle_dial(d);
}

static void on_connected(struct ev_loop *ev, ev_io *w, int events)
{
	struct attempt *t = w->data;
	struct td_dial *d = t->d;
	int err = 0, i = (int)(t - d->tries);
	socklen_t len = sizeof(err);
	if (getsockopt(t->fd, SOL_SOCKET, SO_ERROR, &err, &len) != 0)
		err = errno;
	if (err == 0 && met_itself(t->fd))
		err = ECONNREFUSED;
	if (err == 0) {
		take_winner(d, i);
		return;
	}
	note_failure(d, i, err);
	drop_attempt(t);
	try_next(d);
}

/* Begins one attempt; 0: under way (or won), else errno. */
static int begin_attempt(struct td_dial *d, int i)
{
	const struct td_addr *a = &d->addrs[i];
	struct attempt *t = &d->tries[i];
	int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return errno;
	if (d->many && td_fd_is_spare(fd)) {
		close(fd);
		return EMFILE;
	}
	if (a->sa.sa_family != AF_UNIX)
		td_fd_nodelay(fd);
	td_tcp_hop_local(fd, a);
	int err = connect(fd, &a->sa, a->len) == 0 ? 0 : errno;
	if (err == 0 && met_itself(fd))
		err = ECONNREFUSED;
	if (err != 0 && err != EINPROGRESS) {
		close(fd);
		return err;
	}
	t->d = d;
	t->fd = fd;
	d->open++;
	ev_io_init(&t->io, on_connected, fd, EV_WRITE);
	t->io.data = t;
	if (err == 0)
		take_winner(d, i);
	else
		ev_io_start(d->l->ev, &t->io);
	return 0;
}

static void try_next(struct td_dial *d)
{
	while (d->next < d->n) {
		int i = d->next++;
		d->tries[i].fd = -1;
		int err = begin_attempt(d, i);
		if (d->fd >= 0)
			return;
		if (err == 0) {
			uint64_t at = d->next < d->n ? d->l->now + STAGGER : d->deadline;
			td_timer_at(&d->timer, TNL_MIN(at, d->deadline));
			return;
		}
		note_failure(d, i, err);
	}
	td_timer_at(&d->timer, d->deadline);
	if (d->open == 0)
		settle_dial(d);
}

static void on_timer(void *arg)
{
	struct td_dial *d = arg;
	char name[TD_ADDR_STR];
	if (d->l->now < d->deadline) {
		try_next(d);
		return;
	}
	d->err = TNL_ETIMEOUT;
	d->system_error = 0;
	snprintf(d->why, sizeof(d->why), "%s: no answer in time", td_addr_str(&d->addrs[0], name));
	settle_dial(d);
}

int td_dial_errno(const struct td_dial *d)
{
	return d->system_error;
}

static struct td_dial *dial_new(struct td_loop *l, const struct td_addr *addrs, int n, uint64_t timeout_ns,
				td_dial_fn *fn, void *ctx)
{
	struct td_dial *d = tnl_calloc(1, sizeof(*d));
	if (!d)
		return NULL;
	d->l = l;
	d->fn = fn;
	d->ctx = ctx;
	d->fd = -1;
	d->n = TNL_MIN(n, MAX_ADDRS);
	for (int i = 0; i < d->n; i++)
		d->addrs[i] = addrs[i];
	d->err = TNL_EUNREACH;
	snprintf(d->why, sizeof(d->why), "no address to connect to");
	d->deadline = l->now + timeout_ns;
	td_timer_init(&d->timer, l, on_timer, d);
	td_soon_init(&d->deliver, l, deliver_result, d);
	return d;
}

struct td_dial *td_dial_start(struct td_loop *l, const struct td_addr *addrs, int n, uint64_t timeout_ns,
			      td_dial_fn *fn, void *ctx)
{
	struct td_dial *d = dial_new(l, addrs, n, timeout_ns, fn, ctx);
	if (d)
		try_next(d);
	return d;
}

struct td_dial *td_dial_start_many(struct td_loop *l, const struct td_addr *addrs, int n, uint64_t timeout_ns,
				   td_dial_fn *fn, void *ctx)
{
	struct td_dial *d = dial_new(l, addrs, n, timeout_ns, fn, ctx);
	if (!d)
		return NULL;
	d->many = true;
	try_next(d);
	return d;
}

void td_dial_cancel(struct td_dial *d)
{
	if (!d)
		return;
	stop_attempts(d);
	td_soon_cancel(&d->deliver);
	if (d->fd >= 0)
		close(d->fd);
	td_loop_free_later(d->l, d);
}
