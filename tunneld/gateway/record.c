/* A session as a record of the store: written whenever something changed that a restart must know, read after a start.
 * It holds no frames and no numbers; what is in flight lives in the two ends. */
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include "lib/wire.h"
#include <stdio.h>
#include <string.h>

#define AGAIN (1 * TD_SEC)
#define AGAIN_AT_ONCE 100u /* records */

static void add_tokens(struct td_store_session *r, const struct gw_end *e)
{
	for (unsigned i = 0; i < e->tokens.n && r->ntokens < TD_STORE_TOKENS; i++) {
		struct td_store_token *t = &r->tokens[r->ntokens++];
		const struct gw_token *k = &e->tokens.v[i];
		memcpy(t->hash, k->hash, sizeof(t->hash));
		t->role = (uint8_t)e->role;
		t->expires_ms = k->expires_ms;
		t->bound = k->bound;
		memcpy(t->client_id, k->client_id, sizeof(t->client_id));
	}
}

/* Who reads it after a restart must know whether both ends have come once; who lists it, whether they are there. */
static const char *status_of(const struct gw_session *s)
{
	if (s->state == GW_S_ENDED)
		return s->status;
	if (s->state == GW_S_CONNECTING)
		return "Connecting";
	return !s->g->shared || (s->ends[GW_CLIENT].link && s->ends[GW_AGENT].link) ? "Connected" : "Disconnected";
}

/* A session that no node minds any more is over when it would have been idle for too long. */
static uint64_t keep_for(const struct gw_session *s)
{
	uint64_t idle = s->g->cfg->gw.idle_timeout_ns;
	if (s->state == GW_S_ENDED)
		return GW_HISTORY_MS;
	return (idle ? idle : 24 * GW_KEEP_NS) / TD_MS + GW_KEEP_NS / TD_MS;
}

void gw_record_save(struct gw_session *s, td_store_done *fn, void *ctx)
{
	struct td_store_session r = {
	    .id = s->id,
	    .owner = s->owner,
	    .target = s->target,
	    .document = s->document,
	    .parameters = s->parameters,
	    .reason = s->reason,
	    .client_id = s->ends[GW_CLIENT].client_id,
	    .output = s->output,
	    .started_ms = s->started_ms,
	    .ended_ms = s->ended_ms,
	    .keep_ms = keep_for(s),
	    .grants = (s->dial ? TD_STORE_GRANT_DIAL : 0) | (s->reverse ? TD_STORE_GRANT_REVERSE : 0),
	    .epoch = s->epoch,
	    .expires_ms = s->expires_ms,
	    .status = status_of(s),
	};
	add_tokens(&r, &s->ends[GW_CLIENT]);
	add_tokens(&r, &s->ends[GW_AGENT]);
	s->saved = s->g->l->now;
	td_store_put(s->g->store, &r, fn, ctx);
}

bool gw_record_set_texts(struct gw_session *s, const char *owner, const char *target, const char *document,
			 const char *parameters, const char *reason)
{
	s->owner = tnl_strdup(owner);
	s->target = tnl_strdup(target);
	s->document = tnl_strdup(document);
	s->parameters = tnl_strdup(parameters);
	s->reason = tnl_strdup(reason ? reason : "");
	return s->owner && s->target && s->document && s->parameters && s->reason;
}

static void restore_tokens(struct gw_session *s, const struct td_store_session *r)
{
	for (unsigned i = 0; i < r->ntokens; i++) {
		const struct td_store_token *t = &r->tokens[i];
		if (t->role > GW_AGENT || s->ends[t->role].tokens.n == GW_TOKENS)
			continue;
		struct gw_tokens *to = &s->ends[t->role].tokens;
		struct gw_token *k = &to->v[to->n++];
		memcpy(k->hash, t->hash, sizeof(k->hash));
		k->expires_ms = t->expires_ms;
		k->bound = t->bound;
		memcpy(k->client_id, t->client_id, sizeof(k->client_id));
	}
}

/* --- what could not be written --------------------------------------------------- */
static void write_again(struct td_gateway *g, unsigned most);

static void on_written_again(void *ctx, int err)
{
	struct td_gateway *g = ctx;
	if (err)
		td_timer_in(&g->again, AGAIN);
	else
		write_again(g, AGAIN_AT_ONCE);
}

static void write_again(struct td_gateway *g, unsigned most)
{
	while (most-- && !tnl_list_empty(&g->unwritten)) {
		struct gw_session *s = tnl_container_of(g->unwritten.next, struct gw_session, unwritten);
		bool last = !most || s->unwritten.next == &g->unwritten;
		tnl_list_remove(&s->unwritten);
		gw_record_save(s, last ? on_written_again : NULL, g);
	}
}

/* One, to see whether there is room again; the others behind it. */
static void on_again(void *arg)
{
	write_again(arg, 1);
}

void gw_record_unwritten(void *ctx, const char *id)
{
	struct td_gateway *g = ctx;
	struct gw_session *s = tnl_map_get_str(g->sessions, id);
	if (!s || !tnl_list_empty(&s->unwritten))
		return;
	tnl_list_push_back(&g->unwritten, &s->unwritten);
	if (g->again.at == UINT64_MAX)
		td_timer_in(&g->again, AGAIN);
}

void gw_records_init(struct td_gateway *g)
{
	tnl_list_init(&g->unwritten);
	td_timer_init(&g->again, g->l, on_again, g);
}

void gw_records_fini(struct td_gateway *g)
{
	td_timer_stop(&g->again);
	tnl_list_foreach_safe(it, &g->unwritten)
		gw_record_save(tnl_container_of(it, struct gw_session, unwritten), NULL, NULL);
}

/* --- what was read ---------------------------------------------------------------- */
static const char *static_status(const char *s)
{
	return strcmp(s, "Failed") == 0 ? "Failed" : "Terminated";
}

bool gw_record_read(struct gw_session *s, const struct td_store_session *r)
{
	const struct td_loop *l = s->g->l;
	struct gw_end *client = &s->ends[GW_CLIENT];
	if (!gw_record_set_texts(s, r->owner, r->target, r->document, r->parameters, r->reason))
		return false;
	s->started_ms = r->started_ms;
	s->ended_ms = r->ended_ms;
	s->expires_ms = r->expires_ms;
	s->epoch = r->epoch;
	s->dial = r->grants & TD_STORE_GRANT_DIAL;
	s->reverse = r->grants & TD_STORE_GRANT_REVERSE;
	s->output = tnl_strndup(r->output, tnl_utf8_cut(r->output, strlen(r->output), TNL_TEXT_MAX));
	restore_tokens(s, r);
	if (r->ended_ms) {
		s->state = GW_S_ENDED;
		s->status = static_status(r->status);
		return true;
	}
	snprintf(client->client_id, sizeof(client->client_id), "%s", r->client_id);
	client->client_id_set = r->client_id[0] != 0;
	s->state = strcmp(r->status, "Connecting") == 0 ? GW_S_CONNECTING : GW_S_CONNECTED;
	client->seen = s->ends[GW_AGENT].seen = s->agent_lost = s->state == GW_S_CONNECTED;
	if (s->expires_ms)
		s->expires = s->expires_ms > l->wall_ms ? l->now + (s->expires_ms - l->wall_ms) * TD_MS : l->now;
	return true;
}
