/* What operators see of the gateway: listeners, instances, sessions with what waits and flows in each direction, the
 * store, counters. */
#include "tunneld/gateway/peer_internal.h"

#include "lib/enc.h"
#include "lib/tls.h"

#include <stdio.h>

#define STATUS_SESSIONS 1000 /* listed one by one; the rest is only counted */

const char *const gw_counter_names[GW_C_COUNT] = {
    [GW_C_API_CALLS] = "api_calls",
    [GW_C_API_ERRORS] = "api_errors",
    [GW_C_HTTP_REFUSED] = "http_refused",
    [GW_C_AUTH_MISSING] = "auth_missing",
    [GW_C_AUTH_MALFORMED] = "auth_malformed",
    [GW_C_AUTH_UNKNOWN_KEY] = "auth_unknown_key",
    [GW_C_AUTH_SIGNATURE] = "auth_signature",
    [GW_C_AUTH_CLOCK] = "auth_clock",
    [GW_C_AUTH_DENIED] = "auth_denied",
    [GW_C_TOKENS_ISSUED] = "tokens_issued",
    [GW_C_TOKENS_USED] = "tokens_used",
    [GW_C_TOKENS_REFUSED] = "tokens_refused",
    [GW_C_LINKS_OPENED] = "links_opened",
    [GW_C_LINKS_REPLACED] = "links_replaced",
    [GW_C_LINKS_BROKEN] = "links_broken",
    [GW_C_FRAMES_REFUSED] = "frames_refused",
    [GW_C_FRAMES_IGNORED] = "frames_ignored",
    [GW_C_FRAMES_RELAYED] = "frames_relayed",
    [GW_C_BYTES_RELAYED] = "bytes_relayed",
    [GW_C_READ_PAUSES] = "read_pauses",
    [GW_C_CLIENT_HOLDS] = "client_holds",
    [GW_C_SESSIONS_STARTED] = "sessions_started",
    [GW_C_SESSIONS_RESUMED] = "sessions_resumed",
    [GW_C_SESSIONS_RESTORED] = "sessions_restored",
    [GW_C_SESSIONS_ENDED] = "sessions_ended",
    [GW_C_IDLE_TIMEOUTS] = "idle_timeouts",
    [GW_C_MAX_DURATIONS] = "max_durations",
    [GW_C_AGENTS_LOST] = "agents_lost",
    [GW_C_LIMIT_SESSIONS] = "limit_sessions",
    [GW_C_LIMIT_FAIR_SHARE] = "limit_fair_share",
    [GW_C_LIMIT_USER_SESSIONS] = "limit_user_sessions",
    [GW_C_LIMIT_INSTANCE_SESSIONS] = "limit_instance_sessions",
    [GW_C_LIMIT_USER_RATE] = "limit_user_rate",
    [GW_C_LIMIT_INSTANCE_RATE] = "limit_instance_rate",
    [GW_C_LIMIT_USER_CALLS] = "limit_user_calls",
    [GW_C_LIMIT_INSTANCE_CALLS] = "limit_instance_calls",
    [GW_C_LIMIT_USER_BANDWIDTH] = "limit_user_bandwidth",
    [GW_C_LIMIT_INSTANCE_BANDWIDTH] = "limit_instance_bandwidth",
    [GW_C_LIMIT_DESCRIPTORS] = "limit_descriptors",
    [GW_C_LIMIT_UNFINISHED_REQUESTS] = "limit_unfinished_requests",
    [GW_C_LIMIT_UNVERIFIED_LINKS] = "limit_unverified_links",
    [GW_C_LIMIT_UNREAD_PONGS] = "limit_unread_pongs",
    [GW_C_LIMIT_USER_MEMORY] = "limit_user_memory",
    [GW_C_LIMIT_INSTANCE_MEMORY] = "limit_instance_memory",
    [GW_C_MEMORY_ENDED] = "sessions_ended_for_memory",
    [GW_C_DIRECT_LINKS] = "direct_links",
};

static void kv_bool(struct tnl_jw *w, const char *key, bool v)
{
	tnl_jw_key(w, key);
	tnl_jw_bool(w, v);
}

static int64_t count_links(struct td_gateway *g)
{
	int64_t n = 0;
	tnl_list_foreach(it, &g->links)
		n++;
	return n;
}

static void write_listeners(struct td_gateway *g, struct tnl_jw *w)
{
	struct td_addr a;
	char text[TD_ADDR_STR];
	tnl_jw_key(w, "listen");
	tnl_jw_arr(w);
	for (int i = 0; g->httpd && td_http_server_addr(g->httpd, i, &a) == 0; i++)
		tnl_jw_str(w, td_addr_str(&a, text));
	tnl_jw_end_arr(w);
}

static void write_certificate(struct td_gateway *g, struct tnl_jw *w)
{
	uint64_t ends = g->tls ? tnl_tls_ctx_cert_ends(g->tls) : 0;
	char date[TNL_ISO_STR];
	if (!ends)
		return;
	tnl_iso_date(ends * 1000, date);
	tnl_jw_kv(w, "certificate_expires", date);
}

static void write_instances(struct td_gateway *g, struct tnl_jw *w)
{
	size_t it = 0, klen;
	const void *key;
	tnl_jw_key(w, "instances");
	tnl_jw_arr(w);
	for (struct gw_instance *i; (i = tnl_map_next(g->instances, &it, &key, &klen)) != NULL;) {
		if (!i->cfg)
			continue;
		tnl_jw_obj(w);
		tnl_jw_kv(w, "id", i->id);
		kv_bool(w, "connected", i->link != NULL);
		if (i->link)
			tnl_jw_kv(w, "peer", td_wslink_peer(i->link->w));
		if (i->link)
			tnl_jw_kvi(w, "since_s", (int64_t)((g->l->now - i->up_since) / TD_SEC));
		if (i->agent_version)
			tnl_jw_kv(w, "agent_version", i->agent_version);
		tnl_jw_end_obj(w);
	}
	tnl_jw_end_arr(w);
}

/* Of those that have something. */
static void write_shares(struct td_gateway *g, enum gw_share_kind kind, const char *title, struct tnl_jw *w)
{
	size_t it = 0, klen;
	const void *key;
	tnl_jw_key(w, title);
	tnl_jw_arr(w);
	for (struct gw_share *h; (h = tnl_map_next(g->shares[kind], &it, &key, &klen)) != NULL;) {
		if (!h->sessions && !__atomic_load_n(&h->reached, __ATOMIC_RELAXED))
			continue;
		tnl_jw_obj(w);
		tnl_jw_kv(w, "name", h->name);
		tnl_jw_kvi(w, "sessions", h->sessions);
		tnl_jw_kvi(w, "max_sessions", h->quota.max_sessions);
		tnl_jw_kvi(w, "relayed_bytes", (int64_t)__atomic_load_n(&h->relayed, __ATOMIC_RELAXED));
		tnl_jw_kvi(w, "bandwidth", (int64_t)h->bandwidth);
		kv_bool(w, "bandwidth_reached", __atomic_load_n(&h->throttled, __ATOMIC_RELAXED));
		tnl_jw_kvi(w, "kept", (int64_t)__atomic_load_n(&h->kept, __ATOMIC_RELAXED));
		kv_bool(w, "memory_limit_reached", !gw_share_may_keep(h));
		tnl_jw_kvi(w, "memory_limit_reached_times", (int64_t)__atomic_load_n(&h->reached, __ATOMIC_RELAXED));
		tnl_jw_end_obj(w);
	}
	tnl_jw_end_arr(w);
}

static void write_end(struct tnl_jw *w, const char *name, const struct gw_end *e)
{
	tnl_jw_key(w, name);
	tnl_jw_obj(w);
	gw_worker_hold(e->s->worker);
	kv_bool(w, "attached", e->link != NULL);
	if (e->link) {
		tnl_jw_kv(w, "peer", td_wslink_peer(e->link->w));
		kv_bool(w, "paused", e->link->paused);
	}
	tnl_jw_kvi(w, "links", (int64_t)gw_relay_links(e));
	tnl_jw_kvi(w, "waiting_bytes", (int64_t)gw_relay_waiting_bytes(e));
	tnl_jw_kvi(w, "waiting_frames", (int64_t)gw_relay_waiting(e));
	tnl_jw_kvi(w, "relayed_bytes", (int64_t)e->bytes);
	tnl_jw_kvi(w, "relayed_frames", (int64_t)e->frames);
	kv_bool(w, "direct", e->direct.up);
	tnl_jw_kvi(w, "direct_sent_bytes", (int64_t)e->direct.sent);
	tnl_jw_kvi(w, "direct_received_bytes", (int64_t)e->direct.received);
	tnl_jw_end_obj(w);
}

static void write_sessions(struct td_gateway *g, struct tnl_jw *w)
{
	int left = STATUS_SESSIONS;
	tnl_jw_kvi(w, "sessions_active", (int64_t)g->nactive);
	tnl_jw_kvi(w, "sessions_history", (int64_t)g->nhistory);
	tnl_jw_key(w, "sessions");
	tnl_jw_arr(w);
	tnl_list_foreach(it, &g->active) {
		const struct gw_session *s = tnl_container_of(it, struct gw_session, by_age);
		if (left-- == 0)
			break;
		gw_worker_hold(s->worker);
		tnl_jw_obj(w);
		tnl_jw_kv(w, "id", s->id);
		tnl_jw_kv(w, "owner", s->owner);
		tnl_jw_kv(w, "target", s->target);
		tnl_jw_kv(w, "document", s->document);
		tnl_jw_kv(w, "state", gw_session_status(s));
		tnl_jw_kvi(w, "age_s", (int64_t)((g->l->wall_ms - s->started_ms) / 1000));
		tnl_jw_kvi(w, "idle_s", (int64_t)((g->l->now - s->last_stream) / TD_SEC));
		kv_bool(w, "direct_allowed", gw_direct_allowed(s));
		tnl_jw_kvi(w, "worker", (int64_t)(s->worker->w ? s->worker - g->workers + 1 : 0));
		write_end(w, "client", &s->ends[GW_CLIENT]);
		write_end(w, "agent", &s->ends[GW_AGENT]);
		tnl_jw_end_obj(w);
	}
	tnl_jw_end_arr(w);
}

static void write_worker(struct tnl_jw *w, const char *name, const struct gw_worker *k)
{
	tnl_jw_obj(w);
	tnl_jw_kv(w, "name", name);
	tnl_jw_kvi(w, "links", k->links);
	tnl_jw_kvi(w, "relayed_frames", (int64_t)__atomic_load_n(&k->frames, __ATOMIC_RELAXED));
	tnl_jw_kvi(w, "relayed_bytes", (int64_t)__atomic_load_n(&k->bytes, __ATOMIC_RELAXED));
	tnl_jw_kvi(w, "cpu_ms", (int64_t)((k->w ? td_worker_cpu(k->w) : td_worker_cpu_here()) / TD_MS));
	tnl_jw_end_obj(w);
}

/* The main loop first. */
static void write_workers(const struct td_gateway *g, struct tnl_jw *w)
{
	char name[24];
	tnl_jw_key(w, "workers");
	tnl_jw_arr(w);
	write_worker(w, "main", &g->here);
	for (unsigned i = 0; i < g->nworkers; i++) {
		snprintf(name, sizeof(name), "relay-%u", i + 1);
		write_worker(w, name, &g->workers[i]);
	}
	tnl_jw_end_arr(w);
}

static void write_peers(const struct gw_peers *p, struct tnl_jw *w)
{
	if (!p)
		return;
	tnl_jw_key(w, "peers");
	tnl_jw_arr(w);
	gw_peers_status(p, w);
	tnl_jw_end_arr(w);
	tnl_jw_kvi(w, "handed_on", (int64_t)p->handed_on);
	tnl_jw_kvi(w, "taken_in", (int64_t)p->taken_in);
}

static void write_refused(const struct td_gateway *g, struct tnl_jw *w)
{
	tnl_jw_key(w, "refused");
	tnl_jw_obj(w);
	for (unsigned i = 0; i < g->refused.n; i++)
		tnl_jw_kvi(w, g->refused.v[i].kind, (int64_t)g->refused.v[i].n);
	tnl_jw_end_obj(w);
}

static void write_store(const struct td_gateway *g, struct tnl_jw *w)
{
	struct td_store_stats st;
	td_store_stats(g->store, &st);
	tnl_jw_key(w, "store");
	tnl_jw_obj(w);
	tnl_jw_kv(w, "kind", g->shared ? "redis" : "sqlite");
	kv_bool(w, "up", td_store_is_up(g->store));
	if (g->shared)
		tnl_jw_kv(w, "server", td_store_peer(g->store));
	tnl_jw_kvi(w, "queued", (int64_t)st.queued);
	tnl_jw_kvi(w, "written", (int64_t)st.written);
	tnl_jw_kvi(w, "failed", (int64_t)st.failed);
	tnl_jw_end_obj(w);
}

/* The others that share the store. */
static void write_nodes(const struct td_gateway *g, struct tnl_jw *w)
{
	unsigned n;
	const struct td_store_node *v = td_store_nodes(g->store, &n);
	if (g->node[0])
		tnl_jw_kv(w, "node", g->node);
	if (!g->shared)
		return;
	tnl_jw_key(w, "nodes");
	tnl_jw_arr(w);
	for (unsigned i = 0; i < n; i++) {
		tnl_jw_obj(w);
		tnl_jw_kv(w, "name", v[i].name);
		tnl_jw_kv(w, "peer", v[i].peer);
		tnl_jw_end_obj(w);
	}
	tnl_jw_end_arr(w);
}

void td_gateway_status(struct td_gateway *g, struct tnl_buf *json)
{
	struct tnl_jw w;
	tnl_jw_init(&w, json);
	tnl_jw_obj(&w);
	write_listeners(g, &w);
	tnl_jw_kvi(&w, "connections", g->httpd ? (int64_t)td_http_server_connections(g->httpd) : 0);
	tnl_jw_kvi(&w, "links", count_links(g));
	write_certificate(g, &w);
	kv_bool(&w, "draining", g->drain != GW_D_NONE);
	tnl_jw_kvi(&w, "relay_memory", (int64_t)g->cfg->gw.relay_memory);
	write_instances(g, &w);
	write_shares(g, GW_SHARE_USER, "user_shares", &w);
	write_shares(g, GW_SHARE_INSTANCE, "instance_shares", &w);
	write_sessions(g, &w);
	write_workers(g, &w);
	write_store(g, &w);
	write_nodes(g, &w);
	write_peers(g->peers, &w);
	write_refused(g, &w);
	tnl_jw_key(&w, "counters");
	tnl_jw_obj(&w);
	for (int i = 0; i < GW_C_COUNT; i++)
		tnl_jw_kvi(&w, gw_counter_names[i], (int64_t)gw_counted(g, (enum gw_counter)i));
	tnl_jw_end_obj(&w);
	tnl_jw_end_obj(&w);
}
