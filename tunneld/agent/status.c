/* What the agent's status shows: its sessions one by one, and its counters. */
#include "tunneld/agent/internal.h"

#include "lib/num.h"
#include "tunneld/base/memory.h"

static void put_counter(void *ctx, const char *name, uint64_t value)
{
	tnl_jw_kvi(ctx, name, (int64_t)value);
}

/* What the session could not use of the messages that came. */
static void put_dropped(struct tnl_jw *w, const struct tnl_session *ses)
{
	static const struct tnl_session_stats none;

	tnl_jw_key(w, "dropped");
	tnl_jw_obj(w);
	tnl_session_stats_each(ses ? tnl_session_stats(ses) : &none, put_counter, w);
	tnl_jw_end_obj(w);
}

static void put_session(struct tnl_jw *w, const struct ag_session *s)
{
	struct tnl_channel_stats st = {0};
	struct tnl_session *ses = s->pump ? td_pump_session(s->pump) : NULL;

	if (ses)
		tnl_channel_stats(tnl_session_channel(ses), &st);
	tnl_jw_obj(w);
	tnl_jw_kv(w, "id", s->start.session_id);
	tnl_jw_kv(w, "type", s->start.session_type);
	tnl_jw_kv(w, "owner", s->start.session_owner);
	if (ses && tnl_session_state(ses) == TNL_SS_READY)
		tnl_jw_kv(w, "client_program", tnl_session_info(ses)->peer_program);
	tnl_jw_kv(w, "state", ag_session_state_name(s));
	tnl_jw_kv(w, "mode", tnl_session_mode_name(s->mode));
	tnl_jw_kv(w, "host", s->to.port ? s->to.name : NULL);
	tnl_jw_kvi(w, "port", s->to.port);
	tnl_jw_kvi(w, "streams", ses ? (int64_t)tnl_session_streams(ses) : 0);
	tnl_jw_kvi(w, "links", s->pump ? td_pump_links(s->pump) : 0);
	tnl_jw_kvi(w, "memory", ses ? (int64_t)tnl_session_memory(ses) : 0);
	tnl_jw_kvi(w, "memory_max", (int64_t)ag_cfg(s->a)->session_memory);
	tnl_jw_kvi(w, "resumes", s->resumes);
	td_pump_put_direct(s->pump, w);
	ag_reverse_put(s, w);
	tnl_jw_kvi(w, "sent", (int64_t)st.sent);
	tnl_jw_kvi(w, "resent", (int64_t)st.resent);
	tnl_jw_kvi(w, "received", (int64_t)st.received);
	tnl_jw_kvi(w, "duplicates", (int64_t)st.duplicates);
	tnl_jw_kvi(w, "bad", (int64_t)st.bad);
	put_dropped(w, ses);
	tnl_jw_kvi(w, "rtt_us", (int64_t)(st.srtt_ns / 1000));
	tnl_jw_kvi(w, "inflight_bytes", (int64_t)st.inflight_bytes);
	tnl_jw_kvi(w, "seconds", (int64_t)((s->a->loop->now - s->started_at) / TD_SEC));
	tnl_jw_end_obj(w);
}

static void put_counters(struct tnl_jw *w, const struct td_agent *a)
{
	const struct td_direct_port_stats none = {0}, port = a->direct ? *td_direct_port_stats(a->direct) : none;
	const struct {
		const char *key;
		uint64_t value;
	} c[] = {
	    {"sessions", a->n.sessions},
	    {"sessions_failed", a->n.sessions_failed},
	    {"sessions_refused", a->n.refused},
	    {"connections", a->n.connections},
	    {"dial_failures", a->n.dial_failures},
	    {"denied", a->n.denied},
	    {"names_refused", a->n.names_refused},
	    {"bad_messages", a->n.bad_messages},
	    {"ignored_messages", a->n.ignored_messages},
	    {"resumes", a->n.resumes},
	    {"control_connects", a->n.control_connects},
	    {"tasks_sent", a->n.tasks_sent},
	    {"tasks_unconfirmed", a->n.tasks_unconfirmed},
	    {"short_of_descriptors", a->n.short_of_descriptors},
	    {"direct_links", a->n.direct_links},
	    {"reverse_connections", a->n.reverse_connections},
	    {"reverse_failed", a->n.reverse_failed},
	    {"reverse_refused", a->n.reverse_refused},
	    {"datagrams_dropped", a->n.datagrams_dropped},
	    {"direct_failed", port.failed},
	    {"direct_turned_away", port.turned_away},
	};

	tnl_jw_key(w, "counters");
	tnl_jw_obj(w);
	for (size_t i = 0; i < TNL_COUNT(c); i++)
		tnl_jw_kvi(w, c[i].key, (int64_t)c[i].value);
	tnl_jw_end_obj(w);
}

void td_agent_status(struct td_agent *a, struct tnl_buf *json)
{
	struct tnl_jw w;

	tnl_jw_init(&w, json);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "instance_id", a->instance_id);
	tnl_jw_key(&w, "connected");
	tnl_jw_bool(&w, ag_control_is_up(a));
	tnl_jw_key(&w, "draining");
	tnl_jw_bool(&w, a->state != AG_RUNNING);
	tnl_jw_kv(&w, "last_error", a->control.last_error);
	td_aws_put_endpoints(a->aws, "ssmmessages", &w);
	tnl_jw_kvi(&w, "memory", (int64_t)td_memory_used());
	tnl_jw_kvi(&w, "memory_max", (int64_t)td_memory_max());
	tnl_jw_key(&w, "sessions");
	tnl_jw_arr(&w);
	tnl_list_foreach(it, &a->sessions)
		put_session(&w, tnl_container_of(it, struct ag_session, node));
	tnl_jw_end_arr(&w);
	put_counters(&w, a);
	tnl_jw_end_obj(&w);
}
