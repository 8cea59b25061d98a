/* What the options mean for a session of the protocol library. */
#include "tunneld/config/config.h"

#include "lib/session.h"
#include "tunneld/base/loop.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* AWS's gateway cuts or pauses what sends more than 1,000 messages a second. */
#define AMAZON_RATE 900
/* A stock end takes a FIN for the end of both directions: it is held back until the other one was quiet so long. */
#define FIN_QUIET (2 * TD_SEC)
#define LINKS_MAX 8
/* So many resends of a message with a link that is up, and the session is given up. */
#define RESEND_MAX 3000

static const enum tnl_direct_use direct_use[] = {
    [TD_DIRECT_AUTO] = TNL_DIRECT_AUTO, [TD_DIRECT_NO] = TNL_DIRECT_NO, [TD_DIRECT_ONLY] = TNL_DIRECT_ONLY};

void td_tunnel_session(const struct td_tunnel_config *t, bool amazon, struct tnl_session_config *c)
{
	*c = (struct tnl_session_config){
	    .memory_max = (size_t)t->session_memory,
	    .stream_window = (size_t)t->stream_window,
	    .max_payload = t->max_payload,
	    .message_rate = t->message_rate_set ? t->message_rate
			    : amazon		? AMAZON_RATE
						: 0,
	    .resend_max = RESEND_MAX,
	    .half_close_timeout_ns = t->half_close_timeout_ns,
	    .fin_quiet_ns = FIN_QUIET,
	    .keepalive_ns = t->keepalive ? t->idle_timeout_ns / 3 : 0,
	    .offer_capabilities = true,
	    .link_queue = !amazon,
	    .direct = amazon ? TNL_DIRECT_NO : direct_use[t->direct],
	    .links = amazon	? 1
		     : t->links ? t->links
				: LINKS_MAX,
	    .udp = t->type == TD_TUNNEL_UDP,
	    .dial = t->path || t->type == TD_TUNNEL_PROXY ? TNL_DIAL_VERSION : 0,
	    .require_dial = t->path != NULL,
	    .require_encryption = t->require_encryption,
	    .kms_key_pin = t->kms_key_id,
	};
}

static bool allows_udp(const struct td_rules *allow)
{
	for (int i = 0; i < allow->n; i++)
		if (allow->v[i].udp)
			return true;
	return false;
}

void td_agent_session(const struct td_agent_config *a, bool amazon, struct tnl_session_config *c)
{
	*c = (struct tnl_session_config){
	    .agent = true,
	    .memory_max = (size_t)a->session_memory,
	    .stream_window = (size_t)a->stream_window,
	    .max_payload = a->max_payload,
	    .message_rate = amazon ? AMAZON_RATE : 0,
	    .half_close_timeout_ns = a->half_close_timeout_ns,
	    .fin_quiet_ns = FIN_QUIET,
	    .offer_capabilities = true,
	    .link_queue = !amazon,
	    .direct = amazon || !a->direct_listen ? TNL_DIRECT_NO : TNL_DIRECT_ONLY,
	    .reverse = a->reverse.n > 0,
	    .links = amazon ? 1 : LINKS_MAX,
	    .udp = allows_udp(&a->allow),
	    .require_encryption = a->require_encryption,
	    .require_challenge_ack = a->require_challenge_ack,
	};
}

void td_gateway_node(const struct td_gateway_config *g, char out[TD_NODE_MAX + 1])
{
	const char *node = g->node;
	char host[256] = "";
	if (!node && g->store && strncmp(g->store, "redis", 5) == 0 && gethostname(host, sizeof(host) - 1) == 0)
		node = host;
	snprintf(out, TD_NODE_MAX + 1, "%.*s", (int)(node ? strcspn(node, ".") : 0), node ? node : "");
	for (char *p = out; *p; p++)
		if (!strchr("_0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", *p))
			*p = '_';
}
