/* The control channel: how the agent hears of sessions and reports their end.  It is opened for ever again, with a
 * back-off; sessions do not depend on it once they have begun, only the notes of their ends wait for it (task.c).
 * What makes no sense on it is counted and dropped: the channel stays. */
#include "tunneld/agent/internal.h"

#include "tunneld/base/log.h"

#include <stdio.h>
#include <string.h>

#define WARN_EVERY (60 * TD_SEC)

static const char *const state_names[] = {"down", "opening", "up"};

static void set_state(struct ag_control *c, enum ag_control_state st)
{
	if (c->state == st)
		return;
	td_debug(AG_MOD, NULL, "control channel old=%s new=%s", state_names[c->state], state_names[st]);
	c->state = st;
}

/* The same trouble is reported once a minute, not with each attempt. */
static void report_trouble(struct td_agent *a, const char *what, const char *why)
{
	struct ag_control *c = &a->control;
	bool known = strncmp(c->last_error, why, sizeof(c->last_error) - 1) == 0;

	if (known && c->warned_at && a->loop->now - c->warned_at < WARN_EVERY)
		return;
	c->warned_at = a->loop->now;
	snprintf(c->last_error, sizeof(c->last_error), "%s", why);
	td_warn(AG_MOD, NULL, "control channel %s, trying again instance=%s endpoint=%s error=\"%s\"", what,
		a->instance_id, td_aws_endpoint(a->aws, "ssmmessages"), why);
}

static void open_later(struct td_agent *a)
{
	struct ag_control *c = &a->control;
	set_state(c, AG_CTL_DOWN);
	td_timer_in(&c->retry, td_backoff_next(&c->backoff));
}

static void drop_link(struct td_agent *a)
{
	ag_tasks_link(&a->tasks, NULL);
	if (a->control.link)
		td_wslink_free(a->control.link);
	a->control.link = NULL;
}

/* --- messages ------------------------------------------------------------------------- */

static void count_bad_message(struct td_agent *a, const char *field)
{
	a->n.bad_messages++;
	if (a->control.bad_logged)
		return;
	a->control.bad_logged = true;
	td_warn(AG_MOD, NULL, "control channel: message dropped peer=%s field=%s (further ones are only counted)",
		td_wslink_peer(a->control.link), field);
}

/* Not from a gateway of ours. A stock agent takes it. */
static void note_odd_message(struct td_agent *a, const char *field)
{
	if (a->control.odd_logged)
		return;
	a->control.odd_logged = true;
	a->n.bad_messages++;
	td_warn(AG_MOD, NULL, "control channel: message taken although a field is wrong, as stock agents do field=%s",
		field);
}

static void on_start(struct td_agent *a, const struct tnl_msg *m)
{
	struct tnl_start start;
	const char *fault;

	if (tnl_start_parse(m->payload, m->plen, &start, &fault)) {
		count_bad_message(a, fault);
		return;
	}
	ag_session_start(a, &start);
	tnl_start_fini(&start);
}

static void on_channel_closed(struct td_agent *a, const struct tnl_msg *m)
{
	struct tnl_channel_closed c;

	if (tnl_channel_closed_parse(m->payload, m->plen, &c)) {
		count_bad_message(a, "channel_closed");
		return;
	}
	const char *id = c.session_id && *c.session_id ? c.session_id : c.destination_id;
	struct ag_session *s = id ? ag_session_find(a, id) : NULL;
	if (s)
		ag_session_closed_by_gateway(s, c.output ? c.output : "");
	tnl_channel_closed_fini(&c);
}

static void on_task_ack(struct td_agent *a, const struct tnl_msg *m)
{
	struct tnl_task t;

	if (tnl_task_parse(m->payload, m->plen, &t)) {
		count_bad_message(a, "agent_task_acknowledge");
		return;
	}
	if (t.message_id)
		ag_tasks_confirm(&a->tasks, t.message_id);
	tnl_task_fini(&t);
}

static void on_message(void *ctx, enum tnl_ws_op op, uint8_t *p, size_t n)
{
	struct td_agent *a = ctx;
	struct tnl_msg m;
	struct tnl_msg_fault fault;

	if (op != TNL_WS_BINARY) {
		a->n.ignored_messages++;
		return;
	}
	int rc = tnl_msg_decode_lax(p, n, TNL_DIGEST_SHA256, &m, &fault);
	if (rc && rc != TNL_ETYPE) {
		count_bad_message(a, fault.field);
		return;
	}
	if (m.odd)
		note_odd_message(a, fault.field);
	if (m.type == TNL_MT_INTERACTIVE_SHELL) {
		on_start(a, &m);
	} else if (m.type == TNL_MT_CHANNEL_CLOSED) {
		on_channel_closed(a, &m);
	} else if (m.type == TNL_MT_TASK_ACK) {
		on_task_ack(a, &m);
	} else {
		a->n.ignored_messages++;
		if (m.type == TNL_MT_AGENT_JOB && !a->control.job_logged) {
			a->control.job_logged = true;
			td_warn(AG_MOD, NULL, "Run Command is not served by this agent, agent_job is ignored");
		}
	}
}

static void on_closed(void *ctx, int err, uint16_t code, int http_status, const char *why)
{
	struct td_agent *a = ctx;
	struct ag_control *c = &a->control;
	char text[200];

	snprintf(text, sizeof(text), "%s (close code %u)", why && *why ? why : tnl_err_text(err), code);
	if (err == TNL_ETIMEOUT) /* it takes connections perhaps, and does not answer */
		td_aws_url_failed(a->aws, c->channel.at, text);
	drop_link(a);
	td_backoff_up(&c->backoff, a->loop->now - c->up_at);
	/* AWS ends each channel about hourly with 1000. */
	if (code == 1000)
		td_info(AG_MOD, NULL, "control channel closed by the gateway, opening it again reason=\"%s\"",
			why ? why : "");
	else
		report_trouble(a, "lost", text);
	open_later(a);
}

static const struct td_wslink_cb control_cb = {.message = on_message, .closed = on_closed};

static void on_opened(void *ctx, const struct ag_channel_result *r)
{
	struct td_agent *a = ctx;
	struct ag_control *c = &a->control;

	if (!r->w) {
		report_trouble(a, "could not be opened", r->why);
		open_later(a);
		return;
	}
	c->link = r->w;
	c->up_at = a->loop->now;
	c->last_error[0] = '\0';
	c->warned_at = 0;
	c->bad_logged = false;
	td_wslink_set_cb(c->link, &control_cb, a);
	set_state(c, AG_CTL_UP);
	a->n.control_connects++;
	td_info(AG_MOD, NULL, "control channel up instance=%s peer=%s", a->instance_id, td_wslink_peer(c->link));
	ag_tasks_link(&a->tasks, c->link);
}

static void open_now(void *arg)
{
	struct td_agent *a = arg;
	set_state(&a->control, AG_CTL_OPENING);
	ag_channel_open(&a->control.channel);
}

void ag_control_init(struct td_agent *a)
{
	struct ag_control *c = &a->control;
	const struct td_agent_config *cfg = ag_cfg(a);

	ag_channel_init(&c->channel, a, NULL, on_opened, a);
	td_timer_init(&c->retry, a->loop, open_now, a);
	td_backoff_init(&c->backoff, cfg->reconnect_min_ns, cfg->reconnect_max_ns);
}

void ag_control_start(struct td_agent *a)
{
	open_now(a);
}

void ag_control_stop(struct td_agent *a)
{
	struct ag_control *c = &a->control;

	td_timer_stop(&c->retry);
	ag_channel_cancel(&c->channel);
	drop_link(a);
	set_state(c, AG_CTL_DOWN);
}

void ag_control_restart(struct td_agent *a)
{
	ag_control_stop(a);
	td_backoff_init(&a->control.backoff, ag_cfg(a)->reconnect_min_ns, ag_cfg(a)->reconnect_max_ns);
	ag_control_start(a);
}

bool ag_control_is_up(const struct td_agent *a)
{
	return a->control.state == AG_CTL_UP;
}

void ag_control_wake(struct td_agent *a)
{
	if (a->control.link)
		td_wslink_ping(a->control.link);
	else if (a->control.state == AG_CTL_DOWN)
		td_timer_in(&a->control.retry, 0);
}
