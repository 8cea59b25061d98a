/* One JSON 1.1 call: its arguments, its answer, errors as AWS gives them.  A call lives until it is answered; while it
 * waits (for the store, for an instance, in a long poll) its caller may go, and its session may end. */
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define JSON_TYPE "application/x-amz-json-1.1"

/* --- answers ------------------------------------------------------------------- */
static void reply_with_id(struct td_request *r, int status, const char *type, const void *body, size_t n)
{
	uint8_t u[16];
	char id[TNL_UUID_STR];
	tnl_uuid_new(u);
	tnl_uuid_str(u, id);
	const char *const headers[][2] = {{"x-amzn-RequestId", id},
					  {"Cache-Control", "no-store"},
					  {"Retry-After", "1"}};
	td_request_set_user(r, NULL);
	td_request_reply(r, status, type, headers, status == 503 ? 3 : 2, body, n);
}

static void write_error(struct tnl_buf *b, const char *type, const char *text, bool xml)
{
	if (xml) { /* a stock agent looks for <AccessDeniedException> and for words of the text */
		tnl_buf_printf(b, "<%s><Message>", type);
		for (; *text; text++) {
			if (strchr("<>&", *text))
				tnl_buf_printf(b, "&#%d;", *text);
			else
				tnl_buf_putc(b, *text);
		}
		tnl_buf_printf(b, "</Message></%s>", type);
		return;
	}
	struct tnl_jw w;
	tnl_jw_init(&w, b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "__type", type);
	tnl_jw_kv(&w, "message", text);
	if (strcmp(type, "AccessDeniedException") == 0)
		tnl_jw_kv(&w, "Message", text); /* where AWS puts it for this one */
	tnl_jw_end_obj(&w);
}

void gw_refusal_count(struct td_gateway *g, const char *kind)
{
	struct gw_refusals *t = &g->refused;
	unsigned i = 0;
	while (i < t->n && strcmp(t->v[i].kind, kind) != 0)
		i++;
	if (i == GW_REFUSALS)
		return; /* the kinds are ours: there are not so many */
	if (i == t->n)
		snprintf(t->v[t->n++].kind, sizeof(t->v[0].kind), "%s", kind);
	t->v[i].n++;
}

void gw_refusal_reply(struct td_gateway *g, struct td_request *r, const struct gw_refusal *why, bool xml)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 16 * 1024);
	write_error(&b, why->type, why->text, xml);
	gw_count(g, GW_C_API_ERRORS);
	gw_refusal_count(g, why->type);
	reply_with_id(r, why->status, xml ? "application/xml" : JSON_TYPE, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
}

/* --- a call ----------------------------------------------------------------------- */
struct gw_call *gw_call_new(struct td_gateway *g, struct td_request *r, const char *op, const struct gw_principal *who,
			    struct tnl_json *in)
{
	struct gw_call *c = tnl_calloc(1, sizeof(*c));
	if (!c)
		return NULL;
	*c = (struct gw_call){.g = g, .r = r, .op = op, .who = who, .in = in};
	if (who)
		memcpy(c->mark, who->mark, GW_MARK);
	tnl_list_push_back(&g->calls, &c->node);
	td_timer_init(&c->timer, g->l, NULL, c);
	td_request_set_user(r, c);
	return c;
}

void gw_call_free(struct gw_call *c)
{
	if (c->r)
		td_request_set_user(c->r, NULL);
	tnl_list_remove(&c->node);
	td_timer_stop(&c->timer);
	td_store_forget(c->g->store, c);
	gw_words_forget(c->g, c);
	if (c->admitted) /* the place was not used */
		td_store_count(c->g->store, c->user, tnl_json_get_str(c->in, "Target"), -1);
	tnl_json_free(c->in);
	tnl_free(c->at);
	if (c->token)
		tnl_free_wiped(c->token, strlen(c->token));
	tnl_free(c->user);
	tnl_free(c);
}

void gw_call_gone(struct gw_call *c)
{
	c->r = NULL;
	if (c->patient)
		gw_call_free(c);
}

void gw_call_ok(struct gw_call *c, struct tnl_buf *body)
{
	if (body->failed) {
		gw_call_fail(c, 500, "InternalServerError", "The answer is too large");
		return;
	}
	if (c->r)
		reply_with_id(c->r, 200, JSON_TYPE, tnl_buf_data(body), tnl_buf_len(body));
	c->r = NULL;
	gw_call_free(c);
}

void gw_call_fail(struct gw_call *c, int status, const char *type, const char *fmt, ...)
{
	struct gw_refusal why = {.status = status, .type = type};
	va_list ap;
	va_start(ap, fmt);
	vsnprintf(why.text, sizeof(why.text), fmt, ap);
	va_end(ap);
	if (c->r) {
		const struct gw_principal *p = gw_keys_by_mark(c->g, c->mark);
		td_info("gateway", NULL, "call refused op=%s peer=%s key=%s %s=%s reason=%s text=\"%s\"", c->op,
			td_request_peer(c->r), p ? p->key_id : "-", p && p->instance ? "instance" : "user",
			p ? gw_keys_name(p) : "-", type, why.text);
		const struct gw_denial d = {.op = c->op,
					    .peer = td_request_peer(c->r),
					    .who = p,
					    .proven = true,
					    .target = tnl_json_get_str(c->in, "Target"),
					    .document = tnl_json_get_str(c->in, "DocumentName"),
					    .reason = type,
					    .text = why.text};
		gw_audit_refused(c->g, &d);
		gw_refusal_reply(c->g, c->r, &why, false);
	}
	c->r = NULL;
	gw_call_free(c);
}

void gw_call_unavailable(struct gw_call *c)
{
	gw_call_fail(c, 503, "ServiceUnavailableException",
		     "The store of session records does not answer; try again in a moment");
}

/* --- arguments ---------------------------------------------------------------------- */
static void lower_first(const char *key, char out[64])
{
	snprintf(out, 64, "%s", key);
	if (out[0] >= 'A' && out[0] <= 'Z')
		out[0] = (char)(out[0] - 'A' + 'a');
}

const char *gw_call_str(struct gw_call *c, const char *key, size_t max, bool required, bool *ok)
{
	const struct tnl_json *v = tnl_json_get(c->in, key);
	const char *s = tnl_json_str(v);
	char name[64];
	lower_first(key, name);
	*ok = true;
	if (!v || tnl_json_is_null(v)) {
		if (!required)
			return NULL;
		gw_call_fail(c, 400, "ValidationException",
			     "1 validation error detected: Value at '%s' failed to satisfy "
			     "constraint: Member must not be null",
			     name);
	} else if (!s) {
		gw_call_fail(c, 400, "SerializationException", "%s is not a string", key);
	} else if (strlen(s) > max || (required && !*s)) {
		gw_call_fail(c, 400, "ValidationException",
			     "1 validation error detected: Value at '%s' failed to satisfy "
			     "constraint: Member must have length between %d and %zu",
			     name, required ? 1 : 0, max);
	} else {
		return s;
	}
	*ok = false;
	return NULL;
}

bool gw_call_int(struct gw_call *c, const char *key, int64_t lo, int64_t hi, int64_t dflt, int64_t *out)
{
	const struct tnl_json *v = tnl_json_get(c->in, key);
	*out = dflt;
	if (!v || tnl_json_is_null(v))
		return true;
	char name[64];
	lower_first(key, name);
	if (!tnl_json_int(v, out))
		gw_call_fail(c, 400, "SerializationException", "%s is not a number", key);
	else if (*out < lo || *out > hi)
		gw_call_fail(c, 400, "ValidationException",
			     "1 validation error detected: Value at '%s' failed to satisfy "
			     "constraint: Member must have value between %lld and %lld",
			     name, (long long)lo, (long long)hi);
	else
		return true;
	return false;
}

bool gw_call_own_instance(struct gw_call *c, const char *id)
{
	if (c->who->instance && strcmp(c->who->instance->id, id) == 0)
		return true;
	gw_count(c->g, GW_C_AUTH_DENIED);
	if (c->who->instance)
		gw_call_fail(
		    c, 400, "AccessDeniedException",
		    "Not authorized to perform: %s on this resource: the key is that of instance %s, not of %.100s",
		    c->op, c->who->instance->id, id);
	else
		gw_call_fail(c, 400, "AccessDeniedException", "Not authorized to perform: %s on this resource", c->op);
	return false;
}
