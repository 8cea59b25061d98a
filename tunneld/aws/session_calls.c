/* Bodies and answers of the session calls. */
#include "lib/alloc.h"
#include "lib/stock.h"
#include "lib/wire.h"
#include "tunneld/aws/aws.h"
#include <stdio.h>
#include <string.h>

void td_session_grant_fini(struct td_session_grant *g)
{
	tnl_free(g->session_id);
	if (g->token)
		tnl_free_wiped(g->token, strlen(g->token));
	tnl_free(g->stream_url);
	memset(g, 0, sizeof(*g));
}

#define GRANT_MAX 8192u /* a token or a URL */

/* Services write the same three in either case: ssm SessionId, ecs sessionId.  What is too long is as what is missing.
 */
static bool take(const struct tnl_json *j, const char *key, size_t max, char **out)
{
	return tnl_json_take_str(tnl_json_iget(j, key), max, out) != TNL_ENOMEM;
}

int td_session_grant_parse(const struct tnl_json *j, struct td_session_grant *g)
{
	memset(g, 0, sizeof(*g));
	if (!take(j, "SessionId", TNL_NAME_MAX, &g->session_id) || !take(j, "TokenValue", GRANT_MAX, &g->token) ||
	    !take(j, "StreamUrl", GRANT_MAX, &g->stream_url)) {
		td_session_grant_fini(g);
		return TNL_ENOMEM;
	}
	if (tnl_session_id_ok(g->session_id, TNL_NAME_MAX))
		return 0;
	td_session_grant_fini(g);
	return TNL_ESYNTAX;
}

static void one(struct tnl_jw *w, const char *key, const char *value)
{
	tnl_jw_key(w, key);
	tnl_jw_arr(w);
	tnl_jw_str(w, value);
	tnl_jw_end_arr(w);
}

int td_start_session_body(struct tnl_buf *b, const char *target, const char *document, const char *host, uint16_t port,
			  uint16_t local_port, const char *reason, const char *const *command)
{
	struct tnl_jw w;
	char num[8];

	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "Target", target);
	if (!document && port)
		document = host ? TNL_DOCUMENT_ANYWHERE : "AWS-StartPortForwardingSession";
	if (document)
		tnl_jw_kv(&w, "DocumentName", document);
	if (port || command) {
		tnl_jw_key(&w, "Parameters");
		tnl_jw_obj(&w);
		if (host)
			one(&w, "host", host);
		if (port) {
			snprintf(num, sizeof(num), "%u", port);
			one(&w, "portNumber", num);
		}
		if (port && strcmp(document, "AWS-StartSSHSession") != 0) {
			snprintf(num, sizeof(num), "%u", local_port);
			one(&w, "localPortNumber", num);
		}
		if (command) {
			tnl_jw_key(&w, "command");
			tnl_jw_arr(&w);
			for (; *command; command++)
				tnl_jw_str(&w, *command);
			tnl_jw_end_arr(&w);
		}
		tnl_jw_end_obj(&w);
	}
	if (reason)
		tnl_jw_kv(&w, "Reason", reason);
	tnl_jw_end_obj(&w);
	return b->failed ? TNL_ENOMEM : 0;
}

/* link 0: the call has no such member. */
static struct td_aws_call *call_about(struct td_aws *a, const char *target, const char *session_id, unsigned link,
				      int attempts, td_aws_fn *fn, void *ctx)
{
	struct td_aws_call *c = NULL;
	struct tnl_buf b;
	struct tnl_jw w;

	tnl_buf_init(&b, 4096);
	tnl_jw_init(&w, &b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "SessionId", session_id);
	if (link)
		tnl_jw_kvi(&w, "Link", link);
	tnl_jw_end_obj(&w);
	if (!b.failed)
		c = td_aws_json(a, "ssm", target, (const char *)tnl_buf_data(&b), tnl_buf_len(&b), attempts, fn, ctx);
	tnl_buf_fini(&b);
	return c;
}

struct td_aws_call *td_session_call(struct td_aws *a, const char *target, const char *session_id, int attempts,
				    td_aws_fn *fn, void *ctx)
{
	return call_about(a, target, session_id, 0, attempts, fn, ctx);
}

struct td_aws_call *td_session_link_call(struct td_aws *a, const char *session_id, unsigned link, td_aws_fn *fn,
					 void *ctx)
{
	return call_about(a, "AmazonSSM.OpenSessionLink", session_id, link, 1, fn, ctx);
}
