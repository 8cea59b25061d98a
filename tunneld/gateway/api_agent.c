/* What an agent calls beside its channels.  There is no Run Command and no
 * State Manager here: the answers say that there is nothing to do. */
#include "tunneld/gateway/api_internal.h"
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"

static void answer_raw(struct gw_call *c, const char *json)
{
	struct tnl_buf b;
	tnl_buf_init(&b, 4096);
	tnl_buf_puts(&b, json);
	gw_call_ok(c, &b);
	tnl_buf_fini(&b);
}

static bool keep_field(struct gw_call *c, const char *key, char **to)
{
	bool ok;
	const char *v = gw_call_str(c, key, 512, false, &ok);
	if (ok && v) {
		tnl_free(*to);
		*to = tnl_strdup(v);
	}
	return ok;
}

static void say_restarted(struct gw_instance *i)
{
	struct gw_words w;
	gw_control_restarted(i);
	if (!i->g->shared)
		return;
	gw_words_begin(i->g, &w, "restarted");
	tnl_jw_kv(&w.w, "instance", i->id);
	gw_words_say(i->g, NULL, &w);
}

void gw_op_update_instance(struct gw_call *c)
{
	bool ok;
	const char *id = gw_call_str(c, "InstanceId", GW_ID_MAX, true, &ok);
	if (!ok || !gw_call_own_instance(c, id))
		return;
	struct gw_instance *i = gw_instance_get(c->g, id);
	if (!i) {
		gw_call_fail(c, 400, "InvalidInstanceId", "%.100s is not known", id);
		return;
	}
	if (!keep_field(c, "AgentName", &i->agent_name) || !keep_field(c, "AgentVersion", &i->agent_version) ||
	    !keep_field(c, "PlatformType", &i->platform_type) || !keep_field(c, "PlatformName", &i->platform_name) ||
	    !keep_field(c, "PlatformVersion", &i->platform_version) || !keep_field(c, "IPAddress", &i->ip_address) ||
	    !keep_field(c, "ComputerName", &i->computer_name))
		return;
	i->ping_ms = c->g->l->wall_ms;
	if (!i->registered_ms)
		i->registered_ms = i->ping_ms;
	/* Without a status it is the call that an agent makes once, when its process starts. */
	if (!tnl_json_get(c->in, "AgentStatus"))
		say_restarted(i);
	gw_instance_tell(i);
	answer_raw(c, "{}");
}

void gw_op_list_associations(struct gw_call *c)
{
	answer_raw(c, "{\"Associations\":[]}");
}

void gw_op_agent_nothing(struct gw_call *c)
{
	answer_raw(c, "{}");
}

/* --- GetMessages: a long poll that never has anything ---------------------------- */
static void on_poll_over(void *arg)
{
	struct gw_call *c = arg;
	struct tnl_buf b;
	struct tnl_jw w;
	tnl_buf_init(&b, 4096);
	tnl_jw_init(&w, &b);
	tnl_jw_obj(&w);
	tnl_jw_kv(&w, "Destination", tnl_json_get_str(c->in, "Destination"));
	tnl_jw_kv(&w, "MessagesRequestId", tnl_json_get_str(c->in, "MessagesRequestId"));
	tnl_jw_key(&w, "Messages");
	tnl_jw_arr(&w);
	tnl_jw_end_arr(&w);
	tnl_jw_end_obj(&w);
	gw_call_ok(c, &b);
	tnl_buf_fini(&b);
}

void gw_op_get_messages(struct gw_call *c)
{
	bool ok;
	const char *id = gw_call_str(c, "Destination", GW_ID_MAX, true, &ok);
	if (!ok || !gw_call_own_instance(c, id))
		return;
	gw_call_str(c, "MessagesRequestId", 256, false, &ok);
	if (!ok)
		return;
	c->who = NULL;
	c->patient = true;
	td_timer_init(&c->timer, c->g->l, on_poll_over, c);
	td_timer_in(&c->timer, GW_POLL_NS);
}
