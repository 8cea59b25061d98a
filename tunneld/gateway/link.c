/* A WebSocket to an agent or a client: from its upgrade on it waits for the frame with the token, then it belongs to an
 * end of a session or to an instance, which hear of it through the callbacks that they set.  A link knows of its owner
 * only the name, for the log.
 *
 * An open data channel is on a worker (worker_internal.h).  What happens to it there and is not the relay's, its end
 * above all, is put down in it and mailed to the main loop; until that has dealt with it nothing comes from it any
 * more.
 *
 * Until a token is verified anybody can have one, so those that wait are counted for each peer address, and the oldest
 * makes way for the next. */
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/num.h"
#include <string.h>

#define UNVERIFIED_TAKES (32u * 1024)

static const char *const phase_names[] = {[GW_L_TOKEN] = "TOKEN", [GW_L_OPEN] = "OPEN", [GW_L_CLOSING] = "CLOSING"};
static const struct gw_link_cb nobody;

#define RETURN_MAX (64u * 1024) /* of the next request, read together with a close frame */

static const char *session_id(const struct gw_link *l)
{
	return l->end ? l->end->s->id : NULL;
}

static void set_phase(struct gw_link *l, enum gw_phase phase)
{
	td_debug("gateway", session_id(l), "link phase=%s before=%s peer=%s channel=%s", phase_names[phase],
		 phase_names[l->phase], td_wslink_peer(l->w), l->id);
	l->phase = phase;
}

/* --- the end of one --------------------------------------------------------------- */
static void tell_owner(struct gw_link *l)
{
	if (l->end || l->inst) { /* it was open */
		l->how = l->how ? l->how : "closed";
		gw_audit_link(l, "link-end");
	}
	const struct gw_link_cb *cb = l->cb;
	l->cb = &nobody;
	if (cb->gone)
		cb->gone(l);
	l->end = NULL;
	l->inst = NULL;
}

static void on_mail(void *arg);

static void mail_close(struct gw_link *l, uint16_t code, const char *reason)
{
	if (!l->met.close_code) {
		l->met.close_code = code;
		l->met.reason = reason;
	}
	gw_worker_mail(l->worker, &l->mail, on_mail, l);
}

void gw_link_close(struct gw_link *l, uint16_t code, const char *reason)
{
	if (l->phase == GW_L_CLOSING)
		return;
	if (td_worker_here()) {
		mail_close(l, code, reason);
		return;
	}
	gw_worker_hold(l->worker);
	l->how = reason;
	td_store_forget(l->g->store, l);
	set_phase(l, GW_L_CLOSING);
	td_timer_stop(&l->timer);
	tnl_list_remove(&l->unverified);
	tell_owner(l);
	td_wslink_pause(l->w, false); /* its answer to the close frame must be read */
	td_wslink_close(l->w, code, reason);
}

void gw_link_free(struct gw_link *l)
{
	gw_worker_hold(l->worker);
	gw_mail_cancel(&l->mail);
	td_timer_stop(&l->timer);
	if (l->handed)
		tnl_map_del_u64(l->g->handed, l->handed);
	td_peers_leave(l->g->pending, &l->pending);
	tell_owner(l);
	td_store_forget(l->g->store, l);
	if (l->frame)
		tnl_free_wiped(l->frame, l->frame_len);
	tnl_free(l->grant);
	tnl_list_remove(&l->node);
	tnl_list_remove(&l->unverified);
	if (l->w)
		td_wslink_free(l->w);
	tnl_free(l->id);
	tnl_free(l->user);
	tnl_free(l->instance);
	tnl_free(l->key_id);
	gw_queue_clear(&l->met.words);
	tnl_free(l->met.why);
	l->worker->links--;
	tnl_free(l);
}

void gw_link_replace(struct gw_link *l, const char *reason)
{
	gw_worker_hold(l->worker);
	l->cb = &nobody;
	gw_link_close(l, 1008, reason);
}

void gw_link_drop(struct gw_link *l)
{
	gw_worker_hold(l->worker);
	l->cb = &nobody;
	gw_link_free(l);
}

void gw_link_complain(struct gw_link *l, const char *what, const char *field)
{
	gw_count(l->g, GW_C_FRAMES_REFUSED);
	if (l->complaints++ == 0)
		td_warn("gateway", session_id(l), "%s peer=%s channel=%s field=\"%s\"", what, td_wslink_peer(l->w),
			l->id, field);
	if (l->complaints < GW_COMPLAINTS_MAX || l->phase == GW_L_CLOSING)
		return;
	td_warn("gateway", session_id(l), "link closed: too many refused messages peer=%s channel=%s",
		td_wslink_peer(l->w), l->id);
	gw_link_close(l, 1008, "too many refused messages");
}

void gw_link_refuse_token(struct gw_link *l, const char *field)
{
	gw_count(l->g, GW_C_TOKENS_REFUSED);
	const char *name = l->user ? l->user : l->instance;
	td_warn("gateway", NULL, "channel refused peer=%s channel=%s key=%s %s=%s field=\"%s\"", td_wslink_peer(l->w),
		l->id, l->key_id ? l->key_id : "-", l->instance ? "instance" : "user", name ? name : "-", field);
	const struct gw_denial d = {.op = "token",
				    .peer = td_wslink_peer(l->w),
				    .who = l->keys.n ? gw_keys_by_mark(l->g, l->keys.v[0]) : NULL,
				    .proven = l->keys.n > 0,
				    .target = l->id,
				    .reason = "token refused",
				    .text = field};
	gw_audit_refused(l->g, &d);
	l->complaints++;
	gw_link_close(l, 1008, "token refused");
}

/* The next session of these two ends needs no new connection. */
static void return_connection(struct gw_link *l)
{
	struct tnl_buf bytes;
	tnl_buf_init(&bytes, RETURN_MAX);
	struct td_conn *conn = td_wslink_return(l->w, &bytes);
	if (conn) {
		td_conn_move(conn, l->g->l);
		td_http_server_take(l->g->httpd, conn, &l->peer, &bytes);
	}
	tnl_buf_fini_wiped(&bytes);
}

/* --- what the WebSocket says -------------------------------------------------------- */
static void end_link(struct gw_link *l, int err, uint16_t code, const char *why)
{
	struct td_gateway *g = l->g;
	bool peers_fault = err == TNL_EPROTO || err == TNL_ETOOBIG || err == TNL_ESYNTAX;
	if (peers_fault) {
		gw_count(g, GW_C_FRAMES_REFUSED);
		td_warn("gateway", session_id(l), "link refused peer=%s channel=%s code=%u field=\"%s\"",
			td_wslink_peer(l->w), l->id, code, why ? why : "");
	} else {
		td_debug("gateway", session_id(l), "link closed peer=%s channel=%s code=%u error=\"%s\"",
			 td_wslink_peer(l->w), l->id, code, tnl_err_text(err));
	}
	if (l->phase == GW_L_OPEN) {
		gw_count(g, GW_C_LINKS_BROKEN);
		l->how = code && code != 1006 ? "closed by the peer" : "broken";
	}
	tell_owner(l);
	return_connection(l);
	gw_link_free(l);
}

static void on_closed(void *ctx, int err, uint16_t code, int http_status, const char *why)
{
	struct gw_link *l = ctx;
	if (!td_worker_here()) {
		end_link(l, err, code, why);
		return;
	}
	l->met.over = true;
	l->met.err = err;
	l->met.code = code;
	l->met.why = tnl_strdup(why ? why : "");
	gw_worker_mail(l->worker, &l->mail, on_mail, l);
}

static void on_writable(void *ctx)
{
	struct gw_link *l = ctx;
	if (l->phase == GW_L_OPEN)
		l->cb->writable(l);
}

static void on_muted(void *ctx)
{
	struct gw_link *l = ctx;
	gw_count(l->g, GW_C_LIMIT_UNREAD_PONGS);
}

static void on_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n)
{
	struct gw_link *l = ctx;
	bool text = op == TNL_WS_TEXT;
	if (l->phase == GW_L_CLOSING || l->met.close_code)
		return;
	if (text == (l->phase == GW_L_TOKEN)) {
		l->cb->message(l, p, n);
		return;
	}
	if (text) {
		gw_link_complain(l, "text frame after the token frame", "opcode");
		gw_link_close(l, 1003, "binary frames only");
	} else {
		gw_link_complain(l, "first frame is not the token frame", "opcode");
		gw_link_close(l, 1008, "token frame expected");
	}
}

/* --- what was met on its worker ---------------------------------------------------- */
#define WORDS_MAX (32u * 1024)

void gw_link_hand_in(struct gw_link *l, const uint8_t *p, size_t n)
{
	if (l->met.words.bytes + n > WORDS_MAX || gw_queue_put(&l->met.words, p, n) != 0)
		gw_count(l->g, GW_C_FRAMES_IGNORED);
	else
		gw_worker_mail(l->worker, &l->mail, on_mail, l);
}

/* Its worker is held. */
static void on_mail(void *arg)
{
	struct gw_link *l = arg;
	struct gw_queue words = l->met.words;
	size_t n;
	const uint8_t *p;
	l->met.words = (struct gw_queue){0};
	while ((p = gw_queue_peek(&words, &n)) != NULL) {
		if (l->phase == GW_L_OPEN)
			l->cb->message(l, (uint8_t *)(uintptr_t)p, n);
		gw_queue_pop(&words);
	}
	if (l->met.close_code)
		gw_link_close(l, l->met.close_code, l->met.reason);
	if (l->met.over)
		end_link(l, l->met.err, l->met.code, l->met.why);
}

static void on_token_late(void *arg)
{
	struct gw_link *l = arg;
	gw_link_complain(l, "no token frame in time", "token frame");
	gw_link_close(l, 1008, "token frame expected");
}

/* --- the beginning ------------------------------------------------------------------- */
static bool is_stock(const struct tnl_http_head *h)
{
	size_t n;
	const char *ua = tnl_http_get(h, "User-Agent", &n);
	return !ua || n < 8 || memcmp(ua, "tunneld/", 8) != 0;
}

/* As with requests that are not complete (http_server_silent.c): those that wait for a token must not be what fills
 * memory. */
static bool too_many_unverified(const struct td_gateway *g)
{
	uint64_t max = td_memory_max(), n = 0;
	if (td_memory_used() <= max - max / 4)
		return false;
	tnl_list_foreach(it, &g->unverified) {
		if (++n > max / 8 / UNVERIFIED_TAKES)
			return true;
	}
	return false;
}

static void relieve(struct td_gateway *g)
{
	for (int i = 0; i < 2 && too_many_unverified(g); i++) {
		gw_count(g, GW_C_LIMIT_UNVERIFIED_LINKS);
		struct gw_link *l = tnl_container_of(g->unverified.next, struct gw_link, unverified);
		gw_link_complain(l, "no token frame before others needed the memory", "token frame");
		gw_link_free(l);
	}
}

/* One more that waits for its token: the oldest of the same peer makes way, if there are too many. */
static bool count_unverified(struct td_gateway *g, const struct td_addr *peer, struct td_peer *counted)
{
	unsigned max = g->cfg->gw.per_peer_connections;
	if (td_peers_enter(g->pending, peer, max, counted))
		return true;
	struct td_peer who = td_peer_of(peer);
	tnl_list_foreach(it, &g->unverified) {
		struct gw_link *l = tnl_container_of(it, struct gw_link, unverified);
		if (l->pending.len != who.len || memcmp(l->pending.key, who.key, who.len) != 0)
			continue;
		gw_count(g, GW_C_LIMIT_UNVERIFIED_LINKS);
		gw_link_complain(l, "no token frame before too many others came", "token frame");
		td_peers_leave(g->pending, &l->pending);
		gw_link_close(l, 1008, "token frame expected");
		return td_peers_enter(g->pending, peer, max, counted);
	}
	return false;
}

int gw_link_new(struct td_gateway *g, const struct td_request *r, enum gw_role role, const char *id,
		const struct gw_principal *who, struct gw_link **out)
{
	const char *field;
	relieve(g);
	struct gw_link *l = tnl_calloc(1, sizeof(*l));
	if (!l)
		return TNL_ENOMEM;
	l->g = g;
	l->worker = &g->here;
	g->here.links++;
	l->cb = &nobody;
	l->role = role;
	l->stock = is_stock(td_request_head(r));
	l->peer = *td_request_peer_addr(r);
	l->handed = td_request_handed(r);
	tnl_list_init(&l->node);
	tnl_list_init(&l->unverified);
	td_timer_init(&l->timer, g->l, on_token_late, l);
	l->id = tnl_strdup(id);
	if (who && who->user)
		l->user = tnl_strdup(who->user->name);
	if (who && who->instance)
		l->instance = tnl_strdup(who->instance->id);
	bool whole = l->id && (!l->handed || tnl_map_set_u64(g->handed, l->handed, l) == 0) &&
		     (!who || ((l->user || l->instance) && gw_link_add_key(l, who->mark, &field)));
	if (!whole || !count_unverified(g, td_request_peer_addr(r), &l->pending)) {
		gw_link_free(l);
		return whole ? TNL_ELIMIT : TNL_ENOMEM;
	}
	*out = l;
	return 0;
}

void gw_link_upgrade(struct gw_link *l, struct td_request *r, const struct gw_link_cb *cb)
{
	static const struct td_wslink_cb link_cb = {.message = on_message,
						    .writable = on_writable,
						    .muted = on_muted,
						    .closed = on_closed};
	struct td_gateway *g = l->g;
	/* With several nodes the next request may be another one's. */
	bool returns = !l->stock && !g->shared && !td_request_handed(r) && td_request_offers_return(r);
	const struct td_wslink_opts o = {.returns = returns,
					 .ping_ns = g->cfg->gw.ping_interval_ns,
					 .pong_ns = g->cfg->gw.pong_timeout_ns,
					 .max_message = GW_TOKEN_FRAME_MAX,
					 .whole_only = true};
	tnl_list_push_back(&g->links, &l->node);
	tnl_list_push_back(&g->unverified, &l->unverified);
	l->cb = cb;
	l->w = td_request_upgrade(r, &o, &link_cb, l);
	if (!l->w) {
		gw_link_free(l);
		return;
	}
	gw_count(g, GW_C_LINKS_OPENED);
	td_timer_in(&l->timer, GW_TOKEN_FRAME_NS);
}

/* Of an open link, with the worker that it leaves. */
void gw_link_move(struct gw_link *l, struct gw_worker *k)
{
	gw_worker_hold(l->worker);
	gw_worker_hold(k);
	l->worker->links--;
	k->links++;
	l->worker = k;
	td_wslink_move(l->w, k->l);
}

/* Of a link that is not upgraded yet the request was looked at (auth.c). */
static bool has_certificate(const struct gw_link *l, const struct gw_principal *p)
{
	const char *name = gw_keys_certificate(p);
	gw_worker_hold(l->worker);
	return !name || !l->w || td_wslink_cert_named(l->w, name);
}

bool gw_link_add_key(struct gw_link *l, const uint8_t mark[GW_MARK], const char **field)
{
	const struct gw_principal *p = gw_keys_by_mark(l->g, mark);
	*field = "client certificate";
	if (p && !has_certificate(l, p))
		return false;
	*field = "memory";
	char *id = p ? tnl_strdup(p->key_id) : NULL;
	if (!id || l->keys.n == TNL_COUNT(l->keys.v)) {
		tnl_free(id);
		return false;
	}
	memcpy(l->keys.v[l->keys.n++], mark, GW_MARK);
	tnl_free(l->key_id);
	l->key_id = id;
	return true;
}

/* What the link lives by and has no more; NULL: nothing. */
static const char *find_lost(const struct gw_link *l)
{
	for (unsigned i = 0; i < l->keys.n; i++) {
		const struct gw_principal *p = gw_keys_by_mark(l->g, l->keys.v[i]);
		if (!p)
			return "access key was taken away";
		if (!has_certificate(l, p))
			return "client certificate has not the name that its key is bound to";
	}
	return NULL;
}

bool gw_link_has_keys(const struct gw_link *l)
{
	return !find_lost(l);
}

void gw_links_recheck(struct td_gateway *g)
{
	tnl_list_foreach_safe(it, &g->links) {
		struct gw_link *l = tnl_container_of(it, struct gw_link, node);
		const char *lost = l->phase == GW_L_CLOSING ? NULL : find_lost(l);
		if (!lost)
			continue;
		td_warn("gateway", session_id(l), "link closed: its %s peer=%s channel=%s key=%s", lost,
			td_wslink_peer(l->w), l->id, l->key_id);
		gw_link_close(l, 1008, lost);
	}
}

void gw_link_open(struct gw_link *l, const struct gw_link_cb *cb)
{
	td_timer_stop(&l->timer);
	td_peers_leave(l->g->pending, &l->pending);
	tnl_list_remove(&l->unverified);
	l->cb = cb;
	td_wslink_trust(l->w, TNL_WS_MAX_MESSAGE);
	set_phase(l, GW_L_OPEN);
	l->opened = l->g->l->now;
}

size_t gw_message_encode(struct td_gateway *g, uint8_t *out, enum tnl_mtype t, const void *p, size_t n)
{
	struct tnl_msg m = {.type = t, .schema = 1, .created_ms = g->l->wall_ms, .payload = p, .plen = (uint32_t)n};
	tnl_uuid_new(m.id);
	return tnl_msg_encode(out, &m);
}
