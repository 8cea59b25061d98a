/* Tokens that a shared store knows of.  Any node may have granted the token that a link begins with, and of all nodes
 * only one may take it, so the store is asked before the link goes on: for the session when it is not here, for the
 * token, and then for the session's ownership: when its node is gone, when it is one of ours that went elsewhere
 * meanwhile, or when, where links are not handed on, the node in its id is gone and its ends came to different ones.
 * After that the token is among those that were granted here, or is not, and the link is decided upon as always.
 *
 * While the store is away, what was granted here is good here. */
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include "lib/wire.h"
#include <string.h>

static void go_on(struct gw_link *l)
{
	uint8_t *p = l->frame;
	l->frame = NULL;
	td_wslink_pause(l->w, false);
	size_t n = l->frame_len;
	l->settled(l, p, n); /* may free it */
	tnl_free_wiped(p, n);
}

static void send_away(struct gw_link *l, const char *why)
{
	td_info("gateway", NULL, "link is to come again peer=%s channel=%s reason=\"%s\"", td_wslink_peer(l->w), l->id,
		why);
	gw_link_close(l, 1013, why);
}

static enum gw_role role_of(const struct gw_link *l)
{
	return l->role == GW_CONTROL ? GW_CONTROL : l->instance ? GW_AGENT : GW_CLIENT;
}

/* Where tokens of this link's kind are; NULL: the session is not here. */
static struct gw_tokens *tokens_of(const struct gw_link *l, unsigned link)
{
	if (l->role == GW_CONTROL) {
		struct gw_instance *i = gw_instance_get(l->g, l->id);
		return i ? &i->tokens : NULL;
	}
	struct gw_session *s = gw_session_get(l->g, l->id);
	struct gw_end *e = s ? &s->ends[role_of(l)] : NULL;
	return !e ? NULL : link ? &e->link_tokens : &e->tokens;
}

static void forget_tokens(struct gw_link *l)
{
	for (unsigned link = 0; link < 2; link++) {
		struct gw_tokens *t = tokens_of(l, link);
		for (unsigned i = 0; t && i < l->nhashes; i++)
			gw_token_missing(t, l->hashes[i]);
	}
}

/* --- the ownership ------------------------------------------------------------------ */
static void take_grant(struct gw_link *l, struct gw_grant *gr)
{
	struct gw_tokens *t = tokens_of(l, gr->link);
	struct gw_session *s = l->role == GW_CONTROL ? NULL : gw_session_get(l->g, l->id);
	if (s && gr->role == GW_CLIENT && s->ends[GW_CLIENT].client_id_set && !gr->bound) {
		gr->bound = true; /* as they are here from the first client on */
		gr->client_id = s->ends[GW_CLIENT].client_id;
	}
	if (t)
		gw_token_found(l->g, t, l->hashes[0], gr);
	go_on(l);
}

static bool is_home(const struct gw_link *l)
{
	char node[TD_NODE_MAX + 1];
	return gw_session_id_node(l->id, node) && strcmp(node, l->g->node) == 0;
}

/* The token was good, and is used up. */
static void on_taken(void *ctx, int err, const struct td_store_found *f)
{
	struct gw_link *l = ctx;
	struct gw_grant gr;
	char *value = l->grant;
	l->grant = NULL;
	bool ours = err == 0 && (f->where == TD_STORE_OURS || f->where == TD_STORE_ENDED);
	if (err != 0)
		send_away(l, "the store does not answer");
	else if (!ours)
		send_away(l, "the session is at another node");
	else if (!gw_session_adopt(l->g, f->r) || !gw_grant_read(&gr, value))
		send_away(l, "out of memory");
	else {
		take_grant(l, &gr);
		gw_grant_fini(&gr);
	}
	tnl_free(value);
}

/* --- the token -------------------------------------------------------------------------- */
static void take_session(struct gw_link *l, const char *value)
{
	l->grant = tnl_strdup(value);
	if (l->grant)
		td_store_find(l->g->store, l->id, is_home(l) ? TD_STORE_TAKE_BACK : TD_STORE_UNITE, on_taken, l);
	else
		send_away(l, "out of memory");
}

static void on_token(void *ctx, int err, const char *value, unsigned which)
{
	struct gw_link *l = ctx;
	struct gw_grant gr;
	bool here = tokens_of(l, 0) != NULL;
	if (err != 0 && !here) {
		send_away(l, "the store does not answer");
		return;
	}
	if (err != 0) {
		go_on(l);
		return;
	}
	bool good = value && gw_grant_read(&gr, value);
	if (good && (gr.role != role_of(l) || strcmp(gr.id, l->id) != 0)) {
		gw_grant_fini(&gr);
		good = false;
	}
	if (!good) {
		forget_tokens(l);
		go_on(l);
		return;
	}
	if (which < l->nhashes && which)
		memcpy(l->hashes[0], l->hashes[which], sizeof(l->hashes[0]));
	if (here)
		take_grant(l, &gr);
	else
		take_session(l, value);
	gw_grant_fini(&gr);
}

static void ask_token(struct gw_link *l, const struct gw_marks *owner, const char *token)
{
	l->nhashes = gw_token_hashes(owner, token, l->hashes);
	if (l->nhashes && (td_store_is_up(l->g->store) || !tokens_of(l, 0)))
		td_store_token_take(l->g->store, (const uint8_t(*)[32])l->hashes, l->nhashes, on_token, l);
	else
		go_on(l);
}

/* --- the session -------------------------------------------------------------------------- */
static void marks_of(const struct gw_link *l, const char *owner, const char *target, struct gw_marks *out)
{
	const struct td_user_config *u = role_of(l) == GW_CLIENT ? gw_keys_user(l->g, owner) : NULL;
	const struct gw_instance *i = role_of(l) != GW_CLIENT ? gw_instance_get(l->g, target) : NULL;
	out->n = 0;
	if (u)
		gw_keys_marks(l->g, u->keys, out);
	else if (i)
		gw_keys_marks(l->g, i->cfg->keys, out);
}

static void on_found(void *ctx, int err, const struct td_store_found *f)
{
	struct gw_link *l = ctx;
	struct gw_marks owner;
	struct tnl_open o = {0};
	const char *fault;
	if (err != 0) {
		send_away(l, "the store does not answer");
	} else if (f->where == TD_STORE_NONE) {
		go_on(l); /* to be refused */
	} else if (f->where == TD_STORE_OTHER && !is_home(l)) {
		send_away(l, "the session is at another node");
	} else if (tnl_open_parse(l->frame, l->frame_len, &o, &fault) == 0 && o.token) {
		marks_of(l, f->r->owner, f->r->target, &owner);
		ask_token(l, &owner, o.token);
	}
	tnl_open_fini(&o);
}

void gw_settle(struct gw_link *l, const uint8_t *p, size_t n, const char *token,
	       void (*then)(struct gw_link *l, uint8_t *p, size_t n))
{
	struct gw_marks owner;
	const struct gw_session *s = l->role == GW_CONTROL ? NULL : gw_session_get(l->g, l->id);
	if (l->frame) {
		gw_link_complain(l, "a second token frame", "token frame");
		gw_link_close(l, 1008, "malformed token frame");
		return;
	}
	l->frame = tnl_malloc(n);
	if (!l->frame) {
		send_away(l, "out of memory");
		return;
	}
	memcpy(l->frame, p, n);
	l->frame_len = n;
	l->settled = then;
	td_wslink_pause(l->w, true);
	if (l->role != GW_CONTROL && !s) {
		td_store_find(l->g->store, l->id, TD_STORE_MAY_UNITE, on_found, l);
		return;
	}
	marks_of(l, s ? s->owner : "", s ? s->target : l->id, &owner);
	ask_token(l, &owner, token);
}
