/* Name resolution over c-ares on the loop.  c-ares 1.18 cannot re-read its configuration: the channel is made anew
 * when /etc/resolv.conf has changed, and the old one stays until its last question is answered. */
#include "tunneld/net/resolve.h"

#include "lib/alloc.h"
#include "lib/err.h"
#include "lib/list.h"
#include "lib/map.h"
#include "tunneld/base/log.h"

#include <ares.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#define MAX_ADDRS 16
#define RESOLVE_TIMEOUT (15 * TD_SEC)
#define ASKED_MAX 2048u /* questions that have owners: c-ares looks at all that wait with each that is asked */

struct watched {
	struct tnl_list node;
	struct channel *c;
	ev_io io;
};

struct channel {
	struct td_loop *l;
	ares_channel ares;
	struct tnl_list fds;
	struct td_timer timer;
	unsigned asked; /* questions not yet answered */
	bool old;	/* no new questions; goes with the last answer */
	struct td_soon end;
};

struct td_dns {
	struct channel *cur;
	struct timespec resolv_mtime;
	struct tnl_list requests; /* all that are alive, to be dropped with the loop */
	struct tnl_map *owners;	  /* struct owner, by name: those who wait for answers */
	unsigned owned;		  /* questions of theirs, also those that nobody wants any more */
};

struct owner {
	struct td_dns *d;
	unsigned asked;
	char name[];
};

struct td_resolve {
	struct tnl_list node;
	struct td_loop *l;
	struct channel *c;   /* NULL when no channel is asked (any more) */
	struct owner *owner; /* while one is asked; NULL: this process itself */
	td_resolve_fn *fn;   /* NULL: cancelled or delivered */
	void *ctx;
	struct td_timer timer;
	struct td_soon deliver;
	uint16_t port;
	int err, n;
	struct td_addr addrs[MAX_ADDRS];
	char why[384], host[256];
};

/* --- channel -------------------------------------------------------------- */

static void channel_timer(struct channel *c)
{
	struct timeval tv, *t = ares_timeout(c->ares, NULL, &tv);
	if (t)
		td_timer_in(&c->timer, (uint64_t)t->tv_sec * TD_SEC + (uint64_t)t->tv_usec * 1000);
	else
		td_timer_stop(&c->timer);
}

static void channel_process(struct channel *c, ares_socket_t rd, ares_socket_t wr)
{
	ares_process_fd(c->ares, rd, wr);
	channel_timer(c);
}

static void on_channel_timer(void *arg)
{
	channel_process(arg, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

static void on_fd(struct ev_loop *ev, ev_io *w, int events)
{
	struct watched *f = w->data;
	channel_process(f->c, events & EV_READ ? w->fd : ARES_SOCKET_BAD, events & EV_WRITE ? w->fd : ARES_SOCKET_BAD);
}

/* c-ares says here what to watch, and (0, 0) before it closes the socket. */
static void on_sock_state(void *data, ares_socket_t fd, int readable, int writable)
{
	struct channel *c = data;
	struct watched *f = NULL;
	int events = (readable ? EV_READ : 0) | (writable ? EV_WRITE : 0);
	tnl_list_foreach(it, &c->fds) {
		struct watched *x = tnl_container_of(it, struct watched, node);
		if (x->io.fd == fd)
			f = x;
	}
	if (f)
		ev_io_stop(c->l->ev, &f->io);
	if (!events) {
		if (f) {
			tnl_list_remove(&f->node);
			td_loop_free_later(c->l, f);
		}
		return;
	}
	if (!f) {
		f = tnl_calloc(1, sizeof(*f));
		if (!f)
			return; /* the question then runs into its time-out */
		f->c = c;
		ev_init(&f->io, on_fd);
		f->io.data = f;
		tnl_list_push_back(&c->fds, &f->node);
	}
	ev_io_set(&f->io, fd, events);
	ev_io_start(c->l->ev, &f->io);
}

static void channel_free(void *arg)
{
	struct channel *c = arg;
	ares_destroy(c->ares);
	td_timer_stop(&c->timer);
	td_loop_free_later(c->l, c);
}

static struct channel *channel_new(struct td_loop *l)
{
	static bool ready;
	if (!ready && ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS)
		return NULL;
	ready = true;
	struct channel *c = tnl_calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	c->l = l;
	tnl_list_init(&c->fds);
	td_timer_init(&c->timer, l, on_channel_timer, c);
	td_soon_init(&c->end, l, channel_free, c);
	struct ares_options o = {.timeout = 2000, .tries = 3, .sock_state_cb = on_sock_state, .sock_state_cb_data = c};
	int r = ares_init_options(&c->ares, &o, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB);
	if (r != ARES_SUCCESS) {
		td_error("dns", NULL, "cannot start the resolver: %s", ares_strerror(r));
		tnl_free(c);
		return NULL;
	}
	return c;
}

static void channel_retire(struct td_dns *d)
{
	struct channel *c = d->cur;
	d->cur = NULL;
	if (!c)
		return;
	c->old = true;
	if (c->asked == 0)
		channel_free(c);
}

static struct channel *channel_current(struct td_loop *l)
{
	struct td_dns *d = l->dns;
	struct stat st = {0};
	stat("/etc/resolv.conf", &st);
	if (d->cur && (st.st_mtim.tv_sec != d->resolv_mtime.tv_sec || st.st_mtim.tv_nsec != d->resolv_mtime.tv_nsec))
		channel_retire(d);
	if (!d->cur) {
		d->cur = channel_new(l);
		d->resolv_mtime = st.st_mtim;
	}
	return d->cur;
}

/* --- whose questions they are ---------------------------------------------- */

static struct owner *owner_of(struct td_dns *d, const char *name)
{
	struct owner *o = tnl_map_get_str(d->owners, name);
	size_t n = strlen(name) + 1;
	if (o)
		return o;
	o = tnl_calloc(1, sizeof(*o) + n);
	if (!o || tnl_map_set_str(d->owners, name, o) != 0) {
		tnl_free(o);
		return NULL;
	}
	o->d = d;
	memcpy(o->name, name, n);
	return o;
}

static void give_place_back(struct td_resolve *r)
{
	struct owner *o = r->owner;
	r->owner = NULL;
	if (!o)
		return;
	o->d->owned--;
	if (--o->asked)
		return;
	(void)tnl_map_del_str(o->d->owners, o->name);
	tnl_free(o);
}

/* A question lives in c-ares until it is answered, or is not in time, whoever has given it up meanwhile.  So an owner
 * may have as many as are free for others. */
static bool take_place(struct td_resolve *r, const char *name)
{
	struct td_dns *d = r->l->dns;
	struct owner *o = owner_of(d, name);
	if (!o)
		return false;
	d->owned++;
	o->asked++;
	r->owner = o;
	if (o->asked - 1 + d->owned <= ASKED_MAX)
		return true;
	give_place_back(r);
	return false;
}

/* --- requests ------------------------------------------------------------- */

static void request_free(struct td_resolve *r)
{
	tnl_list_remove(&r->node);
	td_timer_stop(&r->timer);
	td_soon_cancel(&r->deliver);
	td_loop_free_later(r->l, r);
}

static void deliver_answer(void *arg)
{
	struct td_resolve *r = arg;
	td_resolve_fn *fn = r->fn;
	r->fn = NULL;
	td_timer_stop(&r->timer);
	fn(r->ctx, r->err, r->addrs, r->n, r->why);
	if (!r->c) /* else c-ares still holds the pointer: freed with its answer */
		request_free(r);
}

static void add_addr(struct td_resolve *r, const struct sockaddr *sa, socklen_t len)
{
	struct td_addr *a = &r->addrs[r->n];
	if (r->n == MAX_ADDRS || len > sizeof(a->ss) || (sa->sa_family != AF_INET && sa->sa_family != AF_INET6))
		return;
	memset(a, 0, sizeof(*a));
	memcpy(&a->ss, sa, len);
	a->len = len;
	td_addr_set_port(a, r->port);
	r->n++;
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *ai)
{
	struct td_resolve *r = arg;
	struct channel *c = r->c;
	r->c = NULL;
	give_place_back(r);
	if (ai) {
		for (const struct ares_addrinfo_node *n = ai->nodes; n && status == ARES_SUCCESS; n = n->ai_next)
			add_addr(r, n->ai_addr, n->ai_addrlen);
		ares_freeaddrinfo(ai);
	}
	if (r->n == 0) {
		r->err = status == ARES_ETIMEOUT ? TNL_ETIMEOUT : TNL_ENOTFOUND;
		snprintf(r->why, sizeof(r->why), "cannot resolve %s: %s", r->host,
			 status == ARES_SUCCESS ? "it has no address" : ares_strerror(status));
	}
	if (--c->asked == 0 && c->old)
		td_soon_do(&c->end); /* not from inside a callback of its own */
	if (r->fn)
		td_soon_do(&r->deliver);
	else
		request_free(r);
}

static void on_request_timeout(void *arg)
{
	struct td_resolve *r = arg;
	r->err = TNL_ETIMEOUT;
	r->n = 0;
	snprintf(r->why, sizeof(r->why), "cannot resolve %s: no answer in time", r->host);
	td_soon_do(&r->deliver);
}

static void ask_channel(struct td_resolve *r)
{
	struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
	struct channel *c = channel_current(r->l);
	if (!c) {
		r->err = TNL_ENOTFOUND;
		snprintf(r->why, sizeof(r->why), "cannot resolve %s: no resolver", r->host);
		give_place_back(r);
		td_soon_do(&r->deliver);
		return;
	}
	r->c = c;
	c->asked++;
	td_timer_in(&r->timer, RESOLVE_TIMEOUT);
	ares_getaddrinfo(c->ares, r->host, NULL, &hints, on_answer, r);
	channel_timer(c);
}

/* Unanswered requests are dropped without a call. */
static void dns_free(void *arg)
{
	struct td_loop *l = arg;
	struct td_dns *d = l->dns;
	l->dns = NULL;
	/* Destroying a channel answers each of its questions; nobody wants to hear. Old channels go with their last
	 * one. */
	tnl_list_foreach(it, &d->requests)
		tnl_container_of(it, struct td_resolve, node)->fn = NULL;
	channel_retire(d);
	while (!tnl_list_empty(&d->requests)) {
		struct td_resolve *r = tnl_container_of(d->requests.next, struct td_resolve, node);
		if (r->c)
			ares_cancel(r->c->ares); /* removes its requests through on_answer */
		else
			request_free(r);
	}
	tnl_map_free(d->owners);
	tnl_free(d);
}

static bool dns_start(struct td_loop *l)
{
	struct td_dns *d = tnl_calloc(1, sizeof(*d));
	if (d)
		d->owners = tnl_map_new();
	if (!d || !d->owners) {
		tnl_free(d);
		return false;
	}
	tnl_list_init(&d->requests);
	l->dns = d;
	td_loop_at_free(l, dns_free, l);
	return true;
}

struct td_resolve *td_resolve_start_for(struct td_loop *l, const char *owner, const char *host, uint16_t port,
					td_resolve_fn *fn, void *ctx)
{
	struct td_addr a;
	struct td_resolve *r = l->dns || dns_start(l) ? tnl_calloc(1, sizeof(*r)) : NULL;
	if (!r)
		return NULL;
	r->l = l;
	r->port = port;
	r->fn = fn;
	r->ctx = ctx;
	td_timer_init(&r->timer, l, on_request_timeout, r);
	td_soon_init(&r->deliver, l, deliver_answer, r);
	tnl_list_push_back(&l->dns->requests, &r->node);
	size_t n = strlen(host);
	if (n == 0 || n > 253) {
		r->err = TNL_ENOTFOUND;
		snprintf(r->why, sizeof(r->why), "a host name has 1 to 253 characters, this one %zu", n);
		td_soon_do(&r->deliver);
		return r;
	}
	memcpy(r->host, host, n + 1);
	if (td_addr_literal(host, port, &a)) {
		add_addr(r, &a.sa, a.len);
		td_soon_do(&r->deliver);
	} else if (td_addr_host_is_localhost(host)) {
		td_addr_literal("127.0.0.1", port, &a);
		add_addr(r, &a.sa, a.len);
		td_addr_literal("::1", port, &a);
		if (td_addr_have_ipv6())
			add_addr(r, &a.sa, a.len);
		td_soon_do(&r->deliver);
	} else if (owner && !take_place(r, owner)) {
		r->err = TNL_ELIMIT;
		snprintf(r->why, sizeof(r->why), "cannot resolve %s: as many names as may be are waited for", r->host);
		td_soon_do(&r->deliver);
	} else {
		ask_channel(r);
	}
	return r;
}

struct td_resolve *td_resolve_start(struct td_loop *l, const char *host, uint16_t port, td_resolve_fn *fn, void *ctx)
{
	return td_resolve_start_for(l, NULL, host, port, fn, ctx);
}

void td_resolve_cancel(struct td_resolve *r)
{
	if (!r || !r->fn)
		return;
	r->fn = NULL;
	td_timer_stop(&r->timer);
	td_soon_cancel(&r->deliver);
	if (!r->c)
		request_free(r); /* else with the answer */
}
