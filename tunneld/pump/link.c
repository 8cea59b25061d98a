/* The links of a session: those through the gateway, the first of which is the main one, and the direct one.  Their
 * messages go to the session whichever they come on; what is said about the direct link is taken out before. */
#include "tunneld/pump/internal.h"

#include "lib/num.h"
#include "tunneld/base/log.h"

#include <stdio.h>
#include <string.h>

static const unsigned ranks[TNL_LINKS_MAX] = {
    [0] = 1, [1] = 1, [2] = 1, [3] = 1, [4] = 1, [5] = 1, [6] = 1, [7] = 1, [TD_PUMP_DIRECT] = 0};

static bool has_type(const uint8_t *b, size_t n, const char *type, size_t len)
{
	return n > TNL_MSG_HDR && memcmp(b + 4, type, len) == 0;
}

bool td_pump_is_ack(const uint8_t *b, size_t n)
{
	static const char type[] = "acknowledge ";
	return has_type(b, n, type, sizeof(type) - 1);
}

/* The other end is not there for the gateway: that concerns its link alone. */
static bool is_pause(const uint8_t *b, size_t n)
{
	static const char type[] = "pause_publication ";
	return has_type(b, n, type, sizeof(type) - 1);
}

static bool take_from_relay(struct td_pump *p, const uint8_t *b, size_t n)
{
	if (td_pump_is_word(b, n)) {
		td_pump_take_word(p, b, n);
		return true;
	}
	return p->links[TD_PUMP_DIRECT].w && is_pause(b, n);
}

static void link_message(void *ctx, enum tnl_ws_op op, uint8_t *b, size_t n)
{
	struct td_pump_link *l = ctx;
	struct td_pump *p = l->p;
	unsigned link = (unsigned)(l - p->links);
	if (op != TNL_WS_BINARY) {
		td_debug("pump", tnl_session_id(p->session), "text frame ignored bytes=%zu", n);
		return;
	}
	if (link == TD_PUMP_DIRECT)
		p->direct.st.received += n;
	else if (take_from_relay(p, b, n))
		return;
	if (!td_pump_is_ack(b, n)) {
		p->fed++;
		p->fed_bytes += n;
		p->bulk.fed += n;
	}
	p->depth++;
	int r = tnl_session_feed_on(p->session, link, b, n, p->loop->now);
	p->depth--;
	if (r < 0)
		td_pump_kick(p);
}

static void link_batch_end(void *ctx)
{
	td_pump_run(((struct td_pump_link *)ctx)->p);
}

static void link_closed(void *ctx, int err, uint16_t code, int http_status, const char *why)
{
	struct td_pump_link *l = ctx;
	struct td_pump *p = l->p;
	unsigned link = (unsigned)(l - p->links);
	if (link == TD_PUMP_DIRECT) {
		td_pump_lose_direct(p, err, why ? why : "");
		return;
	}
	if (link != TD_PUMP_RELAY) {
		l->lost = true;
		td_pump_link_drop(p, link);
		return;
	}
	p->lost.told_soon = true;
	p->lost.err = err;
	p->lost.code = code;
	snprintf(p->lost.why, sizeof(p->lost.why), "%s", why ? why : "");
	td_wslink_retire(l->w);
	l->w = NULL;
	td_pump_link_drop(p, link);
	td_pump_relay_went(p);
}

static const struct td_wslink_cb link_cb = {
    .message = link_message,
    .batch_end = link_batch_end,
    .writable = link_batch_end,
    .closed = link_closed,
};

void td_pump_links_init(struct td_pump *p)
{
	for (unsigned i = 0; i < TNL_LINKS_MAX; i++)
		p->links[i].p = p;
	td_pump_direct_init(p);
}

void td_pump_links_fini(struct td_pump *p)
{
	td_pump_direct_fini(p);
	for (unsigned i = 0; i < TNL_LINKS_MAX; i++) {
		td_wslink_retire(p->links[i].w);
		p->links[i].w = NULL;
	}
}

void td_pump_link_drop(struct td_pump *p, unsigned link)
{
	td_wslink_free(p->links[link].w);
	p->links[link].w = NULL;
	tnl_session_link_gone(p->session, link, p->loop->now);
	td_pump_kick(p); /* its deadlines are others now */
}

bool td_pump_link_set(struct td_pump *p, unsigned link, struct td_wslink *w)
{
	if (p->links[link].w)
		td_pump_link_drop(p, link);
	p->links[link].w = w;
	p->links[link].lost = false;
	td_wslink_set_cb(w, &link_cb, &p->links[link]);
	if (link == TD_PUMP_RELAY && p->direct.held_over)
		return true; /* for words alone, and for the gateway's own */
	if (tnl_session_link_add(p->session, link, ranks[link], p->loop->now) !=
	    0) { /* only further ones take memory */
		td_warn("pump", tnl_session_id(p->session), "out of memory, a link is not used link=%u", link);
		td_wslink_free(w);
		p->links[link].w = NULL;
		p->links[link].lost = link != TD_PUMP_DIRECT;
	}
	td_pump_kick(p);
	return p->links[link].w != NULL;
}

void td_pump_attach(struct td_pump *p, struct td_wslink *w)
{
	p->lost.told_soon = false;
	(void)td_pump_link_set(p, TD_PUMP_RELAY, w);
	td_pump_relay_came(p);
}

void td_pump_attach_link(struct td_pump *p, unsigned index, struct td_wslink *w)
{
	(void)td_pump_link_set(p, index, w);
}

void td_pump_detach_link(struct td_pump *p, unsigned index)
{
	p->links[index].lost = false;
	if (p->links[index].w)
		td_pump_link_drop(p, index);
}

struct td_wslink *td_pump_link_at(struct td_pump *p, unsigned index)
{
	return p->links[index].w;
}

unsigned td_pump_links(const struct td_pump *p)
{
	unsigned n = 0;
	for (unsigned i = 0; i < TD_PUMP_LINKS; i++)
		n += p->links[i].w != NULL;
	return n;
}

void td_pump_ping(struct td_pump *p)
{
	for (unsigned i = 0; i < TD_PUMP_LINKS; i++)
		if (p->links[i].w)
			td_wslink_ping(p->links[i].w);
}

void td_pump_detach(struct td_pump *p)
{
	for (unsigned i = 1; i < TD_PUMP_LINKS; i++)
		td_pump_detach_link(p, i);
	if (!p->links[TD_PUMP_RELAY].w)
		return;
	td_pump_link_drop(p, TD_PUMP_RELAY);
	td_pump_relay_went(p);
}

struct td_wslink *td_pump_link(struct td_pump *p)
{
	return p->links[TD_PUMP_RELAY].w;
}
