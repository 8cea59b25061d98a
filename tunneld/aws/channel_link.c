/* Opening the link of a channel, one object an opening: it asks for credentials where the upgrade is signed, dials the
 * WebSocket, sends the token frame, and then gives the link away or says what failed. */
#include "tunneld/aws/channel_link.h"

#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include "tunneld/aws/internal.h"

#include <string.h>

#define OPEN_TIMEOUT (15 * TD_SEC)
#define FRAME_MAX (32u * 1024)

struct td_channel_link {
	struct td_aws *aws; /* a reference */
	char *url;
	bool must_sign;
	uint64_t ping_ns, pong_ns;
	struct tnl_buf frame;
	struct td_soon dial; /* unsigned, at once */
	struct td_credentials_request *creds;
	struct td_wslink *w; /* while it opens */
	td_channel_link_fn *fn;
	void *ctx;
};

static void free_opening(struct td_channel_link *c)
{
	td_soon_cancel(&c->dial);
	td_credentials_cancel(c->creds);
	td_wslink_free(c->w);
	tnl_buf_fini_wiped(&c->frame);
	tnl_free(c->url);
	td_loop_free_later(c->aws->loop, c);
	td_aws_free(c->aws);
}

/* The reason may lie in the link or in the environment: it is told first. */
static void give_result(struct td_channel_link *c, const struct td_channel_link_result *r)
{
	c->fn(c->ctx, r);
	free_opening(c);
}

static void give_failure(struct td_channel_link *c, const char *why)
{
	give_result(c, &(struct td_channel_link_result){.why = why});
}

static void on_open(void *ctx)
{
	struct td_channel_link *c = ctx;
	struct td_wslink *w = c->w;
	int rc = td_wslink_send(w, TNL_WS_TEXT, tnl_buf_data(&c->frame), tnl_buf_len(&c->frame));

	if (rc) {
		give_failure(c, tnl_err_text(rc));
		return;
	}
	c->w = NULL;
	give_result(c, &(struct td_channel_link_result){.w = w, .why = ""});
}

static void on_closed(void *ctx, int err, uint16_t code, int http_status, const char *why)
{
	const struct td_channel_link *c = ctx;

	if (!http_status || http_status >= 500)
		td_aws_url_failed(c->aws, c->url, why && *why ? why : tnl_err_text(err));
	give_result(ctx, &(struct td_channel_link_result){.dialed = true,
							  .http_status = http_status,
							  .why = why && *why ? why : tnl_err_text(err)});
}

static void dial_link(struct td_channel_link *c, const struct tnl_sigv4_keys *keys)
{
	static const struct td_wslink_cb link_cb = {.open = on_open, .closed = on_closed};
	struct tnl_url u;
	const char *fault;

	if (tnl_url_parse(c->url, &u, &fault) < 0) {
		give_failure(c, fault);
		return;
	}
	struct td_wslink_opts o = {
	    .tls = td_aws_tls(c->aws),
	    .proxy = td_aws_proxy_for(c->aws, true, u.host, u.port),
	    .timeout_ns = OPEN_TIMEOUT,
	    .keys = keys,
	    .region = td_aws_region(c->aws),
	    .service = "ssmmessages",
	    .ping_ns = c->ping_ns,
	    .pong_ns = c->pong_ns,
	    .kept = &c->aws->kept,
	    .returns = !td_aws_is_amazon(c->aws),
	};
	c->w = td_wslink_dial(c->aws->loop, c->url, &o, &link_cb, c);
	if (!c->w)
		give_failure(c, "out of memory");
}

static void dial_unsigned(void *arg)
{
	dial_link(arg, NULL);
}

static void on_keys(void *ctx, const struct tnl_sigv4_keys *keys, enum td_credentials_state st, const char *why)
{
	struct td_channel_link *c = ctx;

	c->creds = NULL;
	if (!keys && c->must_sign)
		give_failure(c, why);
	else
		dial_link(c, keys);
}

static int write_frame(struct td_channel_link *c, struct tnl_open open)
{
	char request_id[TNL_UUID_STR];
	uint8_t u[16];

	tnl_uuid_new(u);
	tnl_uuid_str(u, request_id);
	open.request_id = request_id;
	return tnl_open_write(&c->frame, &open);
}

struct td_channel_link *td_channel_link_open(struct td_aws *a, const struct td_channel_link_opts *o,
					     td_channel_link_fn *fn, void *ctx)
{
	struct td_channel_link *c = tnl_calloc(1, sizeof(*c));

	if (!c)
		return NULL;
	c->aws = td_aws_ref(a);
	c->url = tnl_strdup(o->url);
	c->must_sign = o->must_sign;
	c->ping_ns = o->ping_ns;
	c->pong_ns = o->pong_ns;
	c->fn = fn;
	c->ctx = ctx;
	tnl_buf_init(&c->frame, FRAME_MAX);
	td_soon_init(&c->dial, a->loop, dial_unsigned, c);
	bool ok = c->url && write_frame(c, *o->open) == 0;
	if (ok && (o->never_sign || td_aws_url_presigned(c->url)))
		td_soon_do(&c->dial);
	else if (ok)
		ok = (c->creds = td_credentials_ask(a, false, on_keys, c)) != NULL;
	if (ok)
		return c;
	free_opening(c);
	return NULL;
}

void td_channel_link_cancel(struct td_channel_link *c)
{
	if (c)
		free_opening(c);
}
