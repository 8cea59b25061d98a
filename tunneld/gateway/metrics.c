/* What machines see of the gateway, and whether it is ready. */
#include "tunneld/gateway/internal.h"

#include "lib/num.h"
#include "lib/tls.h"

#include <stdio.h>
#include <string.h>

static double instances_connected(struct td_gateway *g)
{
	size_t it = 0, n = 0;
	for (struct gw_instance *i; (i = tnl_map_next(g->instances, &it, NULL, NULL)) != NULL;)
		n += i->link != NULL;
	return (double)n;
}

static double sessions(struct td_gateway *g)
{
	return (double)g->nactive;
}

static double waiting(struct td_gateway *g)
{
	uint64_t n = 0;
	tnl_list_foreach(it, &g->active) {
		const struct gw_session *s = tnl_container_of(it, struct gw_session, by_age);
		n += gw_relay_waiting_bytes(&s->ends[GW_CLIENT]) + gw_relay_waiting_bytes(&s->ends[GW_AGENT]);
	}
	return (double)n;
}

static double store_queue(struct td_gateway *g)
{
	struct td_store_stats st;
	td_store_stats(g->store, &st);
	return (double)st.queued;
}

static double certificate_end(struct td_gateway *g)
{
	return g->tls ? (double)tnl_tls_ctx_cert_ends(g->tls) : 0;
}

static double sessions_started(struct td_gateway *g)
{
	return (double)gw_counted(g, GW_C_SESSIONS_STARTED);
}

static double tokens_refused(struct td_gateway *g)
{
	return (double)gw_counted(g, GW_C_TOKENS_REFUSED);
}

static const struct {
	const char *name;
	enum tnl_metric_type type;
	double (*value)(struct td_gateway *g);
	const char *help;
} plain[] = {
    {"tunneld_gateway_instances_connected", TNL_METRIC_GAUGE, instances_connected, "Instances whose agent is there."},
    {"tunneld_gateway_sessions", TNL_METRIC_GAUGE, sessions, "Sessions that have not ended."},
    {"tunneld_gateway_sessions_started_total", TNL_METRIC_COUNTER, sessions_started, "Sessions that were started."},
    {"tunneld_gateway_waiting_bytes", TNL_METRIC_GAUGE, waiting, "Bytes that wait for an end of a session."},
    {"tunneld_gateway_tokens_refused_total", TNL_METRIC_COUNTER, tokens_refused, "Tokens that were refused."},
    {"tunneld_gateway_store_queue", TNL_METRIC_GAUGE, store_queue, "Records that are not written yet."},
    {"tunneld_gateway_certificate_expiry_timestamp_seconds", TNL_METRIC_GAUGE, certificate_end,
     "When the certificate ends; 0: there is none."},
};

/* All counters whose name begins so, the rest of it as the label. */
static void write_counters(const struct td_gateway *g, struct tnl_metrics *m, const char *name, const char *label,
			   const char *prefix, const char *help)
{
	size_t n = strlen(prefix);
	tnl_metrics_family(m, name, TNL_METRIC_COUNTER, help);
	for (int i = 0; i < GW_C_COUNT; i++)
		if (strncmp(gw_counter_names[i], prefix, n) == 0)
			tnl_metrics_put(m, label, gw_counter_names[i] + n, NULL, NULL,
					(double)gw_counted(g, (enum gw_counter)i));
}

static void write_ends(const struct td_gateway *g, struct tnl_metrics *m)
{
	static const struct {
		const char *reason;
		enum gw_counter counter;
	} reasons[] = {{"idle", GW_C_IDLE_TIMEOUTS},
		       {"max_session", GW_C_MAX_DURATIONS},
		       {"agent_lost", GW_C_AGENTS_LOST},
		       {"memory", GW_C_MEMORY_ENDED}};
	uint64_t known = 0, all = gw_counted(g, GW_C_SESSIONS_ENDED);
	tnl_metrics_family(m, "tunneld_gateway_sessions_ended_total", TNL_METRIC_COUNTER, "Sessions that have ended.");
	for (size_t i = 0; i < TNL_COUNT(reasons); i++) {
		uint64_t n = gw_counted(g, reasons[i].counter);
		known += n;
		tnl_metrics_put(m, "reason", reasons[i].reason, NULL, NULL, (double)n);
	}
	tnl_metrics_put(m, "reason", "terminated", NULL, NULL, (double)(all > known ? all - known : 0));
}

void td_gateway_metrics(struct td_gateway *g, struct tnl_metrics *m)
{
	for (size_t i = 0; i < TNL_COUNT(plain); i++) {
		tnl_metrics_family(m, plain[i].name, plain[i].type, plain[i].help);
		tnl_metrics_put(m, NULL, NULL, NULL, NULL, plain[i].value(g));
	}
	write_ends(g, m);
	tnl_metrics_family(m, "tunneld_gateway_relayed_bytes_total", TNL_METRIC_COUNTER, "Bytes of frames relayed.");
	tnl_metrics_put(m, "direction", "to_client", NULL, NULL, (double)gw_relayed(g, false));
	tnl_metrics_put(m, "direction", "to_agent", NULL, NULL, (double)gw_relayed(g, true));
	write_counters(g, m, "tunneld_gateway_auth_failures_total", "reason", "auth_",
		       "Calls whose caller was refused.");
	write_counters(g, m, "tunneld_gateway_quota_hits_total", "kind", "limit_",
		       "Requests and links that met a quota or another limit.");
}

int td_gateway_ready(struct td_gateway *g, const char *tunnel, char *why, size_t cap)
{
	if (tunnel)
		return -1;
	if (g->drain == GW_D_NONE) {
		if (!td_store_is_up(g->store))
			snprintf(why, cap, "warning: the store is away, no session can start");
		return 1;
	}
	snprintf(why, cap, "draining");
	return 0;
}
