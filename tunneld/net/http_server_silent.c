/* Connections whose request is not whole: how many there may be, what they may take, and who makes way for others. */
#include "tunneld/net/http_server_internal.h"

#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"

/* Of all peers together; the second while memory is at less than half its limit. Ten thousand agents that come back at
 * once are silent for as long as their handshakes take. */
#define SILENT_MAX 4096u
#define SILENT_MOST 16384u
#define BASE_TAKES (16u * 1024) /* the connection and its TLS; what it has sent comes on top */

static struct silent_list *silent_of(struct hconn *c)
{
	return c->handed ? &c->h->silent_handed : &c->h->silent;
}

static void set_takes(struct hconn *c, size_t bytes)
{
	silent_of(c)->bytes += bytes - c->takes;
	c->takes = bytes;
}

void td_hconn_silent(struct hconn *c)
{
	if (!tnl_list_empty(&c->silent))
		return;
	tnl_list_push_back(&silent_of(c)->list, &c->silent);
	silent_of(c)->n++;
	set_takes(c, BASE_TAKES + c->in.cap);
}

void td_hconn_heard(struct hconn *c)
{
	if (tnl_list_empty(&c->silent))
		return;
	tnl_list_remove(&c->silent);
	silent_of(c)->n--;
	set_takes(c, 0);
}

static void makes_way(struct hconn *c)
{
	td_debug("httpd", NULL, "connection made way for another peer=%s", td_conn_peer(c->conn));
	if (c->h->cfg.made_way && !tnl_list_empty(&c->silent))
		c->h->cfg.made_way(c->h->cfg.ctx);
	td_hconn_free(c);
}

/* While three quarters of memory are taken requests of which something is missing have an eighth of it: whoever has
 * taken longest makes way. */
static void relieve(struct td_http_server *h, struct silent_list *l)
{
	uint64_t max = td_memory_max();
	for (int i = 0; i < 2 && l->n && td_memory_used() > max - max / 4 && l->bytes > max / 8; i++) {
		struct hconn *c = tnl_container_of(l->list.next, struct hconn, silent);
		if (h->cfg.refused)
			h->cfg.refused(h->cfg.ctx, td_conn_peer(c->conn), 503,
				       "request: not complete, and others need its memory");
		makes_way(c);
	}
}

void td_hconn_grown(struct hconn *c)
{
	if (tnl_list_empty(&c->silent))
		return;
	set_takes(c, BASE_TAKES + c->in.cap);
	relieve(c->h, silent_of(c));
}

bool td_http_server_drop_silent(struct silent_list *l, const struct td_peer *of)
{
	tnl_list_foreach(it, &l->list) {
		struct hconn *c = tnl_container_of(it, struct hconn, silent);
		if (of && (c->counted.len != of->len || memcmp(c->counted.key, of->key, of->len) != 0))
			continue;
		makes_way(c);
		return true;
	}
	return false;
}

/* Descriptors are short: of the connections that wait for a request the oldest goes. */
static void drop_oldest_quiet(struct td_http_server *h)
{
	tnl_list_foreach_safe(it, &h->conns) {
		struct hconn *c = tnl_container_of(it, struct hconn, node);
		if (c->state != HC_HEAD)
			continue;
		makes_way(c);
		return;
	}
}

void td_http_server_make_way(struct td_http_server *h)
{
	if (td_fd_short()) /* the new one itself may have the number of what made way before it */
		drop_oldest_quiet(h);
	relieve(h, &h->silent);
	if (h->silent.n >= (td_memory_used() < td_memory_max() / 2 ? SILENT_MOST : SILENT_MAX))
		td_http_server_drop_silent(&h->silent, NULL);
}

void td_http_server_make_way_handed(struct td_http_server *h)
{
	if (h->silent_handed.n >= SILENT_MAX) /* apart: of who comes by himself none makes way for them */
		td_http_server_drop_silent(&h->silent_handed, NULL);
}
