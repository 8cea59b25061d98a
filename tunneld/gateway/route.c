/* Data channels that came to the wrong node: whose session is it, and does a link lead there?  With a shared store that
 * says who owns the session, which is not always the node in its id; else the id says it.  Where no link leads the
 * request goes on here, and is decided upon as if there were none. */
#include "tunneld/gateway/peer_internal.h"
#include "lib/alloc.h"
#include "lib/sigv4.h"
#include <string.h>

/* The session's own node takes it back instead. */
static bool is_home(const struct td_gateway *g, const char *id)
{
	char node[TD_NODE_MAX + 1];
	return gw_session_id_node(id, node) && strcmp(node, g->node) == 0;
}

static void on_found(void *ctx, int err, const struct td_store_found *f)
{
	struct gw_call *c = ctx;
	struct td_gateway *g = c->g;
	struct td_request *r = c->r;
	char *id = c->token;
	c->r = NULL;
	c->token = NULL;
	gw_call_free(c);
	if (r) {
		td_request_set_user(r, NULL);
		bool away = err == 0 && f->where == TD_STORE_OTHER && gw_ferry_send(g->peers, r, f->node);
		if (!away)
			gw_channel_upgrade(g, r, GW_CLIENT, id);
	}
	tnl_free(id);
}

static bool ask_store(struct td_gateway *g, struct td_request *r, const char *id)
{
	char *copy = tnl_strdup(id);
	struct gw_call *c = copy ? gw_call_new(g, r, "data-channel", NULL, NULL) : NULL;
	if (!c) {
		tnl_free(copy);
		return false;
	}
	c->token = copy;
	td_store_find(g->store, copy, TD_STORE_LOOK, on_found, c);
	return true;
}

/* It is refused here: the next node takes our word that we were meant. */
static bool is_signed_for_others(const struct td_gateway *g, struct td_request *r)
{
	const struct tnl_http_head *h = td_request_head(r);
	struct tnl_sigv4_claim c;
	const char *fault;
	return tnl_sigv4_claim_parse(h, &c, &fault) != TNL_ENOTFOUND && !gw_auth_host_is_ours(g, h);
}

bool gw_route_away(struct td_gateway *g, struct td_request *r, const char *id)
{
	char node[TD_NODE_MAX + 1];
	if (!g->peers || td_request_handed(r) || gw_session_get(g, id) || is_home(g, id) || is_signed_for_others(g, r))
		return false;
	if (g->shared)
		return ask_store(g, r, id);
	return gw_session_id_node(id, node) && gw_ferry_send(g->peers, r, node);
}
