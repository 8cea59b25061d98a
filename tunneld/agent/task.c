/* How the ends of sessions are said: agent_task_complete until the gateway confirms it. */
#include "tunneld/agent/internal.h"

#include "lib/alloc.h"
#include "lib/crypto.h"
#include "tunneld/base/log.h"

#include <string.h>

#define TASK_TRIES 3
#define TASK_EVERY (1 * TD_SEC)
#define TASKS_MAX 1000

static void task_free(struct ag_task *t)
{
	td_timer_stop(&t->timer);
	tnl_list_remove(&t->node);
	tnl_free(t->session_id);
	tnl_free(t->status);
	tnl_free(t->output);
	tnl_free(t);
}

static int task_message(const struct ag_task *t, struct tnl_buf *frame)
{
	struct tnl_buf payload;
	int rc = TNL_ENOMEM;

	tnl_buf_init(&payload, 16 * 1024);
	if (!tnl_task_complete_write(&payload, t->session_id, t->a->instance_id, t->status, t->output, t->tries)) {
		struct tnl_msg m = {.type = TNL_MT_TASK_COMPLETE,
				    .schema = 1,
				    .created_ms = t->a->loop->wall_ms,
				    .payload = tnl_buf_data(&payload),
				    .plen = (uint32_t)tnl_buf_len(&payload)};
		memcpy(m.id, t->message_id, sizeof(m.id));
		uint8_t *p = tnl_buf_reserve(frame, TNL_MSG_HDR + m.plen);
		if (p) {
			tnl_buf_commit(frame, tnl_msg_encode(p, &m));
			rc = 0;
		}
	}
	tnl_buf_fini(&payload);
	return rc;
}

/* Three times with the same MessageId; without a control channel it waits for one. */
static void task_send(void *arg)
{
	struct ag_task *t = arg;
	struct td_agent *a = t->a;
	struct tnl_buf frame;

	if (a->control.state != AG_CTL_UP)
		return;
	if (t->tries == TASK_TRIES) {
		a->n.tasks_unconfirmed++;
		ag_ledger_del(a->ledger, t->session_id);
		td_warn(AG_MOD, t->session_id, "the gateway did not confirm the end of the session tries=%d", t->tries);
		task_free(t);
		ag_settle(a);
		return;
	}
	t->tries++;
	a->n.tasks_sent++;
	tnl_buf_init(&frame, 32 * 1024);
	if (!task_message(t, &frame) &&
	    td_wslink_send(a->control.link, TNL_WS_BINARY, tnl_buf_data(&frame), tnl_buf_len(&frame)))
		td_debug(AG_MOD, t->session_id, "agent_task_complete has to wait for room");
	tnl_buf_fini(&frame);
	td_timer_in(&t->timer, TASK_EVERY);
}

void ag_task_add(struct td_agent *a, const char *session_id, const char *status, const char *output)
{
	struct ag_task *t = tnl_calloc(1, sizeof(*t));

	if (!t)
		return;
	int waiting = 0;
	tnl_list_foreach(it, &a->tasks) waiting++;
	if (waiting >= TASKS_MAX) /* no gateway for very long: the oldest matter least */
		task_free(tnl_container_of(a->tasks.next, struct ag_task, node));
	t->a = a;
	t->session_id = tnl_strdup(session_id);
	t->status = tnl_strdup(status);
	t->output = tnl_strdup(output);
	tnl_uuid_new(t->message_id);
	td_timer_init(&t->timer, a->loop, task_send, t);
	tnl_list_push_back(&a->tasks, &t->node);
	if (!t->session_id || !t->status || !t->output)
		task_free(t);
	else
		task_send(t);
}

void ag_tasks_resume(struct td_agent *a)
{
	tnl_list_foreach_safe(it, &a->tasks)
	{
		struct ag_task *t = tnl_container_of(it, struct ag_task, node);
		t->tries = 0;
		task_send(t);
	}
}

void ag_tasks_acknowledged(struct td_agent *a, const char *message_id)
{
	uint8_t id[16];

	if (tnl_uuid_parse(message_id, strlen(message_id), id))
		return;
	tnl_list_foreach_safe(it, &a->tasks)
	{
		struct ag_task *t = tnl_container_of(it, struct ag_task, node);
		if (memcmp(t->message_id, id, sizeof(id)) == 0) {
			ag_ledger_del(a->ledger, t->session_id);
			task_free(t);
		}
	}
	ag_settle(a);
}

bool ag_task_pending(const struct td_agent *a, const char *session_id)
{
	tnl_list_foreach(it, &a->tasks) if (strcmp(tnl_container_of(it, struct ag_task, node)->session_id,
						   session_id) == 0) return true;
	return false;
}

void ag_tasks_free(struct td_agent *a)
{
	while (!tnl_list_empty(&a->tasks))
		task_free(tnl_container_of(a->tasks.next, struct ag_task, node));
}
