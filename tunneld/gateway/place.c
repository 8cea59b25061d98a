/* Places for sessions on all nodes together: the quotas of users and instances are counted where the nodes meet, in the
 * shared store, which also says at which node the instance is.  (What one gateway allows by itself: quota.c.) */
#include "tunneld/gateway/shared_internal.h"
#include "lib/alloc.h"
#include "lib/num.h"
#include <string.h>

static void refuse(struct gw_call *c, enum td_store_verdict v, const char *user, const char *instance)
{
	static const struct {
		enum gw_counter counter;
		const char *text;
	} all[] = {
	    [TD_STORE_USER_MAX] = {GW_C_LIMIT_USER_SESSIONS, "sessions, on all nodes"},
	    [TD_STORE_INSTANCE_MAX] = {GW_C_LIMIT_INSTANCE_SESSIONS, "sessions, on all nodes"},
	    [TD_STORE_USER_RATE] = {GW_C_LIMIT_USER_RATE, "sessions per minute, on all nodes"},
	    [TD_STORE_INSTANCE_RATE] = {GW_C_LIMIT_INSTANCE_RATE, "sessions per minute, on all nodes"},
	};
	bool of_user = v == TD_STORE_USER_MAX || v == TD_STORE_USER_RATE;
	if ((size_t)v >= TNL_COUNT(all) || !all[v].text) {
		gw_call_unavailable(c);
		return;
	}
	gw_count(c->g, all[v].counter);
	gw_call_fail(c, 400, "ThrottlingException", "Rate exceeded: %s %.100s is at its limit of %s",
		     of_user ? "user" : "instance", of_user ? user : instance, all[v].text);
}

static void on_verdict(void *ctx, int err, enum td_store_verdict v, const char *node)
{
	struct gw_call *c = ctx;
	const struct gw_principal *p = gw_keys_by_mark(c->g, c->mark);
	const char *target = tnl_json_get_str(c->in, "Target");
	const char *user = p && p->user ? p->user->name : c->user ? c->user : "";
	struct gw_instance *i = gw_instance_get(c->g, target);
	bool admitted = err == 0 && v == TD_STORE_ADMITTED;
	if (i && admitted)
		gw_instance_at(i, node);
	if (!c->r) {
		if (admitted)
			td_store_count(c->g->store, user, target, -1);
		gw_call_free(c);
	} else if (err != 0) {
		gw_call_unavailable(c);
	} else if (v == TD_STORE_AWAY) {
		if (i && !i->link) /* its node may have gone without a word */
			gw_instance_at(i, "");
		c->placed(c, NULL);
	} else if (!admitted) {
		refuse(c, v, user, target);
	} else {
		c->admitted = true;
		c->placed(c, node);
	}
}

void gw_place_ask(struct gw_call *c, const struct td_user_config *u, const struct gw_instance *i,
		  void (*then)(struct gw_call *c, const char *node))
{
	const struct td_quota *of_user = &u->quota, *of_instance = &i->cfg->quota;
	const struct td_store_claim claim = {.user = u->name,
					     .instance = i->id,
					     .user_max = of_user->max_sessions,
					     .instance_max = of_instance->max_sessions,
					     .user_per_minute = of_user->sessions_per_minute,
					     .instance_per_minute = of_instance->sessions_per_minute,
					     .here = i->link != NULL};
	c->placed = then;
	c->who = NULL;
	td_store_admit(c->g->store, &claim, on_verdict, c);
}
