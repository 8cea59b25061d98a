/* How the ends of sessions are said: agent_task_complete on the control channel, until the gateway confirms it. */
#include "tunneld/agent/internal.h"

#include "lib/alloc.h"
#include "lib/crypto.h"
#include "tunneld/base/log.h"

#include <string.h>

#define TRIES_MAX 3
#define EVERY (1 * TD_SEC)
#define WAITING_MAX 1000

static void task_free(struct ag_task *t)
{
	td_timer_stop(&t->timer);
	tnl_list_remove(&t->node);
	tnl_free(t->session_id);
	tnl_free(t->status);
	tnl_free(t->output);
	tnl_free(t);
}

static void settle_task(struct ag_task *t)
{
	t->all->settled(t->all->a, t->session_id);
	task_free(t);
}

static int write_message(const struct ag_task *t, struct tnl_buf *frame)
{
	const struct td_agent *a = t->all->a;
	struct tnl_buf payload;
	int rc = TNL_ENOMEM;

	tnl_buf_init(&payload, 16 * 1024);
	if (!tnl_task_complete_write(&payload, t->session_id, a->instance_id, t->status, t->output, t->tries)) {
		struct tnl_msg m = {.type = TNL_MT_TASK_COMPLETE,
				    .schema = 1,
				    .created_ms = a->loop->wall_ms,
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
static void say_task(void *arg)
{
	struct ag_task *t = arg;
	struct ag_tasks *all = t->all;
	struct tnl_buf frame;

	if (!all->link)
		return;
	if (t->tries == TRIES_MAX) {
		all->a->n.tasks_unconfirmed++;
		td_warn(AG_MOD, t->session_id, "the gateway did not confirm the end of the session tries=%d", t->tries);
		settle_task(t);
		return;
	}
	t->tries++;
	all->a->n.tasks_sent++;
	tnl_buf_init(&frame, 32 * 1024);
	if (!write_message(t, &frame) &&
	    td_wslink_send(all->link, TNL_WS_BINARY, tnl_buf_data(&frame), tnl_buf_len(&frame)))
		td_debug(AG_MOD, t->session_id, "agent_task_complete is waiting for room on the control channel");
	tnl_buf_fini(&frame);
	td_timer_in(&t->timer, EVERY);
}

static struct ag_task *task_new(struct ag_tasks *all, const char *session_id, const char *status, const char *output)
{
	struct ag_task *t = tnl_calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->all = all;
	t->session_id = tnl_strdup(session_id);
	t->status = tnl_strdup(status);
	t->output = tnl_strdup(output);
	tnl_uuid_new(t->message_id);
	td_timer_init(&t->timer, all->a->loop, say_task, t);
	tnl_list_push_back(&all->list, &t->node);
	if (t->session_id && t->status && t->output)
		return t;
	task_free(t);
	return NULL;
}

void ag_tasks_add(struct ag_tasks *all, const char *session_id, const char *status, const char *output)
{
	int waiting = 0;

	tnl_list_foreach(it, &all->list)
		waiting++;
	if (waiting >= WAITING_MAX) /* no gateway for very long: the oldest matter least */
		settle_task(tnl_container_of(all->list.next, struct ag_task, node));
	struct ag_task *t = task_new(all, session_id, status, output);
	if (t)
		say_task(t);
}

void ag_tasks_link(struct ag_tasks *all, struct td_wslink *w)
{
	all->link = w;
	if (!w)
		return;
	tnl_list_foreach_safe(it, &all->list) {
		struct ag_task *t = tnl_container_of(it, struct ag_task, node);
		t->tries = 0;
		say_task(t);
	}
}

void ag_tasks_confirm(struct ag_tasks *all, const char *message_id)
{
	uint8_t id[16];

	if (tnl_uuid_parse(message_id, strlen(message_id), id))
		return;
	tnl_list_foreach_safe(it, &all->list) {
		struct ag_task *t = tnl_container_of(it, struct ag_task, node);
		if (memcmp(t->message_id, id, sizeof(id)) == 0)
			settle_task(t);
	}
}

bool ag_tasks_pending(const struct ag_tasks *all, const char *session_id)
{
	tnl_list_foreach(it, &all->list) {
		const struct ag_task *t = tnl_container_of(it, struct ag_task, node);
		if (strcmp(t->session_id, session_id) == 0)
			return true;
	}
	return false;
}

void ag_tasks_init(struct ag_tasks *all, struct td_agent *a,
		   void (*settled)(struct td_agent *a, const char *session_id))
{
	all->a = a;
	all->settled = settled;
	tnl_list_init(&all->list);
}

void ag_tasks_fini(struct ag_tasks *all)
{
	while (!tnl_list_empty(&all->list))
		task_free(tnl_container_of(all->list.next, struct ag_task, node));
}
