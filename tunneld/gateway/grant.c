/* What a client is granted: the answers of the calls that give it a token, and tokens for sessions that are not here.
 */
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include "lib/enc.h"
#include <stdio.h>
#include <string.h>

/* wss://host[:port] as the client is to call us. */
static void stream_origin(struct gw_call *c, char *out, size_t cap)
{
	size_t n = 0;
	const char *host = tnl_http_get(td_request_head(c->r), "Host", &n);
	if (c->g->public_url[0] || !host)
		snprintf(out, cap, "%s", c->g->public_url);
	else
		snprintf(out, cap, "%s://%.*s", c->g->tls ? "wss" : "ws", (int)n, host);
}

void gw_answer_grant(struct gw_call *c, const char *id)
{
	char origin[320];
	struct tnl_buf b, url;
	struct tnl_jw w;
	tnl_buf_init(&b, 16 * 1024);
	tnl_buf_init(&url, 4096);
	stream_origin(c, origin, sizeof(origin));
	tnl_buf_printf(&url, "%s/v1/data-channel/", origin);
	tnl_uri_encode(&url, id, strlen(id), false);
	tnl_buf_puts(&url, "?role=publish_subscribe");
	tnl_jw_init(&w, &b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "SessionId", id);
	tnl_jw_kv(&w, "TokenValue", c->token);
	tnl_jw_kv(&w, "StreamUrl", tnl_buf_str(&url));
	tnl_jw_end_obj(&w);
	gw_call_ok(c, &b);
	tnl_buf_fini_wiped(&b);
	tnl_buf_fini(&url);
}

void gw_answer_id(struct gw_call *c, const char *id)
{
	struct tnl_buf b;
	struct tnl_jw w;
	tnl_buf_init(&b, 4096);
	tnl_jw_init(&w, &b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "SessionId", id);
	tnl_jw_end_obj(&w);
	gw_call_ok(c, &b);
	tnl_buf_fini(&b);
}

void gw_grant_elsewhere(struct gw_call *c, enum gw_role role, const char *id, const char *client_id, unsigned link,
			td_store_done *fn)
{
	struct gw_tokens t = {.n = 0};
	char token[GW_TOKEN_STR + 1];
	gw_token_new_link(c->g, &t, c->mark, client_id, link, token);
	c->token = tnl_strdup(token);
	tnl_wipe(token, sizeof(token));
	gw_token_share(c->g, &t, role, id, fn, c);
	tnl_wipe(&t, sizeof(t));
}
