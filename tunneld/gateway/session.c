/* Sessions: how they begin, are restored after a start and end, and their one timer.  They outlive their links, and
 * through the store the process; of those that ended some are kept for DescribeSessions, and for clients that still
 * come with a token and hear then how it ended. */
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "lib/num.h"
#include "lib/wire.h"
#include <stdio.h>
#include <string.h>

#define ID_DIGITS 17u

static void on_timer(void *arg);
static void on_hold(void *arg);
static void recheck(struct gw_session *s);

static void set_state(struct gw_session *s, enum gw_session_state state)
{
	static const char *const names[] = {
	    [GW_S_CONNECTING] = "CONNECTING", [GW_S_CONNECTED] = "CONNECTED", [GW_S_ENDED] = "ENDED"};
	td_debug("gateway", s->id, "session state=%s before=%s", names[state], names[s->state]);
	gw_worker_hold(s->worker);
	s->state = state;
}

const char *gw_session_status(const struct gw_session *s)
{
	if (s->state == GW_S_ENDED)
		return s->status;
	if (s->ends[GW_CLIENT].link && s->ends[GW_AGENT].link)
		return "Connected";
	return s->state == GW_S_CONNECTING ? "Connecting" : "Disconnected";
}

static struct gw_session *session_alloc(struct td_gateway *g, const char *id)
{
	struct gw_session *s = tnl_calloc(1, sizeof(*s));
	if (!s)
		return NULL;
	s->g = g;
	s->worker = &g->here;
	tnl_list_init(&s->by_instance);
	tnl_list_init(&s->by_age);
	tnl_list_init(&s->unwritten);
	td_timer_init(&s->timer, g->l, on_timer, s);
	td_timer_init(&s->hold, g->l, on_hold, s);
	for (int i = 0; i < 2; i++) {
		s->ends[i].s = s;
		s->ends[i].role = i == GW_CLIENT ? GW_CLIENT : GW_AGENT;
		s->ends[i].absent_since = g->l->now;
	}
	s->id = tnl_strdup(id);
	s->started = s->last_stream = g->l->now;
	s->expires = UINT64_MAX;
	s->epoch = 1;
	if (!s->id || tnl_map_set_str(g->sessions, s->id, s) != 0) {
		tnl_free(s->id);
		tnl_free(s);
		return NULL;
	}
	return s;
}

static void make_active(struct gw_session *s, struct gw_instance *i)
{
	s->inst = i;
	tnl_list_push_back(&i->sessions, &s->by_instance);
	tnl_list_push_back(&s->g->active, &s->by_age);
	s->g->nactive++;
}

static void make_history(struct gw_session *s)
{
	tnl_list_push_back(&s->g->history, &s->by_age);
	s->g->nhistory++;
}

struct gw_session *gw_session_get(struct td_gateway *g, const char *id)
{
	return tnl_map_get_str(g->sessions, id);
}

bool gw_session_id_node(const char *id, char out[TD_NODE_MAX + 1])
{
	size_t n = strlen(id);
	if (n < ID_DIGITS + 2 || id[n - ID_DIGITS - 1] != '-' ||
	    strspn(id + n - ID_DIGITS, "0123456789abcdef") != ID_DIGITS)
		return false;
	size_t end = n - ID_DIGITS - 1, begin = end;
	while (begin && id[begin - 1] != '-')
		begin--;
	if (begin == 0 || begin == end || end - begin > TD_NODE_MAX)
		return false;
	memcpy(out, id + begin, end - begin);
	out[end - begin] = '\0';
	return true;
}

/* The user's name, as far as it is plain, our node's, when we have one, and 17 random digits: 96 bytes at most, as AWS
 * has them.  Balancers look for "-NODE-" before the digits (contrib/haproxy.cfg). */
static void make_id(const char *user, const char *node, char id[GW_SESSION_ID_MAX + 1])
{
	char hex[2 * 9 + 1];
	uint8_t rnd[9];
	size_t n = 0, most = TNL_MIN((size_t)64, (size_t)(96 - 1 - ID_DIGITS - (node ? 1 + strlen(node) : 0)));
	for (; n < most && user[n]; n++) {
		char c = user[n];
		bool plain =
		    (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || strchr("._@-", c);
		id[n] = plain ? c : '-';
	}
	tnl_random(rnd, sizeof(rnd));
	tnl_hex(rnd, sizeof(rnd), hex);
	snprintf(id + n, GW_SESSION_ID_MAX + 1 - n, "%s%s-%.*s", node ? "-" : "", node ? node : "", (int)ID_DIGITS,
		 hex);
}

struct gw_session *gw_session_new(struct td_gateway *g, const struct td_user_config *u, struct gw_instance *i,
				  const char *document, const char *parameters, const char *reason)
{
	char id[GW_SESSION_ID_MAX + 1];
	make_id(u->name, g->node[0] ? g->node : NULL, id);
	struct gw_session *s = session_alloc(g, id);
	if (!s)
		return NULL;
	if (!gw_record_set_texts(s, u->name, i->id, document, parameters, reason) || !gw_shares_join(s)) {
		gw_session_free(s);
		return NULL;
	}
	const struct tnl_start_grants grants = gw_rights_grants(u, document);
	s->dial = grants.dial;
	s->reverse = grants.reverse;
	s->started_ms = g->l->wall_ms;
	if (g->cfg->gw.max_session_ns) {
		s->expires = g->l->now + g->cfg->gw.max_session_ns;
		s->expires_ms = s->started_ms + g->cfg->gw.max_session_ns / TD_MS;
	}
	make_active(s, i);
	gw_quota_started(s);
	gw_count(g, GW_C_SESSIONS_STARTED);
	gw_session_rearm(s);
	return s;
}

/* --- after a restart ---------------------------------------------------------- */
/* What the record says, placed among the active or the ended. */
static void place_restored(struct gw_session *s)
{
	struct td_gateway *g = s->g;
	struct gw_instance *i = gw_instance_get(g, s->target);
	if (i)
		i->recorded = true;
	if (s->state != GW_S_ENDED && i && gw_shares_join(s)) {
		make_active(s, i);
		if (g->shared)
			td_store_count(g->store, s->owner, s->target, 1);
		gw_count(g, GW_C_SESSIONS_RESTORED);
	} else {
		if (s->state != GW_S_ENDED) { /* the section of its instance has gone from the configuration */
			set_state(s, GW_S_ENDED);
			s->status = "Terminated";
			s->ended_ms = g->l->wall_ms;
		}
		make_history(s);
	}
	gw_session_rearm(s);
}

static struct gw_session *restore(struct td_gateway *g, const struct td_store_session *r)
{
	struct gw_session *s = session_alloc(g, r->id);
	if (s && !gw_record_read(s, r)) {
		gw_session_free(s);
		s = NULL;
	}
	if (s)
		place_restored(s);
	return s;
}

/* Its node may have gone by another configuration.  Of several links, or calls, that asked for it at a time the first
 * has brought it here. */
struct gw_session *gw_session_adopt(struct td_gateway *g, const struct td_store_session *r)
{
	struct gw_session *s = gw_session_get(g, r->id);
	if (s) {
		s->epoch = TNL_MAX(s->epoch, r->epoch);
		return s;
	}
	s = restore(g, r);
	if (s && s->state != GW_S_ENDED)
		recheck(s);
	return s;
}

static void restore_one(void *ctx, const struct td_store_session *r)
{
	struct td_gateway *g = ctx;
	if (!tnl_map_get_str(g->sessions, r->id))
		restore(g, r); /* also what is too old: with it goes its record */
}

static void trim_history(struct td_gateway *g)
{
	while (!tnl_list_empty(&g->history)) {
		struct gw_session *s = tnl_container_of(g->history.next, struct gw_session, by_age);
		bool linked = s->ends[0].link || s->ends[1].link;
		if (linked || (g->nhistory <= GW_HISTORY_MAX && s->ended_ms + GW_HISTORY_MS > g->l->wall_ms))
			return;
		td_store_del(g->store, s->id);
		gw_session_free(s);
	}
}

int gw_sessions_restore(struct td_gateway *g)
{
	int rc = td_store_load(g->store, restore_one, g);
	if (rc != 0)
		return rc;
	if (g->nactive)
		td_info("gateway", NULL, "sessions restored, both ends may resume count=%zu", g->nactive);
	gw_sessions_recheck(g); /* what it permits may have changed meanwhile */
	trim_history(g);
	return 0;
}

/* --- the end ------------------------------------------------------------------- */
static int write_closed(struct gw_session *s, struct tnl_buf *b)
{
	uint8_t u[16];
	char id[TNL_UUID_STR];
	tnl_uuid_new(u);
	tnl_uuid_str(u, id);
	struct tnl_channel_closed c = {.message_id = id,
				       .session_id = s->id,
				       .destination_id = s->id,
				       .output = s->output,
				       .created_ms = s->g->l->wall_ms};
	tnl_buf_init(b, 64 * 1024);
	return tnl_channel_closed_write(b, &c);
}

static void send_closed_to(struct gw_session *s, struct gw_end *e)
{
	struct tnl_buf b;
	if (write_closed(s, &b) == 0 && e->link)
		gw_relay_send(e, TNL_MT_CHANNEL_CLOSED, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
}

static void send_closed(struct gw_session *s, struct gw_instance *inst)
{
	struct tnl_buf b;
	send_closed_to(s, &s->ends[GW_CLIENT]);
	send_closed_to(s, &s->ends[GW_AGENT]);
	if (s->ends[GW_AGENT].link || s->complete)
		return;
	if (write_closed(s, &b) == 0)
		gw_instance_send(inst, TNL_MT_CHANNEL_CLOSED, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
}

void gw_session_end(struct gw_session *s, const char *status, const char *output)
{
	if (s->state == GW_S_ENDED)
		return;
	struct td_gateway *g = s->g;
	struct gw_instance *inst = s->inst;
	gw_worker_hold(s->worker);
	td_info("gateway", s->id,
		"session ended status=%s owner=%s target=%s direct_to_client=%llu direct_to_agent=%llu output=\"%s\"",
		status, s->owner, s->target, (unsigned long long)s->ends[GW_CLIENT].direct.received,
		(unsigned long long)s->ends[GW_AGENT].direct.received, output ? output : "");
	set_state(s, GW_S_ENDED);
	s->status = status;
	s->ended_ms = g->l->wall_ms;
	s->ended = g->l->now;
	tnl_free(s->output);
	const char *text = output ? output : "";
	s->output = tnl_strndup(text, tnl_utf8_cut(text, strlen(text), TNL_TEXT_MAX));
	s->ends[GW_AGENT].tokens.n = 0; /* a client's stay: whoever still comes with one hears why */
	tnl_list_remove(&s->by_instance);
	s->inst = NULL;
	tnl_list_remove(&s->by_age);
	g->nactive--;
	make_history(s);
	gw_count(g, GW_C_SESSIONS_ENDED);
	gw_audit_session_end(s);
	gw_relay_drop(&s->ends[GW_AGENT]); /* nobody reads that any more; the client still gets what waits for it */
	if (!s->ends[GW_CLIENT].link)
		gw_relay_drop(&s->ends[GW_CLIENT]);
	for (int i = 0; i < 2; i++) {
		gw_relay_close_lanes(&s->ends[i]);
		s->ends[i].link_tokens.n = 0;
	}
	send_closed(s, inst);
	gw_shares_end(s);
	s->linger_until = g->l->now + GW_LINGER_NS;
	gw_record_save(s, NULL, NULL);
	gw_session_rearm(s);
	trim_history(g);
}

void gw_session_send_farewell(struct gw_session *s)
{
	gw_worker_hold(s->worker);
	s->ended = s->g->l->now;
	s->linger_until = s->ended + GW_LINGER_NS;
	send_closed_to(s, &s->ends[GW_CLIENT]);
}

void gw_session_free(struct gw_session *s)
{
	if (!s)
		return;
	struct td_gateway *g = s->g;
	gw_worker_hold(s->worker);
	for (int i = 0; i < 2; i++) {
		struct gw_link *l = s->ends[i].link;
		gw_relay_drop_lanes(&s->ends[i]);
		s->ends[i].link = NULL;
		if (l)
			gw_link_drop(l);
		gw_relay_drop(&s->ends[i]);
	}
	tnl_list_foreach(it, &g->calls) {
		struct gw_call *c = tnl_container_of(it, struct gw_call, node);
		if (c->s == s)
			c->s = NULL;
	}
	gw_shares_end(s);
	td_timer_stop(&s->timer);
	td_timer_stop(&s->hold);
	if (!tnl_list_empty(&s->by_age)) {
		if (s->state == GW_S_ENDED)
			g->nhistory--;
		else
			g->nactive--;
	}
	tnl_list_remove(&s->by_age);
	tnl_list_remove(&s->by_instance);
	tnl_list_remove(&s->unwritten);
	tnl_map_del_str(g->sessions, s->id);
	tnl_free(s->id);
	tnl_free(s->owner);
	tnl_free(s->target);
	tnl_free(s->document);
	tnl_free(s->parameters);
	tnl_free(s->reason);
	tnl_free(s->output);
	tnl_wipe(s->ends, sizeof(s->ends));
	tnl_free(s);
}

void gw_session_lose(struct td_gateway *g, const char *id, const char *node)
{
	struct gw_session *s = gw_session_get(g, id);
	if (!s || s->state == GW_S_ENDED)
		return;
	td_info("gateway", s->id, "session is at another node now, its links here are closed node=%s", node);
	for (int i = 0; i < 2; i++) {
		struct gw_end *e = &s->ends[i];
		gw_relay_drop(e);
		gw_relay_close_lanes(e);
		if (e->link)
			gw_link_close(e->link, 1012, "session is at another node now");
	}
	gw_session_free(s);
}

void gw_session_place(struct gw_session *s)
{
	if (gw_relay_links(&s->ends[GW_CLIENT]) || gw_relay_links(&s->ends[GW_AGENT]))
		return;
	struct gw_worker *k = gw_worker_choose(s->g);
	gw_worker_hold(s->worker);
	gw_worker_hold(k);
	s->worker = k;
	td_timer_move(&s->hold, k->l);
}

void gw_session_update_state(struct gw_session *s)
{
	if (s->state == GW_S_CONNECTING && s->ends[GW_CLIENT].seen && s->ends[GW_AGENT].seen)
		set_state(s, GW_S_CONNECTED);
}

void gw_session_bind_client(struct gw_session *s, const char *client_id)
{
	struct gw_end *e = &s->ends[GW_CLIENT];
	if (e->client_id_set)
		return;
	snprintf(e->client_id, sizeof(e->client_id), "%s", client_id);
	e->client_id_set = true;
	gw_tokens_bind(&e->tokens, e->client_id);
}

/* Does the configuration still permit it? */
static bool is_permitted(const struct gw_session *s, const struct td_user_config *u)
{
	return u && s->inst->cfg && gw_rights_target(u, s->target) &&
	       !gw_rights_session(u, s->document, s->parameters) && (!s->dial || gw_rights_anywhere(u, s->document)) &&
	       (!s->reverse || u->reverse);
}

static void recheck(struct gw_session *s)
{
	if (!is_permitted(s, gw_keys_user(s->g, s->owner))) {
		gw_session_end(s, "Terminated", "Access to this session was removed by the administrator.");
		return;
	}
	gw_direct_tell(&s->ends[GW_CLIENT]);
	gw_direct_tell(&s->ends[GW_AGENT]);
}

void gw_sessions_recheck(struct td_gateway *g)
{
	tnl_list_foreach_safe(it, &g->active)
		recheck(tnl_container_of(it, struct gw_session, by_age));
}

/* --- the timer ------------------------------------------------------------------ */
static uint64_t idle_deadline(const struct gw_session *s)
{
	uint64_t idle = s->g->cfg->gw.idle_timeout_ns;
	return idle ? s->last_stream + idle : UINT64_MAX;
}

/* When to conclude that the agent no longer knows this session: its control
 * channel is there, so it is alive and in reach, but its data channel stays away. */
static uint64_t agent_deadline(const struct gw_session *s)
{
	const struct gw_end *a = &s->ends[GW_AGENT];
	if (a->link)
		return UINT64_MAX;
	if (!a->seen)
		return s->started + GW_START_NS;
	uint64_t lost = UINT64_MAX;
	if (gw_instance_is_up(s->inst))
		lost = TNL_MAX(s->inst->link ? s->inst->up_since : s->inst->remote_since, a->absent_since) +
		       GW_AGENT_LOST_NS;
	uint64_t r = s->inst->restarted, since_restart = TNL_MAX(r, a->absent_since) + GW_RESTART_NS;
	if (r > s->started && r > a->attached_at && a->absent_since < r + GW_RESTART_SEEN_NS)
		lost = TNL_MIN(lost, since_restart);
	return lost;
}

void gw_session_rearm(struct gw_session *s)
{
	uint64_t at, other;
	gw_worker_hold(s->worker);
	if (s->state == GW_S_ENDED) {
		at = s->ends[0].link || s->ends[1].link ? s->linger_until : UINT64_MAX;
		other = gw_tokens_deadline(&s->ends[GW_CLIENT].tokens, s->g->l);
	} else {
		at = TNL_MIN(idle_deadline(s), s->expires);
		other = agent_deadline(s);
	}
	td_timer_at(&s->timer, TNL_MIN(at, other));
}

static void on_linger(struct gw_session *s)
{
	uint64_t now = s->g->l->now;
	if (s->ends[GW_CLIENT].link && s->ends[GW_CLIENT].q.frames && now < s->ended + GW_LAST_WORDS_NS) {
		s->linger_until = now + GW_LINGER_NS; /* it is still reading what came before the end */
		return;
	}
	for (int i = 0; i < 2; i++) {
		struct gw_end *e = &s->ends[i];
		struct gw_link *l = e->link;
		if (!l)
			continue;
		gw_relay_drop(e);
		gw_link_close(l, 1000, "session over");
	}
}

static void on_timer(void *arg)
{
	struct gw_session *s = arg;
	struct td_gateway *g = s->g;
	gw_worker_hold(s->worker);
	uint64_t now = g->l->now;
	if (s->state == GW_S_ENDED) {
		if (gw_tokens_drop_expired(&s->ends[GW_CLIENT].tokens, g->l->wall_ms))
			gw_record_save(s, NULL, NULL);
		if (s->linger_until <= now)
			on_linger(s);
		gw_session_rearm(s);
		return;
	}
	if (s->expires <= now) {
		gw_count(g, GW_C_MAX_DURATIONS);
		gw_session_end(s, "Terminated", "Your session reached its maximum duration and has been terminated.");
	} else if (idle_deadline(s) <= now) {
		gw_count(g, GW_C_IDLE_TIMEOUTS);
		gw_session_end(s, "Terminated", GW_IDLE_TEXT);
	} else if (agent_deadline(s) <= now) {
		gw_count(g, GW_C_AGENTS_LOST);
		gw_session_end(s, "Failed",
			       s->ends[GW_AGENT].seen ? "The agent on the target no longer knows this session."
						      : "The agent on the target did not open the session.");
	} else {
		gw_session_rearm(s);
	}
}

static void on_hold(void *arg)
{
	struct gw_session *s = arg;
	s->ends[GW_CLIENT].hold_until = 0;
	gw_relay_flush(&s->ends[GW_CLIENT]);
}
