#include "tunneld/net/http_kept.h"

#include "lib/alloc.h"

#include <stdio.h>
#include <string.h>

struct kept {
	struct tnl_list node;
	struct td_http_kept *k;
	struct td_conn *conn;
	struct td_timer timer;
	uint64_t since_ms; /* wall time: the machine may have slept */
	char place[];
};

static struct td_conn *release(struct kept *e)
{
	struct td_conn *c = e->conn;
	td_timer_stop(&e->timer);
	tnl_list_remove(&e->node);
	e->k->count--;
	tnl_free(e);
	return c;
}

static void drop(void *arg)
{
	td_conn_free(release(arg));
}

/* Nothing was asked for: whatever comes now is no answer. */
static void on_readable(void *ctx)
{
	struct kept *e = ctx;
	uint8_t b[1];
	if (td_conn_read(e->conn, b, sizeof(b)) > 0)
		drop(e);
}

static void on_closed(void *ctx, int err, const char *why)
{
	drop(ctx);
}

static const struct td_conn_cb conn_cb = {.readable = on_readable, .closed = on_closed};

void td_http_kept_init(struct td_http_kept *k, struct td_loop *l)
{
	k->l = l;
	k->count = 0;
	tnl_list_init(&k->conns);
	tnl_list_init(&k->leases);
}

void td_http_kept_fini(struct td_http_kept *k)
{
	while (k->count)
		drop(tnl_container_of(k->conns.next, struct kept, node));
	while (!tnl_list_empty(&k->leases)) {
		struct td_http_lease *e = tnl_container_of(k->leases.next, struct td_http_lease, node);
		tnl_list_remove(&e->node);
		e->kept = NULL;
		e->gone(e);
	}
}

void td_http_kept_place(char out[TD_HTTP_PLACE], bool tls, const char *host, uint16_t port,
			const struct td_proxy *proxy)
{
	static const struct td_proxy none;
	const struct td_proxy *p = proxy ? proxy : &none;
	snprintf(out, TD_HTTP_PLACE, "%d %s %u via %d %s %u %s", tls, host, port, p->tls, p->host, p->port, p->user);
}

struct td_conn *td_http_kept_take(struct td_http_kept *k, const char *place)
{
	tnl_list_foreach_safe(it, &k->conns) {
		struct kept *e = tnl_container_of(it, struct kept, node);
		if (k->l->wall_ms - e->since_ms > TD_HTTP_KEPT_NS / TD_MS) /* or the clock was set back */
			drop(e);
		else if (strcmp(e->place, place) == 0)
			return release(e);
	}
	return NULL;
}

void td_http_kept_put(struct td_http_kept *k, const char *place, struct td_conn *c)
{
	size_t n = strlen(place) + 1;
	struct kept *e = tnl_malloc(sizeof(*e) + n);
	if (!e) {
		td_conn_free(c);
		return;
	}
	if (k->count == TD_HTTP_KEPT_MAX)
		drop(tnl_container_of(k->conns.prev, struct kept, node));
	memset(e, 0, sizeof(*e));
	e->k = k;
	e->conn = c;
	e->since_ms = k->l->wall_ms;
	memcpy(e->place, place, n);
	td_timer_init(&e->timer, k->l, drop, e);
	td_timer_in(&e->timer, TD_HTTP_KEPT_NS);
	td_conn_set_cb(c, &conn_cb, e);
	tnl_list_push_front(&k->conns, &e->node);
	k->count++;
}

/* --- those that may come back ---------------------------------------------------- */

void td_http_lease_begin(struct td_http_lease *e, struct td_http_kept *k, const char *place,
			 void (*gone)(struct td_http_lease *e))
{
	*e = (struct td_http_lease){.place = tnl_strdup(place), .gone = gone};
	tnl_list_init(&e->node);
	if (!e->place)
		return;
	e->kept = k;
	tnl_list_push_back(&k->leases, &e->node);
}

void td_http_lease_end(struct td_http_lease *e, struct td_conn *c)
{
	if (c && e->kept)
		td_http_kept_put(e->kept, e->place, c);
	else
		td_conn_free(c);
	if (e->kept)
		tnl_list_remove(&e->node);
	tnl_free(e->place);
	e->kept = NULL;
	e->place = NULL;
}
