/* What machines see of the forwarder.  Tunnels that share sessions count them once, at the first of them. */
#include "tunneld/forwarder/internal.h"

#include "lib/num.h"

#include <stdio.h>
#include <string.h>

static bool owns(const struct fwd_tunnel *t)
{
	return fwd_tunnel_owner(t) == t;
}

static double is_up(const struct fwd_tunnel *t)
{
	return strcmp(fwd_tunnel_state(t), "up") == 0;
}

static double connections(const struct fwd_tunnel *t)
{
	return fwd_tunnel_open(t);
}

static double accepted(const struct fwd_tunnel *t)
{
	return (double)t->accepted;
}

static double received(const struct fwd_tunnel *t)
{
	uint64_t in, out;
	fwd_tunnel_bytes(t, &in, &out);
	return (double)out;
}

static double sent(const struct fwd_tunnel *t)
{
	uint64_t in, out;
	fwd_tunnel_bytes(t, &in, &out);
	return (double)in;
}

static double sessions(const struct fwd_tunnel *t)
{
	size_t n = 0;
	tnl_list_foreach(it, &t->group->sessions)
		n += td_client_was_ready(tnl_container_of(it, struct fwd_session, node)->client);
	return owns(t) ? (double)n : 0;
}

static double resumes(const struct fwd_tunnel *t)
{
	return owns(t) ? (double)t->group->n.resumes : 0;
}

static double outage(const struct fwd_tunnel *t)
{
	const struct fwd_group *g = t->group;
	uint64_t now = g->n.out_since ? g->f->loop->now - g->n.out_since : 0;
	return (double)(g->n.outage_ns + now) / 1e9;
}

static double round_trip(const struct fwd_tunnel *t)
{
	const struct fwd_session *s = fwd_group_speaker(fwd_tunnel_speaker(t));
	struct tnl_channel_stats st = {0};
	if (s && fwd_session_up(s))
		tnl_channel_stats(tnl_session_channel(td_pump_session(td_client_pump(s->client))), &st);
	return (double)st.srtt_ns / 1e9;
}

static double retransmitted(const struct fwd_tunnel *t)
{
	uint64_t n = t->group->n.resent;
	tnl_list_foreach(it, &t->group->sessions)
		n += fwd_session_resent(tnl_container_of(it, struct fwd_session, node));
	return owns(t) ? (double)n : 0;
}

static double dropped(const struct fwd_tunnel *t)
{
	return (double)fwd_udp_dropped(t->udp);
}

static double endpoint_changes(const struct fwd_tunnel *t)
{
	return (double)td_aws_endpoint_moves(t->group->aws, "ssm");
}

static double greetings(const struct fwd_tunnel *t)
{
	return t->proxy.ngreeting;
}

static double displaced(const struct fwd_tunnel *t)
{
	return (double)t->proxy.displaced;
}

static double last_success(const struct fwd_tunnel *t)
{
	return (double)t->success_ms / 1000;
}

static double probe_up(const struct fwd_tunnel *t)
{
	return t->probe.result == FWD_P_OK;
}

static double probe_interval(const struct fwd_tunnel *t)
{
	return (double)t->cfg->probe_ns / 1e9;
}

static double probe_seconds(const struct fwd_tunnel *t)
{
	return (double)t->probe.took_ns / 1e9;
}

static double probe_success(const struct fwd_tunnel *t)
{
	return (double)t->probe.success_ms / 1000;
}

static const struct {
	const char *name;
	enum tnl_metric_type type;
	double (*value)(const struct fwd_tunnel *t);
	const char *help;
} plain[] = {
    {"tunneld_tunnel_up", TNL_METRIC_GAUGE, is_up, "1 while the tunnel has a session that is up."},
    {"tunneld_tunnel_connections", TNL_METRIC_GAUGE, connections, "Local connections that are open or wait."},
    {"tunneld_tunnel_connections_total", TNL_METRIC_COUNTER, accepted, "Local connections that were accepted."},
    {"tunneld_tunnel_received_bytes_total", TNL_METRIC_COUNTER, received, "Bytes from the target to local programs."},
    {"tunneld_tunnel_sent_bytes_total", TNL_METRIC_COUNTER, sent, "Bytes from local programs to the target."},
    {"tunneld_tunnel_sessions", TNL_METRIC_GAUGE, sessions, "Sessions, those that are resuming included."},
    {"tunneld_tunnel_resumes_total", TNL_METRIC_COUNTER, resumes, "Broken links that came back with their session."},
    {"tunneld_tunnel_outage_seconds_total", TNL_METRIC_COUNTER, outage,
     "Time for which a session was there and its link was not."},
    {"tunneld_tunnel_rtt_seconds", TNL_METRIC_GAUGE, round_trip, "Smoothed round trip of the session; 0: not known."},
    {"tunneld_tunnel_retransmitted_messages_total", TNL_METRIC_COUNTER, retransmitted,
     "Messages of sessions that were sent again."},
    {"tunneld_tunnel_datagrams_dropped_total", TNL_METRIC_COUNTER, dropped,
     "Datagrams that found no room; of tunnels of type udp."},
    {"tunneld_tunnel_endpoint_changes_total", TNL_METRIC_COUNTER, endpoint_changes,
     "How often another endpoint of ssm_endpoint was taken."},
    {"tunneld_tunnel_greetings", TNL_METRIC_GAUGE, greetings,
     "Connections to a proxy that are not among the open ones yet: they have not said where to."},
    {"tunneld_tunnel_greetings_displaced_total", TNL_METRIC_COUNTER, displaced,
     "Connections to a proxy that had said nothing in full when too many newer ones came."},
    {"tunneld_tunnel_last_success_timestamp_seconds", TNL_METRIC_GAUGE, last_success,
     "When a connection was given to a session last; 0: never."},
    {"tunneld_tunnel_probe_up", TNL_METRIC_GAUGE, probe_up,
     "1 when the last probe reached host and port; 0: it did not, or there was none."},
    {"tunneld_tunnel_probe_interval_seconds", TNL_METRIC_GAUGE, probe_interval,
     "Between two probes; 0: none are made."},
    {"tunneld_tunnel_probe_seconds", TNL_METRIC_GAUGE, probe_seconds, "How long the last probe took."},
    {"tunneld_tunnel_probe_last_success_timestamp_seconds", TNL_METRIC_GAUGE, probe_success,
     "When a probe reached host and port last; 0: never."},
};

#define EACH_TUNNEL(it, t, f)                                                                                          \
	tnl_list_foreach(it, &(f)->tunnels)                                                                            \
		for (const struct fwd_tunnel *t = tnl_container_of(it, struct fwd_tunnel, node);                       \
		     t && !t->closing && !t->hidden; t = NULL)

static void write_plain(const struct td_forwarder *f, struct tnl_metrics *m)
{
	for (size_t i = 0; i < TNL_COUNT(plain); i++) {
		tnl_metrics_family(m, plain[i].name, plain[i].type, plain[i].help);
		EACH_TUNNEL(it, t, f)
		tnl_metrics_put(m, "tunnel", t->cfg->name, NULL, NULL, plain[i].value(t));
	}
}

static void write_states(const struct td_forwarder *f, struct tnl_metrics *m)
{
	tnl_metrics_family(m, "tunneld_tunnel_state", TNL_METRIC_GAUGE, "1 for the state that the tunnel is in.");
	EACH_TUNNEL(it, t, f)
	for (const char *const *s = fwd_tunnel_states; *s; s++)
		tnl_metrics_put(m, "tunnel", t->cfg->name, "state", *s, strcmp(*s, fwd_tunnel_state(t)) == 0);
}

static void write_failures(const struct td_forwarder *f, struct tnl_metrics *m)
{
	static const char *const reasons[FWD_F_COUNT] = {[FWD_F_SESSION] = "session",
							 [FWD_F_TIMEOUT] = "timeout",
							 [FWD_F_REFUSED] = "refused",
							 [FWD_F_DENIED] = "denied",
							 [FWD_F_SHUTDOWN] = "shutdown"};
	tnl_metrics_family(m, "tunneld_tunnel_connections_failed_total", TNL_METRIC_COUNTER,
			   "Local connections that were reset because no session or no service took them.");
	EACH_TUNNEL(it, t, f)
	for (int i = 0; i < FWD_F_COUNT; i++)
		tnl_metrics_put(m, "tunnel", t->cfg->name, "reason", reasons[i], (double)t->failures[i]);
}

static void write_probes(const struct td_forwarder *f, struct tnl_metrics *m)
{
	tnl_metrics_family(m, "tunneld_tunnel_probe_runs_total", TNL_METRIC_COUNTER, "Probes by what came of them.");
	EACH_TUNNEL(it, t, f)
	for (int i = FWD_P_OK; i < FWD_P_COUNT; i++)
		tnl_metrics_put(m, "tunnel", t->cfg->name, "result", fwd_probe_results[i], (double)t->probe.runs[i]);
}

static void write_histograms(const struct td_forwarder *f, struct tnl_metrics *m)
{
	tnl_metrics_family(m, "tunneld_tunnel_session_start_seconds", TNL_METRIC_HISTOGRAM,
			   "From StartSession until the session was ready.");
	EACH_TUNNEL(it, t, f)
	tnl_metrics_put_histogram(m, "tunnel", t->cfg->name, owns(t) ? &t->group->n.start : &(struct tnl_histogram){0});
	tnl_metrics_family(m, "tunneld_tunnel_connect_seconds", TNL_METRIC_HISTOGRAM,
			   "From a local connection's arrival until a session had taken it.");
	EACH_TUNNEL(it, t, f)
	tnl_metrics_put_histogram(m, "tunnel", t->cfg->name, &t->connect);
}

uint64_t td_forwarder_credentials_end(const struct td_forwarder *f)
{
	uint64_t first = 0;
	tnl_list_foreach(it, &f->groups) {
		uint64_t ends = td_credentials_expire(tnl_container_of(it, struct fwd_group, node)->aws);
		first = ends && (!first || ends < first) ? ends : first;
	}
	return first;
}

void td_forwarder_metrics(struct td_forwarder *f, struct tnl_metrics *m)
{
	write_plain(f, m);
	write_states(f, m);
	write_failures(f, m);
	write_probes(f, m);
	write_histograms(f, m);
}

void td_forwarder_sample(struct td_forwarder *f,
			 void (*fn)(void *ctx, const char *tunnel, uint64_t up, uint64_t down, uint64_t rtt_us),
			 void *ctx)
{
	EACH_TUNNEL(it, t, f)
	{
		uint64_t in, out;
		fwd_tunnel_bytes(t, &in, &out);
		fn(ctx, t->cfg->name, in, out, (uint64_t)(round_trip(t) * 1e6));
	}
}

/* --- is it ready? -------------------------------------------------------------------------------- */

/* One that opens on demand is ready as long as nothing is known against it. */
static bool tunnel_ready(const struct fwd_tunnel *t, char *why, size_t cap)
{
	const char *state = fwd_tunnel_state(t);
	const char *trouble = t->listen_error[0] ? t->listen_error : fwd_group_trouble(t->group);
	bool well = strcmp(state, "up") == 0 || (strcmp(state, "idle") == 0 && !trouble[0]);
	if (well && !fwd_probe_trouble(&t->probe)[0])
		return true;
	if (well) {
		snprintf(why, cap, "tunnel %s: the probe failed: %s", t->cfg->name, fwd_probe_trouble(&t->probe));
		return false;
	}
	snprintf(why, cap, "tunnel %s: %s%s%s", t->cfg->name, state, trouble[0] ? ": " : "", trouble);
	return false;
}

int td_forwarder_ready(struct td_forwarder *f, const char *tunnel, char *why, size_t cap)
{
	bool seen = false;
	EACH_TUNNEL(it, t, f)
	{
		if (tunnel && !td_tunnel_is_called(t->cfg, tunnel))
			continue;
		seen = true;
		if (!tunnel_ready(t, why, cap))
			return 0;
	}
	return seen || !tunnel ? 1 : -1;
}
