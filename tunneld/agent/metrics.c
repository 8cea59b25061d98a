/* What machines see of the agent, and whether it is ready. */
#include "tunneld/agent/internal.h"

#include "lib/num.h"

#include <stdio.h>
#include <string.h>

static double count_shells(const struct td_agent *a)
{
	size_t n = 0;
	tnl_list_foreach(it, &a->sessions)
		n += strcmp(tnl_container_of(it, struct ag_session, node)->start.session_type, "Port") != 0;
	return (double)n;
}

uint64_t td_agent_credentials_end(const struct td_agent *a)
{
	return a->aws ? td_credentials_expire(a->aws) : 0;
}

void td_agent_metrics(struct td_agent *a, struct tnl_metrics *m)
{
	const struct {
		const char *name;
		enum tnl_metric_type type;
		double value;
		const char *help;
	} plain[] = {
	    {"tunneld_agent_control_up", TNL_METRIC_GAUGE, ag_control_is_up(a), "1 while the control channel is up."},
	    {"tunneld_agent_endpoint_changes_total", TNL_METRIC_COUNTER,
	     (double)td_aws_endpoint_moves(a->aws, "ssmmessages"), "How often another endpoint of the list was taken."},
	    {"tunneld_agent_sessions", TNL_METRIC_GAUGE, (double)a->nsessions, "Sessions that have not ended."},
	    {"tunneld_agent_shells", TNL_METRIC_GAUGE, count_shells(a), "Sessions that run a shell or a command."},
	    {"tunneld_agent_sessions_total", TNL_METRIC_COUNTER, (double)a->n.sessions, "Sessions that were begun."},
	    {"tunneld_agent_listeners", TNL_METRIC_GAUGE, (double)a->nlisteners, "Listeners of reverse tunnels."},
	    {"tunneld_agent_reverse_connections_total", TNL_METRIC_COUNTER, (double)a->n.reverse_connections,
	     "Connections that they took."},
	    {"tunneld_agent_listeners_refused_total", TNL_METRIC_COUNTER, (double)a->n.reverse_refused,
	     "Listeners that a client asked for and did not get."},
	    {"tunneld_agent_dials_total", TNL_METRIC_COUNTER, (double)a->n.connections, "Connections to services."},
	    {"tunneld_agent_datagrams_dropped_total", TNL_METRIC_COUNTER, (double)a->n.datagrams_dropped,
	     "Datagrams that found no room."},
	};
	for (size_t i = 0; i < TNL_COUNT(plain); i++) {
		tnl_metrics_family(m, plain[i].name, plain[i].type, plain[i].help);
		tnl_metrics_put(m, NULL, NULL, NULL, NULL, plain[i].value);
	}
	tnl_metrics_family(m, "tunneld_agent_dial_failures_total", TNL_METRIC_COUNTER,
			   "Connections to services that could not be made.");
	tnl_metrics_put(m, "reason", "failed", NULL, NULL, (double)a->n.dial_failures);
	tnl_metrics_put(m, "reason", "denied", NULL, NULL, (double)a->n.denied);
	tnl_metrics_put(m, "reason", "names", NULL, NULL, (double)a->n.names_refused);
}

int td_agent_ready(struct td_agent *a, const char *tunnel, char *why, size_t cap)
{
	if (tunnel)
		return -1;
	if (ag_control_is_up(a))
		return 1;
	snprintf(why, cap, "not connected to the gateway%s%s", a->control.last_error[0] ? ": " : "",
		 a->control.last_error);
	return 0;
}
