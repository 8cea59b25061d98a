/* Further links of a session (lib/channel.h): the client says by a flag how many there are to be, and its agent opens
 * as many.  What fails or breaks is tried again while the client wants it, and while half of the
 * process's memory is free: each costs some at either end and in the gateway. */
#include "tunneld/agent/internal.h"

#include "lib/alloc.h"
#include "tunneld/base/fd.h"
#include "tunneld/base/log.h"

#define AGAIN_IN (1 * TD_SEC)

static void open_missing(struct ag_session *s);

static void on_opened(void *ctx, const struct ag_channel_result *r)
{
	struct ag_link_opening *o = ctx;
	struct ag_session *s = o->s;
	unsigned index = o->channel.link_number;

	s->more.opening[index] = NULL;
	td_loop_free_later(s->a->loop, o);
	if (r->w) {
		td_pump_attach_link(s->pump, index, r->w);
		td_info(AG_MOD, s->start.session_id, "further link=%u is up links=%u", index, td_pump_links(s->pump));
		open_missing(s);
		return;
	}
	td_debug(AG_MOD, s->start.session_id, "further link=%u could not be opened, trying again error=\"%s\"", index,
		 r->why);
	td_timer_in(&s->more.timer, AGAIN_IN);
}

static void open_missing(struct ag_session *s)
{
	struct ag_links *m = &s->more;

	if (s->state == AG_S_ENDING || !td_pump_links(s->pump))
		return;
	if (!td_memory_half_free() || td_fd_short()) {
		if (td_pump_links(s->pump) < m->want)
			td_timer_in(&m->timer, AGAIN_IN);
		return;
	}
	for (unsigned i = 1; i < m->want; i++) {
		if (td_pump_link_at(s->pump, i) || m->opening[i])
			continue;
		struct ag_link_opening *o = tnl_calloc(1, sizeof(*o));
		if (!o) {
			td_timer_in(&m->timer, AGAIN_IN);
			return;
		}
		o->s = s;
		ag_channel_init(&o->channel, s->a, s->start.session_id, on_opened, o);
		o->channel.link_number = i;
		m->opening[i] = o;
		ag_channel_open(&o->channel);
	}
}

static void on_timer(void *arg)
{
	struct ag_session *s = arg;

	open_missing(s);
	if (s->state != AG_S_ENDING && s->more.want > 1 && !td_pump_links(s->pump)) /* all are away: once one is back */
		td_timer_in(&s->more.timer, AGAIN_IN);
}

void ag_links_init(struct ag_session *s)
{
	s->more.want = 1;
	td_timer_init(&s->more.timer, s->a->loop, on_timer, s);
}

void ag_links_want(struct ag_session *s, unsigned want)
{
	td_debug(AG_MOD, s->start.session_id, "links wanted=%u", want);
	if (want < s->more.want)
		ag_links_cancel(s);
	s->more.want = want;
	for (unsigned i = want; i < TD_PUMP_LINKS; i++)
		td_pump_detach_link(s->pump, i);
	open_missing(s);
}

void ag_links_bulk(struct ag_session *s, enum td_bulk kind)
{
	const struct tnl_session_info *info = tnl_session_info(td_pump_session(s->pump));

	if (kind == TD_BULK_PLAIN || s->more.want >= info->links || (kind == TD_BULK_LOSSY && !td_memory_half_free()))
		return;
	tnl_session_send_flag(td_pump_session(s->pump), kind == TD_BULK_LOSSY ? TNL_FLAG_LOSSY : TNL_FLAG_FULL,
			      s->a->loop->now);
	td_pump_kick(s->pump);
}

void ag_links_lost(struct ag_session *s, unsigned index)
{
	td_info(AG_MOD, s->start.session_id, "further link=%u lost, the session goes on links=%u", index,
		td_pump_links(s->pump));
	td_timer_in(&s->more.timer, AGAIN_IN / 4);
}

void ag_links_cancel(struct ag_session *s)
{
	td_timer_stop(&s->more.timer);
	for (unsigned i = 0; i < TD_PUMP_LINKS; i++) {
		struct ag_link_opening *o = s->more.opening[i];
		s->more.opening[i] = NULL;
		if (!o)
			continue;
		ag_channel_cancel(&o->channel);
		td_loop_free_later(s->a->loop, o);
	}
}
