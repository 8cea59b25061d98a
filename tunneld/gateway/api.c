/* JSON 1.1 calls: which operation, and who may ask for it. */
#include "tunneld/gateway/api_internal.h"
#include "lib/num.h"
#include <stdio.h>
#include <string.h>

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
    {"OpenSessionLink", USERS, gw_op_open_session_link},
    {"TerminateSession", USERS, gw_op_terminate_session},
    {"DescribeSessions", USERS, gw_op_describe_sessions},
    {"DescribeInstanceInformation", USERS, gw_op_describe_instances},
    {"GetConnectionStatus", USERS, gw_op_connection_status},
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

/* --- dispatch ------------------------------------------------------------------------- */
static const struct service *find_service(const char *target, size_t n, char op[64])
{
	for (size_t i = 0; i < TNL_COUNT(services); i++) {
		size_t p = strlen(services[i].prefix);
		if (n <= p || n - p >= 64 || memcmp(target, services[i].prefix, p) != 0)
			continue;
		memcpy(op, target + p, n - p);
		op[n - p] = 0;
		return &services[i];
	}
	return NULL;
}

static const struct op *find_op(const struct service *s, const char *name)
{
	for (const struct op *o = s->ops; o->name; o++)
		if (strcmp(o->name, name) == 0)
			return o;
	return NULL;
}

static void refuse_request(struct td_gateway *g, struct td_request *r, const char *type, const char *text,
			   const char *field)
{
	struct gw_refusal why = {.status = 400, .type = type};
	snprintf(why.text, sizeof(why.text), "%s", text);
	td_warn("gateway", NULL, "request refused peer=%s reason=%s field=\"%s\"", td_request_peer(r), type, field);
	gw_refusal_reply(g, r, &why, false);
}

static void run_op(struct gw_call *c, const struct op *op)
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
	if (op->who == INSTANCES && !gw_rate_principal(c->g, c->who)) { /* an agent's, about no session */
		gw_call_throttle(c);
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
	const struct service *s = target ? find_service(target, n, name) : NULL;
	if (!s) {
		refuse_request(g, r, "UnknownOperationException", "The operation is not known", "X-Amz-Target");
		return;
	}
	if (gw_auth_check(g, r, s->name, false, &who, &why) != 0) {
		gw_refusal_reply(g, r, &why, false);
		return;
	}
	const struct op *op = find_op(s, name);
	if (!op) {
		refuse_request(g, r, "UnknownOperationException", "The operation is not known", "X-Amz-Target");
		return;
	}
	size_t len;
	const uint8_t *body = td_request_body(r, &len);
	struct tnl_json *in = len ? tnl_json_parse(body, len) : tnl_json_parse("{}", 2);
	if (!in || !tnl_json_is_obj(in)) {
		tnl_json_free(in);
		refuse_request(g, r, "SerializationException", "The body is not a JSON object", "body");
		return;
	}
	struct gw_call *c = gw_call_new(g, r, op->name, who, in);
	if (!c) {
		tnl_json_free(in);
		td_request_reply(r, 503, "application/x-amz-json-1.1", NULL, 0, "{}", 2);
		return;
	}
	run_op(c, op);
}
