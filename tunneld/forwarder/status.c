/* What operators see of the forwarder. */
#include "tunneld/forwarder/internal.h"

#include "lib/json.h"

static void put_bool(struct tnl_jw *w, const char *key, bool v)
{
	tnl_jw_key(w, key);
	tnl_jw_bool(w, v);
}

static void put_counter(void *ctx, const char *name, uint64_t value)
{
	tnl_jw_kvi(ctx, name, (int64_t)value);
}

static void put_traffic(struct tnl_jw *w, struct tnl_session *ses)
{
	struct tnl_channel_stats st = {0};

	tnl_channel_stats(tnl_session_channel(ses), &st);
	tnl_jw_kvi(w, "messages_sent", (int64_t)st.sent);
	tnl_jw_kvi(w, "messages_resent", (int64_t)st.resent);
	tnl_jw_kvi(w, "messages_received", (int64_t)st.received);
	tnl_jw_kvi(w, "duplicates", (int64_t)st.duplicates);
	tnl_jw_kvi(w, "bad", (int64_t)st.bad);
	tnl_jw_key(w, "dropped"); /* messages that came and that the session could not use */
	tnl_jw_obj(w);
	tnl_session_stats_each(tnl_session_stats(ses), put_counter, w);
	tnl_jw_end_obj(w);
	tnl_jw_kvi(w, "srtt_us", (int64_t)(st.srtt_ns / 1000));
	tnl_jw_kvi(w, "rate", (int64_t)st.delivery_rate);
	tnl_jw_kvi(w, "window", (int64_t)st.cwnd);
	tnl_jw_kvi(w, "inflight", (int64_t)st.inflight_bytes);
}

static void put_session(struct tnl_jw *w, const struct fwd_session *s)
{
	struct td_pump *pump = td_client_pump(s->client);

	tnl_jw_obj(w);
	tnl_jw_kv(w, "id", td_client_session_id(s->client));
	tnl_jw_kv(w, "state", td_client_state_name(s->client));
	tnl_jw_kv(w, "target", td_client_target(s->client));
	if (fwd_group_is_dest(s->group)) {
		tnl_jw_kv(w, "host", s->group->cfg->host);
		tnl_jw_kvi(w, "port", s->group->cfg->port);
	}
	tnl_jw_kvi(w, "streams", (int64_t)fwd_session_load(s));
	tnl_jw_kvi(w, "resumes", td_client_resumes(s->client));
	if (pump) {
		struct tnl_session *ses = td_pump_session(pump);
		tnl_jw_kvi(w, "links", td_pump_links(pump));
		tnl_jw_kvi(w, "memory", (int64_t)tnl_session_memory(ses));
		tnl_jw_kvi(w, "memory_max", (int64_t)s->group->cfg->session_memory);
		if (td_client_was_ready(s->client)) {
			tnl_jw_kv(w, "agent_version", tnl_session_info(ses)->peer_version);
			tnl_jw_kv(w, "agent_program", tnl_session_info(ses)->peer_program);
		}
		put_bool(w, "encrypted", td_client_was_ready(s->client) && tnl_session_info(ses)->encrypted);
		put_traffic(w, ses);
	}
	td_pump_put_direct(pump, w);
	tnl_jw_end_obj(w);
}

/* Since when it has been in that state, or in one that is as good or bad. */
static uint64_t state_since(const struct fwd_tunnel *t)
{
	const struct fwd_group *g = fwd_tunnel_speaker(t);
	const struct fwd_session *s = fwd_group_speaker(g);

	if (t->closed)
		return t->closed_at;
	if (s && td_client_was_ready(s->client))
		return td_client_state_since(s->client);
	if (g->failed_at)
		return g->failed_at;
	return s ? td_client_state_since(s->client) : g->idle_at;
}

static void put_addresses(struct tnl_jw *w, const struct fwd_tunnel *t)
{
	char s[TD_ADDR_STR];

	tnl_jw_key(w, "listen");
	tnl_jw_arr(w);
	for (int i = 0; i < t->nlisteners; i++)
		tnl_jw_str(w, td_addr_str(&t->bound[i], s));
	tnl_jw_end_arr(w);
}

static void put_groups(struct tnl_jw *w, const struct td_strlist *l)
{
	tnl_jw_key(w, "groups");
	tnl_jw_arr(w);
	for (int i = 0; i < l->n; i++)
		tnl_jw_str(w, l->v[i]);
	tnl_jw_end_arr(w);
}

static void put_group_sessions(struct tnl_jw *w, const struct fwd_group *g)
{
	for (const struct tnl_list *it = g->sessions.next; it != &g->sessions; it = it->next)
		put_session(w, tnl_container_of(it, const struct fwd_session, node));
}

/* Sessions that several tunnels share stand once, with the first of them; the others name it. */
static void put_sessions(struct tnl_jw *w, const struct fwd_tunnel *t)
{
	const struct fwd_tunnel *owner = fwd_tunnel_owner(t);

	if (owner != t)
		tnl_jw_kv(w, "sessions_of", owner->cfg->name);
	tnl_jw_key(w, "sessions");
	tnl_jw_arr(w);
	if (owner == t)
		put_group_sessions(w, t->group);
	if (t->cfg->type == TD_TUNNEL_PROXY)
		tnl_list_foreach(it, &t->proxy.dests)
			put_group_sessions(w, tnl_container_of(it, const struct fwd_group, dest));
	tnl_jw_end_arr(w);
}

static void put_bytes(struct tnl_jw *w, const struct fwd_tunnel *t)
{
	uint64_t in, out;

	fwd_tunnel_bytes(t, &in, &out);
	tnl_jw_kvi(w, "bytes_in", (int64_t)in);
	tnl_jw_kvi(w, "bytes_out", (int64_t)out);
}

static void put_probe(struct tnl_jw *w, const struct fwd_tunnel *t)
{
	const struct fwd_probe *p = &t->probe;

	tnl_jw_key(w, "probe");
	tnl_jw_obj(w);
	tnl_jw_kv(w, "result", fwd_probe_results[p->result]);
	tnl_jw_kvi(w, "interval_ms", (int64_t)(t->cfg->probe_ns / TD_MS));
	if (p->result != FWD_P_NONE) {
		tnl_jw_kvi(w, "age_s", (int64_t)((t->f->loop->now - p->at) / TD_SEC));
		tnl_jw_kvi(w, "took_ms", (int64_t)(p->took_ns / TD_MS));
	}
	if (p->result == FWD_P_OK)
		put_bool(w, "certain", p->certain);
	else if (p->result != FWD_P_NONE)
		tnl_jw_kv(w, "error", p->why);
	tnl_jw_end_obj(w);
}

static void put_reverse(struct tnl_jw *w, const struct fwd_tunnel *t)
{
	tnl_jw_kv(w, "bind", t->cfg->bind);
	if (t->reverse.bound[0])
		tnl_jw_kv(w, "bound", t->reverse.bound);
	tnl_jw_kv(w, "connect", t->cfg->connect);
}

static void put_proxy(struct tnl_jw *w, const struct fwd_proxy *p)
{
	tnl_jw_kvi(w, "destinations", p->ndests);
	tnl_jw_kvi(w, "greetings", p->ngreeting);
}

static const char *const type_names[] = {"tcp", "proxy", "udp", "reverse"};

static void put_tunnel(struct tnl_jw *w, const struct fwd_tunnel *t)
{
	const struct td_tunnel_config *cfg = t->cfg;

	tnl_jw_obj(w);
	tnl_jw_kv(w, "name", cfg->name);
	tnl_jw_kv(w, "state", fwd_tunnel_state(t));
	if (fwd_tunnel_is_reverse(t))
		put_reverse(w, t);
	if (t->hidden)
		put_bool(w, "one_shot", true);
	put_addresses(w, t);
	if (cfg->range) {
		tnl_jw_key(w, "range");
		tnl_jw_strn(w, cfg->name, cfg->range);
	}
	if (t->cfg->groups.n)
		put_groups(w, &t->cfg->groups);
	tnl_jw_kv(w, "target", cfg->target);
	tnl_jw_kv(w, "type", type_names[cfg->type]);
	tnl_jw_kv(w, "host", cfg->host);
	tnl_jw_kvi(w, "port", cfg->port);
	if (t->udp)
		tnl_jw_kvi(w, "datagrams_dropped", (int64_t)fwd_udp_dropped(t->udp));
	if (cfg->path)
		tnl_jw_kv(w, "path", cfg->path);
	if (cfg->type == TD_TUNNEL_PROXY)
		put_proxy(w, &t->proxy);
	tnl_jw_kvi(w, "connections", fwd_tunnel_open(t));
	tnl_jw_kvi(w, "accepted", (int64_t)t->accepted);
	tnl_jw_kvi(w, "failed", (int64_t)t->failed);
	put_bytes(w, t);
	tnl_jw_kvi(w, "since_s", (int64_t)((t->f->loop->now - state_since(t)) / TD_SEC));
	const char *trouble = t->listen_error[0] ? t->listen_error : fwd_group_trouble(fwd_tunnel_speaker(t));
	if (!trouble[0])
		trouble = fwd_probe_trouble(&t->probe);
	if (trouble[0])
		tnl_jw_kv(w, "last_error", trouble);
	td_aws_put_endpoints(t->group->aws, "ssm", w);
	if (cfg->probe_ns)
		put_probe(w, t);
	put_sessions(w, t);
	tnl_jw_end_obj(w);
}

void td_forwarder_status(struct td_forwarder *f, struct tnl_buf *json)
{
	struct tnl_jw w;

	tnl_jw_init(&w, json);
	tnl_jw_obj(&w);
	put_bool(&w, "draining", f->state != FWD_RUNNING);
	tnl_jw_key(&w, "tunnels");
	tnl_jw_arr(&w);
	tnl_list_foreach(it, &f->tunnels) {
		const struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);
		if (!t->hidden || t->guest || t->connections || fwd_group_speaker(t->group))
			put_tunnel(&w, t);
	}
	tnl_jw_end_arr(&w);
	tnl_jw_end_obj(&w);
}
