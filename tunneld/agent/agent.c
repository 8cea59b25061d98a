/* The agent role as a whole: which type of session is served by what, set up, reload, drain. */
#include "tunneld/agent/internal.h"
#include "tunneld/agent/spawn.h"

#include "lib/alloc.h"
#include "tunneld/base/audit.h"
#include "tunneld/base/log.h"

#include <stdio.h>
#include <string.h>

/* How long the end of sessions may wait for a gateway's confirmation when we stop. */
#define TASKS_WAIT (1500 * TD_MS)

/* Here session types are added. */
static const struct ag_type types[] = {
    {"Port", &ag_port_plugin, .properties = true},
    {"Standard_Stream", &ag_shell_plugin, .terminal = true},
    {"InteractiveCommands", &ag_shell_plugin, .terminal = true, .command = true},
    {"NonInteractiveCommands", &ag_shell_plugin, .command = true},
    {0},
};

/* Our own gateway serves all APIs at one address: what is not set follows what is. */
static struct td_aws_config aws_config(const struct td_agent_config *c)
{
	struct td_aws_config aws = c->aws;
	char *known = aws.ssmmessages_endpoint ? aws.ssmmessages_endpoint : aws.ssm_endpoint;

	if (!known || strstr(known, "amazonaws."))
		return aws;
	if (!aws.ssmmessages_endpoint)
		aws.ssmmessages_endpoint = known;
	if (!aws.ssm_endpoint)
		aws.ssm_endpoint = known;
	if (!aws.kms_endpoint)
		aws.kms_endpoint = known;
	return aws;
}

static void on_wake(void *arg)
{
	struct td_agent *a = arg;

	ag_control_wake(a);
	tnl_list_foreach(it, &a->sessions)
		ag_session_wake(tnl_container_of(it, struct ag_session, node));
}

static void settle(void *arg);

static void task_settled(struct td_agent *a, const char *session_id)
{
	td_ledger_del(a->ledger, session_id);
	td_soon_do(&a->settle);
}

static void report_left(void *ctx, const char *session_id, const char *note)
{
	struct td_agent *a = ctx;
	td_info(AG_MOD, session_id, "session of the last run is reported as ended");
	ag_tasks_add(&a->tasks, session_id, AG_FAILED, "the agent was restarted");
}

/* Sessions that a crash cut off are reported as ended, so that their clients do not wait for an agent that knows
 * nothing of them.  One is noted from its start until its end is confirmed. */
static void open_ledger(struct td_agent *a)
{
	struct td_ledger_config c = {.dir = a->cfg->state_dir,
				     .name = "agent-sessions",
				     .module = AG_MOD,
				     .risk = "sessions that a crash cuts off will end late"};
	a->ledger = td_ledger_new(a->loop, &c);
	td_ledger_each(a->ledger, report_left, a);
}

int td_agent_prepare(const struct td_config *cfg, char *why, size_t cap)
{
	return ag_spawn_prepare(cfg, why, cap);
}

struct td_agent *td_agent_new(struct td_loop *l, const struct td_config *cfg, char *why, size_t cap)
{
	struct td_agent *a = tnl_calloc(1, sizeof(*a));

	if (!a) {
		snprintf(why, cap, "out of memory");
		return NULL;
	}
	a->loop = l;
	a->cfg = td_config_ref(cfg);
	a->types = types;
	tnl_list_init(&a->sessions);
	ag_tasks_init(&a->tasks, a, task_settled);
	td_soon_init(&a->settle, l, settle, a);
	td_timer_init(&a->drain_timer, l, settle, a);
	struct td_aws_config aws = aws_config(ag_cfg(a));
	a->aws = td_aws_new(l, &aws, why, cap);
	a->instance_id = tnl_strdup(ag_cfg(a)->instance_id);
	const char *audit = ag_cfg(a)->audit_log;
	bool audited = a->aws && (!audit || (a->audit = td_audit_open(l, "agent", audit, why, cap)) != NULL);
	a->info = audited && a->instance_id ? ag_info_new(a) : NULL;
	if (audited && !a->info)
		snprintf(why, cap, "out of memory");
	if (!a->info || ag_direct_setup(a, ag_cfg(a), why, cap) != 0) {
		ag_info_free(a->info);
		td_audit_close(a->audit);
		td_aws_free(a->aws);
		tnl_free(a->instance_id);
		td_config_free((struct td_config *)(uintptr_t)a->cfg);
		tnl_free(a);
		return NULL;
	}
	td_loop_on_wake(l, on_wake, a);
	ag_control_init(a);
	open_ledger(a);
	ag_control_start(a);
	return a;
}

void td_agent_free(struct td_agent *a)
{
	if (!a)
		return;
	td_loop_off_wake(a->loop, on_wake, a);
	td_timer_stop(&a->drain_timer);
	td_ledger_free(a->ledger); /* before the sessions go: what is open stays noted */
	a->ledger = NULL;
	while (!tnl_list_empty(&a->sessions))
		ag_session_free(tnl_container_of(a->sessions.next, struct ag_session, node));
	ag_direct_fini(a);
	ag_info_free(a->info);
	ag_control_stop(a);
	ag_tasks_fini(&a->tasks);
	td_soon_cancel(&a->settle);
	td_audit_close(a->audit);
	td_aws_free(a->aws);
	tnl_free(a->instance_id);
	td_config_free((struct td_config *)(uintptr_t)a->cfg);
	td_loop_free_later(a->loop, a); /* `done` may be on its way back to us */
}

bool td_agent_connected(const struct td_agent *a)
{
	return ag_control_is_up(a);
}

int td_agent_reload(struct td_agent *a, const struct td_config *cfg, char *why, size_t cap)
{
	td_aws_reload(a->loop); /* files of keys may have changed as well */
	struct td_aws_config conf = aws_config(&cfg->agent);
	struct td_aws *aws = td_aws_new(a->loop, &conf, why, cap);
	char *id = tnl_strdup(cfg->agent.instance_id);

	bool memory = aws && !id;
	if (memory)
		snprintf(why, cap, "out of memory");
	if (!aws || !id || ag_direct_setup(a, &cfg->agent, why, cap) != 0) {
		td_aws_free(aws);
		tnl_free(id);
		return -1;
	}
	if (td_audit_reload(&a->audit, a->loop, "agent", cfg->agent.audit_log, why, cap) != 0) {
		td_aws_free(aws);
		tnl_free(id);
		return -1;
	}
	struct td_aws *old = a->aws;
	bool same = td_aws_same_service(aws, old) && strcmp(id, a->instance_id) == 0;
	if (ag_control_is_up(a)) /* of several addresses that which it came up at may be gone from the list */
		same = same && td_aws_has_endpoint(aws, "ssmmessages", a->control.channel.at);
	tnl_free(a->instance_id);
	a->aws = aws;
	a->instance_id = id;
	td_config_free((struct td_config *)(uintptr_t)a->cfg);
	a->cfg = td_config_ref(cfg);
	tnl_list_foreach(it, &a->sessions)
		ag_session_limit(tnl_container_of(it, struct ag_session, node));
	if (!same) {
		ag_control_restart(a);
		ag_info_restart(a->info);
	} else if (!ag_control_is_up(a)) {
		ag_control_restart(a); /* what kept it away may be what has changed */
	}
	tnl_list_foreach(it, &a->sessions)
		ag_session_retry(tnl_container_of(it, struct ag_session, node));
	ag_reverse_reload(a);
	td_aws_free(old);
	return ag_spawn_reload(cfg, why, cap);
}

/* --- drain ------------------------------------------------------------------------------ */

static void set_state(struct td_agent *a, enum ag_state st)
{
	static const char *const names[] = {"running", "draining", "cut", "drained"};

	td_debug(AG_MOD, NULL, "agent old=%s new=%s", names[a->state], names[st]);
	a->state = st;
}

static void finish_drain(struct td_agent *a)
{
	set_state(a, AG_DRAINED);
	td_timer_stop(&a->drain_timer);
	if (a->done)
		a->done(a->done_ctx);
}

/* Then the gateway has a moment to confirm; without a control channel nobody could. */
static bool tasks_are_over(struct td_agent *a)
{
	if (!a->tasks_by)
		a->tasks_by = a->loop->now + TASKS_WAIT;
	return tnl_list_empty(&a->tasks.list) || !ag_control_is_up(a) || a->loop->now >= a->tasks_by;
}

/* Sessions without connections end at once, the others when they have none, all at the deadline. */
static void settle(void *arg)
{
	struct td_agent *a = arg;
	uint64_t now = a->loop->now;

	if (a->state == AG_CUT)
		finish_drain(a);
	if (a->state != AG_DRAINING)
		return;
	bool late = now >= a->drain_by;
	ag_sessions_drain(a, late);
	if (!tnl_list_empty(&a->sessions)) {
		if (now >= a->drain_by + 3 * TD_SEC)
			finish_drain(a);
		else
			td_timer_at(&a->drain_timer, late ? a->drain_by + 4 * TD_SEC : a->drain_by);
	} else if (tasks_are_over(a)) {
		finish_drain(a);
	} else {
		td_timer_at(&a->drain_timer, a->tasks_by);
	}
}

void td_agent_drain(struct td_agent *a, uint64_t timeout_ns, void (*done)(void *), void *ctx)
{
	a->done = done;
	a->done_ctx = ctx;
	if (a->state == AG_RUNNING) {
		td_info(AG_MOD, NULL, "stopping sessions=%u timeout_ms=%llu", a->nsessions,
			(unsigned long long)(timeout_ns / TD_MS));
		a->drain_by = a->loop->now + timeout_ns;
		set_state(a, AG_DRAINING);
	} else if (a->state == AG_DRAINING) { /* the second time: now */
		set_state(a, AG_CUT);
	}
	td_soon_do(&a->settle);
}
