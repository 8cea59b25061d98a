/* JSON 1.1 calls: which operation, who asks, answers and errors as AWS gives them. */
#include "tunneld/gateway/internal.h"
#include "lib/alloc.h"
#include "lib/crypto.h"
#include "lib/enc.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define JSON_TYPE "application/x-amz-json-1.1"
#define USERS 1u
#define INSTANCES 2u

struct op {
	const char *name;
	unsigned who;
	void (*fn)(struct gw_call *);
};

static const struct op ssm_ops[] = {
    {"StartSession", USERS, gw_op_start_session},
    {"ResumeSession", USERS, gw_op_resume_session},
    {"TerminateSession", USERS, gw_op_terminate_session},
    {"DescribeSessions", USERS, gw_op_describe_sessions},
    {"DescribeInstanceInformation", USERS, gw_op_describe_instances},
    {"UpdateInstanceInformation", INSTANCES, gw_op_update_instance},
    {"ListInstanceAssociations", INSTANCES, gw_op_list_associations},
    {"ListAssociations", INSTANCES, gw_op_list_associations},
    {"UpdateInstanceAssociationStatus", INSTANCES, gw_op_agent_nothing},
    {"UpdateAssociationStatus", INSTANCES, gw_op_agent_nothing},
    {"PutInventory", INSTANCES, gw_op_agent_nothing},
    {"PutComplianceItems", INSTANCES, gw_op_agent_nothing},
    {"PutConfigurePackageResult", INSTANCES, gw_op_agent_nothing},
    {NULL, 0, NULL},
};
static const struct op ec2messages_ops[] = {
    {"GetMessages", INSTANCES, gw_op_get_messages},
    {"AcknowledgeMessage", INSTANCES, gw_op_agent_nothing},
    {"DeleteMessage", INSTANCES, gw_op_agent_nothing},
    {"FailMessage", INSTANCES, gw_op_agent_nothing},
    {"SendReply", INSTANCES, gw_op_agent_nothing},
    {"GetEndpoint", INSTANCES, gw_op_agent_nothing},
    {NULL, 0, NULL},
};
static const struct op kms_ops[] = {
    {"GenerateDataKey", USERS, gw_op_generate_data_key},
    {"Decrypt", USERS | INSTANCES, gw_op_decrypt},
    {NULL, 0, NULL},
};
static const struct service {
	const char *prefix, *name;
	const struct op *ops;
} services[] = {
    {"AmazonSSM.", "ssm", ssm_ops},
    {"EC2WindowsMessageDeliveryService.", "ec2messages", ec2messages_ops},
    {"TrentService.", "kms", kms_ops},
};

/* --- answers ------------------------------------------------------------------- */
static void reply(struct td_request *r, int status, const char *type, const void *body, size_t n)
{
	uint8_t u[16];
	char id[TNL_UUID_STR];
	tnl_uuid_new(u);
	tnl_uuid_str(u, id);
	const char *const headers[][2] = {{"x-amzn-RequestId", id}, {"Cache-Control", "no-store"}};
	td_request_set_user(r, NULL);
	td_request_reply(r, status, type, headers, 2, body, n);
}

static void error_body(struct tnl_buf *b, const char *type, const char *text, bool xml)
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

void gw_reply_refusal(struct td_gateway *g, struct td_request *r, const struct gw_refusal *why, bool xml)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 16 * 1024);
	error_body(&b, why->type, why->text, xml);
	gw_count(g, GW_C_API_ERRORS);
	reply(r, why->status, xml ? "application/xml" : JSON_TYPE, tnl_buf_data(&b), tnl_buf_len(&b));
	tnl_buf_fini(&b);
}

void gw_call_free(struct gw_call *c)
{
	if (c->r)
		td_request_set_user(c->r, NULL);
	tnl_list_remove(&c->node);
	td_timer_stop(&c->timer);
	tnl_json_free(c->in);
	if (c->token)
		tnl_free_wiped(c->token, strlen(c->token));
	tnl_free(c->user);
	tnl_free(c);
}

void gw_call_ok(struct gw_call *c, struct tnl_buf *body)
{
	if (body->failed) {
		gw_call_fail(c, 500, "InternalServerError", "The answer is too large");
		return;
	}
	if (c->r)
		reply(c->r, 200, JSON_TYPE, tnl_buf_data(body), tnl_buf_len(body));
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
		td_info("gateway", NULL, "call refused op=%s peer=%s reason=%s text=\"%s\"", c->op,
			td_request_peer(c->r), type, why.text);
		gw_reply_refusal(c->g, c->r, &why, false);
	}
	c->r = NULL;
	gw_call_free(c);
}

/* The caller hung up before the answer. */
void gw_api_gone(struct gw_call *c)
{
	c->r = NULL;
	if (c->patient)
		gw_call_free(c);
}

/* --- arguments ---------------------------------------------------------------------- */
static void lower_first(const char *key, char out[64])
{
	snprintf(out, 64, "%s", key);
	if (out[0] >= 'A' && out[0] <= 'Z')
		out[0] = (char)(out[0] - 'A' + 'a');
}

const char *gw_call_str(struct gw_call *c, const char *key, size_t max, bool wanted, bool *ok)
{
	const struct tnl_json *v = tnl_json_get(c->in, key);
	const char *s = tnl_json_str(v);
	char name[64];
	lower_first(key, name);
	*ok = true;
	if (!v || tnl_json_is_null(v)) {
		if (!wanted)
			return NULL;
		gw_call_fail(c, 400, "ValidationException",
			     "1 validation error detected: Value at '%s' failed to satisfy "
			     "constraint: Member must not be null",
			     name);
	} else if (!s) {
		gw_call_fail(c, 400, "SerializationException", "%s is not a string", key);
	} else if (strlen(s) > max || (wanted && !*s)) {
		gw_call_fail(c, 400, "ValidationException",
			     "1 validation error detected: Value at '%s' failed to satisfy "
			     "constraint: Member must have length between %d and %zu",
			     name, wanted ? 1 : 0, max);
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
	gw_call_fail(c, 400, "AccessDeniedException", "Not authorized to perform: %s on this resource", c->op);
	return false;
}

/* --- dispatch ------------------------------------------------------------------------- */
static const struct service *service_of(const char *target, size_t n, char op[64])
{
	for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++) {
		size_t p = strlen(services[i].prefix);
		if (n <= p || n - p >= 64 || memcmp(target, services[i].prefix, p) != 0)
			continue;
		memcpy(op, target + p, n - p);
		op[n - p] = 0;
		return &services[i];
	}
	return NULL;
}

static const struct op *op_of(const struct service *s, const char *name)
{
	for (const struct op *o = s->ops; o->name; o++)
		if (strcmp(o->name, name) == 0)
			return o;
	return NULL;
}

static void refuse(struct td_gateway *g, struct td_request *r, const char *type, const char *text, const char *field)
{
	struct gw_refusal why = {.status = 400, .type = type};
	snprintf(why.text, sizeof(why.text), "%s", text);
	td_warn("gateway", NULL, "request refused peer=%s reason=%s field=\"%s\"", td_request_peer(r), type, field);
	gw_reply_refusal(g, r, &why, false);
}

static void run(struct gw_call *c, const struct op *op)
{
	unsigned kind = c->who->user ? USERS : INSTANCES;
	if (!(op->who & kind)) {
		gw_count(c->g, GW_C_AUTH_DENIED);
		gw_call_fail(c, 400, "AccessDeniedException",
			     "User: arn:aws:iam::000000000000:%s/%s is not authorized to perform: %s",
			     kind == USERS ? "user" : "instance",
			     kind == USERS ? c->who->user->name : c->who->instance->id, op->name);
		return;
	}
	td_debug("gateway", NULL, "call op=%s by=%s peer=%s", op->name,
		 kind == USERS ? c->who->user->name : c->who->instance->id, td_request_peer(c->r));
	op->fn(c);
}

void gw_api_request(struct td_gateway *g, struct td_request *r, const char *target, size_t n)
{
	char name[64];
	const struct gw_principal *who;
	struct gw_refusal why;
	gw_count(g, GW_C_API_CALLS);
	const struct service *s = target ? service_of(target, n, name) : NULL;
	if (!s) {
		refuse(g, r, "UnknownOperationException", "The operation is not known", "X-Amz-Target");
		return;
	}
	if (gw_auth_check(g, r, s->name, false, &who, &why) != 0) {
		gw_reply_refusal(g, r, &why, false);
		return;
	}
	const struct op *op = op_of(s, name);
	if (!op) {
		refuse(g, r, "UnknownOperationException", "The operation is not known", "X-Amz-Target");
		return;
	}
	size_t len;
	const uint8_t *body = td_request_body(r, &len);
	struct tnl_json *in = len ? tnl_json_parse(body, len) : tnl_json_parse("{}", 2);
	if (!in || !tnl_json_is_obj(in)) {
		tnl_json_free(in);
		refuse(g, r, "SerializationException", "The body is not a JSON object", "body");
		return;
	}
	struct gw_call *c = tnl_calloc(1, sizeof(*c));
	if (!c) {
		tnl_json_free(in);
		td_request_reply(r, 503, JSON_TYPE, NULL, 0, "{}", 2);
		return;
	}
	*c = (struct gw_call){.g = g, .r = r, .op = op->name, .who = who, .in = in};
	tnl_list_push_back(&g->calls, &c->node);
	td_timer_init(&c->timer, g->l, NULL, c);
	td_request_set_user(r, c);
	run(c, op);
}
